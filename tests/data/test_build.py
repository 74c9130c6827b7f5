"""A build: the layout on disk, what `datasets` loads of it, and equal bytes however it was made."""

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Value, load_dataset
from raw_shop import catalogue, digests, histories, liked, rows

import recfound_data
from recfound_data import build, check
from recfound_data.errors import RecfoundError, UsageError

TASKS = ("item2item", "query2item", "sequential_recommendation", "user2item")
CONFIGS = (*TASKS, "items", "qrels", "queries")
CORPORA = ("shop", "shop_films", "shop_queries")
SPLITS = ("train", "validation", "test")


def recipe_with(shop: Path, **changes: Any) -> Path:
    """Write the shop's recipe with some keys changed, beside the original."""
    settings = yaml.safe_load((shop / "recipe.yaml").read_text()) | changes
    path = shop / "changed.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_layout_is_the_documented_one(dataset: Path) -> None:
    expected = {"README.md", "recfound.json"}
    expected |= {f"items/{corpus}-00000-of-00001.parquet" for corpus in CORPORA}
    for config in (*TASKS, "qrels", "queries"):
        expected |= {f"data/{config}/{split}-00000-of-00001.parquet" for split in SPLITS}
    assert {path for path in digests(dataset) if not path.startswith("plots/")} == expected
    assert [path for path in digests(dataset) if path.startswith("plots/") and path.endswith(".png")]
    assert not [path for path in dataset.parent.iterdir() if path != dataset]


