"""Mined negatives: the nearest that are not known to fit, found the same whoever searches, and told of."""

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import polars as pl
import pytest
import yaml
from raw_shop import catalogue, digests, rows

from recfound_data import build, check, mining
from recfound_data.cleaning import product_key
from recfound_data.errors import RecfoundError, UsageError
from recfound_data.layout import read_manifest

TASKS = ["query2item", "item2item"]
pytestmark = pytest.mark.usefixtures("no_plots")


def mined(shop: Path, out: Path, name: str = "mined", workers: int = 1, **settings: Any) -> Path:
    """Build the shop with mined negatives, and return the dataset."""
    recipe = yaml.safe_load((shop / "recipe.yaml").read_text())
    recipe |= {"tasks": TASKS, "mining": settings}
    path = shop / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    build(path, out, quiet=True, workers=workers)
    return out


@pytest.fixture(scope="module")
def shop(shop_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(shop_folder, tmp_path_factory.mktemp("mining") / "shop"))


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recfound_data.plots.write_plots", lambda *_: [])
        yield


@pytest.fixture(scope="module")
def lexical(shop: Path, undrawn: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mined(shop, tmp_path_factory.mktemp("lexical") / "dataset", kind="lexical", depth=30)


@pytest.fixture(scope="module")
def by_model(shop: Path, lexical: Path, undrawn: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The shop mined by that model, its embeddings in parts of forty."""
    texts = [item["text"] for item in rows(lexical, "items")] + [row["anchor"] for row in rows(lexical, "query2item")]
    (shop / "words.txt").write_text("\n".join(texts).lower())
    pytest.importorskip("sentence_transformers")
    name = _made_model(shop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mining, "_PART", 40)
        yield mined(shop, tmp_path_factory.mktemp("by_model") / "dataset", kind="model", model=name, depth=30)


def _made_model(shop: Path) -> str:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    words = sorted(set((shop / "words.txt").read_text().split()))
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0} | {word: at for at, word in enumerate(words, 1)}, "[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.WhitespaceSplit()
    weights = np.random.default_rng(0).normal(size=(len(words) + 1, 16)).astype(np.float32)
    made = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)])
    made.save(str(shop / "words_model"), create_model_card=False)
    return "words_model"


def products(items: dict[str, dict]) -> dict[str, str]:
    """What is equal for duplicates of one product, by item."""
    keys = pl.DataFrame({"title": [item["title"] for item in items.values()]}).select(product_key(pl.col("title")))
    return dict(zip(items, keys.to_series(), strict=True))


def by_words(queries: list[str], texts: list[str]) -> np.ndarray:
    """The BM25 score of every text for every query."""
    index = bm25s.BM25()
    words = bm25s.tokenize(texts, stopwords=[], show_progress=False, return_ids=False)
    index.index(words, show_progress=False)
    asked = bm25s.tokenize(queries, stopwords=[], show_progress=False, return_ids=False)
    return np.stack([index.get_scores(list(query)) for query in asked])


def by_vectors(folder: Path, queries: list[str], texts: list[str]) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    encode = SentenceTransformer(str(folder)).encode
    return encode(queries, normalize_embeddings=True) @ encode(texts, normalize_embeddings=True).T


def require_nearest(dataset: Path, task: str, scores: Any, asks: Any, least: float) -> None:
    """Raise unless each sample's first negatives are the nearest that are not known to fit, and are so counted."""
    items, fits, places = catalogue(dataset), defaultdict(set), defaultdict(list)
    product = products(items)
    for row in rows(dataset, "qrels"):
        if row["grade"] > 0:
            fits[row["query_id"]].add(product[row["item_id"]])
    for name, item in items.items():
        places[item["corpus"], item["domain"]].append(name)
    counted: dict[str, Counter] = defaultdict(Counter)
    samples = rows(dataset, task)
    for place in {(row["corpus"], row["domain"]) for row in samples}:
        mine, here = [row for row in samples if (row["corpus"], row["domain"]) == place], places[place]
        found = scores([asks(items, row) for row in mine], [items[name]["text"] for name in here])
        for row, value in zip(mine, found, strict=True):
            of, known = dict(zip(here, value, strict=True)), fits[row["anchor_id"]]
            apart = {product[row["positive_id"]], product.get(row["anchor_id"])}
            other = sorted((name for name in here if product[name] not in apart), key=lambda name: -of[name])[:30]
            other = [name for name in other if of[name] > least]
            counted[place[0]].update(
                nearest=len(other[:5]), positives=sum(product[name] in known for name in other[:5])
            )
            best = {}
            for name in other:
                if product[name] not in known:
                    best.setdefault(product[name], of[name])
            expected, given = list(best.values())[:5], row["negative_ids"]
            counted[place[0]].update(mined=len(expected), other=5 - len(expected))
            assert [of[name] for name in given[: len(expected)]] == pytest.approx(expected, abs=1e-4)
            assert not {product[name] for name in given[: len(expected)]} & known
            assert not {product[name] for name in given} & apart and len({product[name] for name in given}) == 5
    told = read_manifest(dataset)["mining"][task]
    for corpus, counts in counted.items():
        # Of equally near items the more popular are looked at, which this does not know.
        assert 0 < told[corpus]["positives"] == pytest.approx(counts["positives"], abs=0.02 * counts["nearest"])
        assert told[corpus]["share"] == pytest.approx(told[corpus]["positives"] / counts["nearest"], abs=1e-4)
        assert {name: told[corpus][name] for name in ("nearest", "mined", "other")} == {
            name: counts[name] for name in ("nearest", "mined", "other")
        }


def title(items: dict[str, dict], row: dict) -> str:
    return items[row["anchor_id"]]["title"]


def text(items: dict[str, dict], row: dict) -> str:
    return row["anchor"]


def test_words_find_the_nearest_that_are_not_known_to_fit(lexical: Path) -> None:
    require_nearest(lexical, "query2item", by_words, text, 0)
    require_nearest(lexical, "item2item", by_words, title, 0)


def test_a_model_finds_the_nearest_that_are_not_known_to_fit(shop: Path, by_model: Path) -> None:
    for task in TASKS:
        require_nearest(by_model, task, partial(by_vectors, shop / "words_model"), text, -2)


@pytest.mark.parametrize("kind", ["lexical", "by_model"])
def test_the_mined_dataset_passes_the_check_and_says_what_was_mined(kind: str, request: pytest.FixtureRequest) -> None:
    dataset = request.getfixturevalue(kind)
    assert check(dataset).findings == ()
    card = (dataset / "README.md").read_text()
    told = read_manifest(dataset)["mining"]
    assert set(told) == set(TASKS)
    for task, corpora in told.items():
        for corpus, found in corpora.items():
            assert f"| `{task}` | {corpus} | {found['nearest']:,} | {found['positives']:,} |" in card


def test_only_negatives_change(shop: Path, lexical: Path, tmp_path: Path) -> None:
    (shop / "drawn.yaml").write_text(
        yaml.safe_dump(yaml.safe_load((shop / "recipe.yaml").read_text()) | {"tasks": TASKS})
    )
    build(shop / "drawn.yaml", tmp_path / "drawn", quiet=True)
    assert "mining" not in read_manifest(tmp_path / "drawn")
    for task in TASKS:
        before, after = ({row["id"]: row for row in rows(folder, task)} for folder in (tmp_path / "drawn", lexical))
        same = [name for name in before if name in after]
        assert len(same) > 0.9 * max(len(before), len(after))
        for name in same:
            for column in ("anchor", "positive", "instruction", "anchor_id", "positive_id"):
                assert before[name][column] == after[name][column]
        assert sum(before[name]["negative"] != after[name]["negative"] for name in same) > 0.5 * len(same)


def test_workers_shards_and_hash_seeds_give_the_same_bytes(
    shop: Path, lexical: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-m", "recfound_data.cli", "data", "build", str(shop / "mined.yaml")]
    settings = yaml.safe_load((shop / "recipe.yaml").read_text()) | {"tasks": TASKS}
    settings["mining"] = {"kind": "lexical", "depth": 30}
    (shop / "mined.yaml").write_text(yaml.safe_dump(settings))
    environment = dict(os.environ) | {"PYTHONHASHSEED": "5"}
    command += ["--out", str(tmp_path / "two"), "--workers", "2"]
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=300)
    files = {name: digest for name, digest in digests(tmp_path / "two").items() if name.endswith(".parquet")}
    assert files == {name: digest for name, digest in digests(lexical).items() if name.endswith(".parquet")}
    for table in ("judgements", "pairs"):
        monkeypatch.setitem(importlib.import_module("recfound_data.build")._ROWS_PER_SHARD, table, 40)
    monkeypatch.setattr(mining, "_SCORES_AT_ONCE", 100)
    monkeypatch.setattr("recfound_data.negatives._AT_ONCE", 1_000)
    again = mined(shop, tmp_path / "shards", kind="lexical", depth=30)
    assert digests(again) == digests(lexical)


def test_the_nearest_are_passed_over_where_asked(shop: Path, lexical: Path, tmp_path: Path) -> None:
    skipped = mined(shop, tmp_path / "skipped", kind="lexical", depth=30, skip=12, tasks=["item2item"])
    assert set(read_manifest(skipped)["mining"]) == {"item2item"}
    for task, share in (("item2item", 0.3), ("query2item", 0.0)):
        before = {row["id"]: row["negative_ids"] for row in rows(lexical, task)}
        after = {row["id"]: row["negative_ids"] for row in rows(skipped, task)}
        assert share == 0.0 or sum(bool(set(before[name]) & set(after[name])) for name in after) < share * len(after)
    told, before = (read_manifest(folder)["mining"]["item2item"]["shop"] for folder in (skipped, lexical))
    assert told["share"] < before["share"] and told["nearest"] > 0.5 * before["nearest"]


def test_a_mined_build_that_stopped_goes_on(
    shop: Path, lexical: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    module = importlib.import_module("recfound_data.build")
    with monkeypatch.context() as patch:
        patch.setattr(module, "choose", stop)
        with pytest.raises(KeyboardInterrupt):
            mined(shop, tmp_path / "dataset", kind="lexical", depth=30)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_index", stop)  # what was indexed is not indexed again
        patch.setattr(module, "write_plan", stop)
        mined(shop, tmp_path / "dataset", kind="lexical", depth=30)
    assert digests(tmp_path / "dataset") == digests(lexical)


def test_the_highest_scores_come_first_and_equal_ones_in_order() -> None:
    draw = np.random.default_rng(3)
    for width in (1, 3, 7, 50):
        scores = draw.integers(0, 4, 20).astype(np.float32)
        expected = sorted(range(20), key=lambda place: (-scores[place], place))[:width]
        assert mining.top(scores, np.arange(20), width).tolist() == expected


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "model"}, "needs `model`"),
        ({"kind": "lexical", "model": "x"}, "needs `model`"),
        ({"kind": "lexical", "depht": 3}, "did you mean 'depth'"),
        ({"kind": "lexical", "tasks": ["user2item"]}, "mining.tasks"),
    ],
)
def test_a_wrong_setting_is_named(shop: Path, tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        mined(shop, tmp_path / "dataset", **settings)


def test_a_missing_package_is_named_before_anything_is_read(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, missing = importlib.util.find_spec, "sentence_transformers"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == missing else find(name, *rest))
    with pytest.raises(UsageError, match=r"sentence-transformers.*recfound\[model\]"):
        mined(shop, tmp_path / "dataset", kind="model", model="any")
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_not_there_is_named(shop: Path, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecfoundError, match=r"mining\.model: .*empty: cannot be loaded"):
        mined(shop, tmp_path / "dataset", kind="model", model=str(tmp_path / "empty"))