def test_manifest_counts_and_hashes_are_those_of_the_files(dataset: Path) -> None:
    manifest = json.loads((dataset / "recfound.json").read_text(encoding="utf-8"))
    assert manifest["schema_version"] == "1.0" and manifest["seed"] == 11 and manifest["user_key"] is True
    assert set(manifest["configs"]) == set(CONFIGS) and set(manifest["corpora"]) == set(CORPORA)
    written = {path: digest for path, digest in digests(dataset).items() if path.endswith((".parquet", ".png"))}
    assert {path: entry["sha256"] for path, entry in manifest["files"].items()} == written
    assert all((dataset / path).stat().st_size == entry["bytes"] for path, entry in manifest["files"].items())
    for config, entry in manifest["configs"].items():
        for split, count in entry["splits"].items():
            assert count == len(rows(dataset, config, split))
            if "corpora" in entry:
                assert count == sum(corpus.get(split, 0) for corpus in entry["corpora"].values())
    recipe = json.dumps(manifest["recipe"], indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert manifest["recipe_sha256"] == hashlib.sha256(recipe.encode()).hexdigest()


@pytest.mark.parametrize("config", CONFIGS)
def test_load_dataset_equals_the_parquet_files(dataset: Path, tmp_path: Path, config: str) -> None:
    loaded = load_dataset(str(dataset), config, cache_dir=str(tmp_path))
    assert list(loaded) == (["train"] if config == "items" else list(SPLITS))
    header = yaml.safe_load((dataset / "README.md").read_text(encoding="utf-8").split("---")[1])
    info = next(info for info in header["dataset_info"] if info["config_name"] == config)
    for split, found in loaded.items():
        assert found.to_list() == rows(dataset, config, split)
        assert [feature["name"] for feature in info["features"]] == found.column_names
        assert next(entry for entry in info["splits"] if entry["name"] == split)["num_examples"] == len(found) > 0
    plain = [feature for feature in loaded["train"].features.values() if isinstance(feature, Value)]
    assert {feature.dtype for feature in plain} <= {"string", "int8"}


@pytest.mark.usefixtures("no_plots")
def test_only_splits_with_rows_are_written_and_listed(shop_copy: Path, tmp_path: Path) -> None:
    examples = shop_copy / "shopping_queries/shopping_queries_dataset_examples.parquet"
    table = pq.read_table(examples)
    pq.write_table(table.filter([split == "test" for split in table["split"].to_pylist()]), examples)
    recipe = recipe_with(shop_copy, tasks=["query2item"])
    summary = build(recipe, tmp_path / "dataset", quiet=True)
    assert list(summary.rows["query2item"]) == ["test"]
    assert [path.name for path in (tmp_path / "dataset/data/query2item").iterdir()] == ["test-00000-of-00001.parquet"]
    assert check(tmp_path / "dataset").passed
    assert list(load_dataset(str(tmp_path / "dataset"), "query2item", cache_dir=str(tmp_path / "cache"))) == ["test"]


@pytest.mark.parametrize(("hash_seed", "workers", "threads"), [("2", "2", "3")])
def test_any_process_workers_and_threads_give_the_same_bytes(
    shop_folder: Path, dataset: Path, tmp_path: Path, hash_seed: str, workers: str, threads: str
) -> None:
    out = tmp_path / "other-name"
    command = [sys.executable, "-m", "recfound_data.cli", "data", "build", str(shop_folder / "recipe.yaml")]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "POLARS_MAX_THREADS": threads, "TZ": "UTC-3"}
    done = subprocess.run(
        [*command, "--out", str(out), "--workers", workers],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert digests(out) == digests(dataset)
    assert [path.name for path in tmp_path.iterdir()] == ["other-name"]


def test_another_seed_gives_other_files(shop_copy: Path, dataset: Path, tmp_path: Path) -> None:
    build(recipe_with(shop_copy, seed=12), tmp_path / "dataset", quiet=True)
    same = {name for name, digest in digests(tmp_path / "dataset").items() if digests(dataset)[name] == digest}
    assert {name.split("/")[0] for name in same} - {"plots"} == {"items"}


@pytest.mark.usefixtures("no_plots")
def test_equally_named_folders_load_their_own_rows_from_one_cache(shop_copy: Path, tmp_path: Path) -> None:
    loaded = {}
    for folder, seed in (("a", 1), ("b", 2)):
        out = tmp_path / folder / "dataset"
        build(recipe_with(shop_copy, seed=seed), out, quiet=True)
        loaded[folder] = load_dataset(str(out), "user2item", cache_dir=str(tmp_path / "cache"))
        for split in SPLITS:
            assert loaded[folder][split].to_list() == rows(out, "user2item", split)
    assert loaded["a"]["train"].to_list() != loaded["b"]["train"].to_list()


def test_an_earlier_dataset_is_replaced_whole(shop_copy: Path, dataset_copy: Path, dataset: Path) -> None:
    before = digests(dataset_copy)
    (dataset_copy / "data/user2item/left-over.txt").write_text("of an earlier version")
    build(recipe_with(shop_copy, tasks=["query2item"]), dataset_copy, quiet=True)
    assert not {name for name in digests(dataset_copy) if "user2item" in name}
    build(shop_copy / "recipe.yaml", dataset_copy, quiet=True)
    assert digests(dataset_copy) == before == digests(dataset)
    assert sorted(path.name for path in dataset_copy.parent.iterdir()) == ["dataset", "shop"]


@pytest.mark.usefixtures("no_plots")
def test_a_foreign_folder_is_refused_and_left_alone(shop_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("irreplaceable")
    with pytest.raises(UsageError, match=r"mine: exists and holds something else \(no recfound\.json\)"):
        build(shop_folder / "recipe.yaml", tmp_path / "mine", quiet=True)
    assert digests(tmp_path) == {"mine/thesis.txt": hashlib.sha256(b"irreplaceable").hexdigest()}
    (tmp_path / "empty").mkdir()
    build(shop_folder / "recipe.yaml", tmp_path / "empty", quiet=True)
    assert (tmp_path / "empty/recfound.json").is_file()


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_earlier_dataset_survives_a_build_that_fails(
    shop_folder: Path, dataset_copy: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: Any) -> None:
        raise error

    before = digests(dataset_copy)
    monkeypatch.setattr("recfound_data.finishing.dataset_card", fail)  # the last step
    with pytest.raises(RecfoundError if isinstance(error, OSError) else KeyboardInterrupt) as raised:
        build(shop_folder / "recipe.yaml", dataset_copy, quiet=True)
    assert str(raised.value) == "" or "No space left on device" in str(raised.value)
    assert digests(dataset_copy) == before
    left = [".dataset.building"] if isinstance(error, KeyboardInterrupt) else []  # to go on with
    assert sorted(path.name for path in dataset_copy.parent.iterdir()) == [*left, "dataset"]


def test_an_earlier_dataset_is_put_back_if_the_new_one_cannot_take_its_place(
    shop_folder: Path, dataset_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if ".partial-" in path.name:
            raise OSError(5, "Input/output error")
        return rename(path, target)

    before = digests(dataset_copy)
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(RecfoundError, match="Input/output error"):
        build(shop_folder / "recipe.yaml", dataset_copy, quiet=True)
    assert digests(dataset_copy) == before
    assert [path.name for path in dataset_copy.parent.iterdir()] == ["dataset"]


@pytest.mark.usefixtures("no_plots")
def test_shards_hold_the_same_rows_in_the_same_order(shop_copy: Path, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    build(recipe_with(shop_copy, rows_per_file=50), out, quiet=True)
    for config in CONFIGS:
        for split in ("train",) if config == "items" else SPLITS:
            assert rows(out, config, split) == rows(dataset, config, split)
    groups = defaultdict(list)
    for path in sorted(out.rglob("*.parquet")):
        name, number, total = re.fullmatch(r"(\w+)-(\d{5})-of-(\d{5})\.parquet", path.name).groups()
        groups[path.parent / name].append((int(number), int(total), pq.read_metadata(path).num_rows))
    assert len(groups[out / "data/item2item/train"]) > 5
    for parts in groups.values():
        assert [(number, total) for number, total, _ in parts] == [(number, len(parts)) for number in range(len(parts))]
        assert all(count == 50 for *_, count in parts[:-1]) and 1 <= parts[-1][2] <= 50
    assert check(out).passed
    loaded = load_dataset(str(out), "item2item", cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].to_list() == rows(dataset, "item2item", "train")


@pytest.fixture(scope="module")
def by_time(shop_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop's dataset, split at two moments for all users."""
    copy = Path(shutil.copytree(shop_folder, tmp_path_factory.mktemp("by-time") / "shop"))
    out = copy.parent / "dataset"
    build(recipe_with(copy, split="global_time"), out, quiet=True)
    return out


def test_global_time_passes_the_check(by_time: Path) -> None:
    assert check(by_time).passed
    for task in ("user2item", "sequential_recommendation"):
        assert all(rows(by_time, task, split) for split in SPLITS)


def test_global_time_has_no_training_event_at_or_after_the_validation_cut(shop_folder: Path, by_time: Path) -> None:
    items = catalogue(by_time)
    for corpus, users in histories(shop_folder).items():
        moments = {(user, event.item): event.time for user, events in users.items() for event in events}
        times = sorted(time for (_, item), time in moments.items() if item in items)
        cut, test_cut = (times[int(share * (len(times) - 1))] for share in (0.8, 0.9))
        periods = {"train": (0, cut), "validation": (cut, test_cut), "test": (test_cut, 2**40)}
        of_history = {user: "\n".join(items[event.item]["title"] for event in reversed(liked(events, items)))
                      for user, events in users.items()}  # fmt: skip
        for split, (first, end) in periods.items():
            graded = [row for row in rows(by_time, "qrels", split) if row["query_id"] in users]
            assert all(first <= moments[row["query_id"], row["item_id"]] < end for row in graded)
            samples = [row for row in rows(by_time, "user2item", split) if row["corpus"] == corpus]
            assert graded and (samples or corpus == "shop_films")  # few people have so many films that period
            for row in samples:
                user, shown = row["anchor_id"], row["anchor"].split("\n")
                target = moments[user, row["positive_id"]]
                assert first <= target < end
                assert row["anchor"] in of_history[user]
                past = {items[e.item]["title"]: e.time for e in liked(users[user], items)}
                assert max(past[title] for title in shown) < target


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize(
    "changes",
    [
        {"history": {"k_core": 4, "min_rating": 4.0}, "negatives": 1},
        {"history": {"min_history": 1, "max_history": 2, "train_targets_per_user": 50}, "split": "global_time"},
        {"item_text_chars": 40, "validation_share": 0.3, "test_share": 0.3, "negatives": 60},
    ],
)
def test_whatever_the_recipe_sets_passes_the_check(shop_copy: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    build(recipe_with(shop_copy, **changes), tmp_path / "dataset", quiet=True)
    assert check(tmp_path / "dataset").findings == ()
    found = rows(tmp_path / "dataset", "user2item")
    assert {len(row["negative_ids"]) for row in found} == {changes.get("negatives", 5)}
    assert max(row["anchor"].count("\n") for row in found) < changes.get("history", {}).get("max_history", 20)
    assert max(len(row["text"]) for row in rows(tmp_path / "dataset", "items")) <= changes.get("item_text_chars", 600)


@pytest.mark.usefixtures("no_plots")
def test_limits_keep_exactly_so_many_of_the_samples_that_there_are(
    shop_copy: Path, dataset: Path, tmp_path: Path
) -> None:
    limits = {"user2item": {"train": 50, "test": 7}, "item2item": {"validation": 0}, "query2item": {"train": 10**6}}
    summary = build(recipe_with(shop_copy, limits=limits), tmp_path / "dataset", quiet=True)
    assert check(tmp_path / "dataset").findings == ()
    gone: dict[str, int] = defaultdict(int)
    for task in TASKS:
        for split in SPLITS:
            before, after = (rows(out, task, split) for out in (dataset, tmp_path / "dataset"))
            most = limits.get(task, {}).get(split, len(before))
            assert len(after) == min(most, len(before)) and [row for row in before if row in after] == after
            gone[task] += len(before) - len(after)
    assert gone["user2item"] > 300 and gone["item2item"] > 30 and not gone["query2item"]
    for task in ("user2item", "item2item"):
        assert summary.drops[task]["sample beyond the recipe's limit"] == gone[task]
    build(recipe_with(shop_copy, limits=limits), tmp_path / "again", quiet=True)
    assert digests(tmp_path / "again") == digests(tmp_path / "dataset")


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("most", [1, 3])
def test_no_item_asks_for_more_related_ones_than_the_recipe_says(shop_copy: Path, tmp_path: Path, most: int) -> None:
    build(recipe_with(shop_copy, pairs_per_item=most, tasks=["item2item"]), tmp_path / "dataset", quiet=True)
    asked = Counter(row["anchor_id"] for row in rows(tmp_path / "dataset", "item2item"))
    assert max(asked.values()) == most
    related = Counter(row["query_id"] for row in rows(tmp_path / "dataset", "qrels"))
    # What is not drawn is still known to answer; an item whose pair reads as another's can lack it.
    assert sum(asked[item] == min(most, related[item]) for item in asked) > 0.95 * len(asked)
    assert max(related.values()) > 3


@pytest.mark.usefixtures("no_plots")
def test_the_k_core_bounds_histories_and_targets(shop_copy: Path, tmp_path: Path) -> None:
    build(recipe_with(shop_copy, history={"k_core": 5}), tmp_path / "dataset", quiet=True)
    items = catalogue(tmp_path / "dataset")
    summary = json.loads((tmp_path / "dataset/recfound.json").read_text())["drops"]
    for corpus, users in histories(shop_copy).items():
        core = {(user, event.item) for user, events in users.items() for event in events if event.item in items}
        known = len(core)
        while True:
            often = Counter(end for pair in core for end in pair)
            kept = {pair for pair in core if min(often[end] for end in pair) >= 5}
            if kept == core:
                break
            core = kept
        assert summary[corpus]["interaction outside the k-core"] == known - len(core) > 0
        title = {(user, items[item]["title"]) for user, item in core}
        samples = [row for row in rows(tmp_path / "dataset", "user2item") if row["corpus"] == corpus]
        assert bool(samples) == bool(core)
        for row in samples:
            assert (row["anchor_id"], row["positive_id"]) in core
            assert {(row["anchor_id"], shown) for shown in row["anchor"].split("\n")} <= title


def test_queries_judgements_and_samples_belong_to_each_other(dataset: Path, by_time: Path) -> None:
    for out in (dataset, by_time):
        asked = set()
        for split in SPLITS:
            samples = [row for task in TASKS if task != "sequential_recommendation" for row in rows(out, task, split)]
            anchors = defaultdict(set)
            for row in samples:
                anchors[row["anchor_id"], row["task"]].add(row["anchor"])
            queries = rows(out, "queries", split)
            assert {(row["query_id"], row["task"]) for row in queries} == set(anchors) and len(queries) == len(anchors)
            assert all(row["text"] in anchors[row["query_id"], row["task"]] for row in queries)
            judged = {(row["query_id"], row["item_id"]) for row in rows(out, "qrels", split)}
            assert {(row["anchor_id"], row["positive_id"]) for row in samples} <= judged
            asked |= {query for query, _ in anchors}
        qrels = rows(out, "qrels")
        assert {row["query_id"] for row in qrels} == asked
        assert {row["item_id"] for row in qrels} <= set(catalogue(out))
        assert {row["grade"] for row in qrels} == {0, 1, 2, 3}


@pytest.mark.usefixtures("no_plots")
def test_the_same_people_in_two_corpora_have_a_query_in_each(shop_copy: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load((shop_copy / "recipe.yaml").read_text())
    first = settings["corpora"][0]
    items = gzip.decompress((shop_copy / first["metadata"]).read_bytes())
    (shop_copy / "other.json").write_bytes(items.replace(b'"title": "', b'"title": "Other '))
    corpora = [first, first | {"name": "other", "metadata": "other.json"}]
    recipe = recipe_with(shop_copy, corpora=corpora, tasks=["user2item", "sequential_recommendation"])
    build(recipe, tmp_path / "dataset", quiet=True)
    assert check(tmp_path / "dataset").findings == ()
    people = {corpus: set() for corpus in ("shop", "other")}
    for row in rows(tmp_path / "dataset", "user2item"):
        people[row["corpus"]].add(row["anchor_id"])
    assert len(people["shop"]) == len(people["other"]) > 100 and not people["shop"] & people["other"]


@pytest.mark.usefixtures("no_plots")
def test_of_samples_that_read_the_same_the_one_held_out_stays(tmp_path: Path) -> None:
    films = [f"{number},Film {number} (1990),Drama" for number in range(60)]
    (tmp_path / "movies.csv").write_text("\n".join(["movieId,title,genres", *films]))
    seen = {"long": (1, 2, 3, 4, 5, 6), "short": (1, 2, 3, 4), "twin": (1, 2, 3, 4)}  # 1, 2, 3 and then 4
    ratings = [f"{user},{film},5.0,{10**9 + film}" for user, chosen in seen.items() for film in chosen]
    (tmp_path / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *ratings]))
    corpus = {"corpus": "movielens", "ratings": "ratings.csv", "movies": "movies.csv"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"corpora": [corpus], "tasks": ["user2item"]}))
    summary = build(tmp_path / "recipe.yaml", tmp_path / "dataset", quiet=True)
    samples = {
        split: [row["positive_id"] for row in rows(tmp_path / "dataset", "user2item", split)] for split in SPLITS
    }
    assert samples == {"train": [], "validation": ["movielens/5"], "test": samples["test"]}
    assert sorted(samples["test"]) == ["movielens/4", "movielens/6"]
    assert summary.drops["user2item"] == {
        "sample repeated in its split": 1,
        "sample that is held out in another split": 1,
    }
    assert check(tmp_path / "dataset").passed


@pytest.mark.usefixtures("no_plots")
def test_titles_that_read_the_same_in_an_option_are_one_product(shop_copy: Path, tmp_path: Path) -> None:
    path = shop_copy / "amazon_reviews_2018/meta_Shop.json.gz"
    lines = []
    for place, item in enumerate(map(json.loads, gzip.decompress(path.read_bytes()).splitlines())):
        title = f"{item['title'][:20]} {'of many words and ' * 5} number {place}" if place % 3 else item["title"]
        lines.append(json.dumps(item | {"title": title if place % 2 else f"A gift {'for everybody ' * 9}{place}"}))
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    build(shop_copy / "recipe.yaml", tmp_path / "dataset", quiet=True)
    items = [row["title"] for row in rows(tmp_path / "dataset", "items") if row["corpus"] == "shop"]
    assert len(set(items)) == len(items) and len({title[:90] for title in items}) < 0.6 * len(items)
    assert check(tmp_path / "dataset").findings == ()
    assert rows(tmp_path / "dataset", "sequential_recommendation")


def test_the_functions_of_the_package_are_the_documented_ones() -> None:
    assert recfound_data.build is build and recfound_data.check is check
    assert set(TASKS) < set(recfound_data.TASKS) and len(recfound_data.TASKS) == 13
