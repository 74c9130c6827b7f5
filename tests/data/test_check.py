"""The check finds every fault that is planted, by its own rule, in a dataset that is sound apart from it."""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tampering import Tampered

from recfound_data import CheckReport, check
from recfound_data.cli import main
from recfound_data.errors import RecfoundError

SPLITS = ("train", "validation", "test")
LETTERS = "ABCDEFGHIJKLMNOPQRST"
TARGET_LEAK = "leak: a user's target in more than one split"


@pytest.fixture
def planted(dataset_copy: Path) -> Tampered:
    return Tampered(dataset_copy)


def rules(planted: Tampered) -> Counter[str]:
    """How often each rule was found broken."""
    return Counter(finding.rule for finding in check(planted.folder).findings)


def known_positives(planted: Tampered, query: str) -> set[str]:
    graded = pl.concat([planted.read("qrels", split) for split in SPLITS])
    return set(graded.filter(query_id=query)["item_id"])


def test_a_fresh_build_passes(dataset: Path) -> None:
    report = check(dataset)
    assert report == CheckReport(dataset, report.rows, ()) and report.passed
    counts = json.loads((dataset / "recfound.json").read_text())["configs"]
    assert report.rows == sum(sum(config["splits"].values()) for config in counts.values())


def test_sealing_alone_changes_nothing(dataset: Path, planted: Tampered) -> None:
    planted.seal()
    for name in ("README.md", "recfound.json"):
        assert (planted.folder / name).read_bytes() == (dataset / name).read_bytes()
    planted.write("user2item", "test", planted.read("user2item", "test").reverse())
    assert rules(planted) == {}


# Files, columns and counts


@pytest.mark.parametrize("place", [0.001, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_a_flipped_byte(planted: Tampered, place: float) -> None:
    path = planted.path("user2item", "train")
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 0x55
    path.write_bytes(data)
    report = check(planted.folder)
    assert [(finding.rule, finding.where) for finding in report.findings] == [
        ("file is not the one that was built", "data/user2item/train-00000-of-00001.parquet")
    ]


@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_a_file_cut_short(planted: Tampered, kept: float) -> None:
    path = planted.path("items", "shop")
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    assert rules(planted) == {"file is not the one that was built": 1}


def test_a_file_that_is_no_parquet_though_the_manifest_has_its_hash(planted: Tampered) -> None:
    path = planted.path("items", "shop")
    path.write_bytes(b"PAR1 no rows at all PAR1")
    manifest = planted.manifest()
    manifest["files"]["items/shop-00000-of-00001.parquet"] = {
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    (planted.folder / "recfound.json").write_text(json.dumps(manifest))
    assert rules(planted) == {"file unreadable": 1, "card": 1}


def test_a_missing_file(planted: Tampered) -> None:
    planted.path("qrels", "test").unlink()
    report = check(planted.folder)
    assert [(finding.rule, finding.where) for finding in report.findings] == [
        ("file missing", "data/qrels/test-00000-of-00001.parquet")
    ]


@pytest.mark.parametrize("name", ["data/user2item/train-00001-of-00002.parquet", "elsewhere/more.parquet"])
def test_an_extra_parquet_file(planted: Tampered, name: str) -> None:
    (planted.folder / name).parent.mkdir(exist_ok=True)
    planted.read("user2item", "train").head(0).write_parquet(planted.folder / name)
    report = check(planted.folder)
    assert [(finding.rule, finding.where) for finding in report.findings] == [("file not in the manifest", name)]


@pytest.mark.parametrize(
    ("config", "change"),
    [
        ("qrels", pl.col("grade").cast(pl.Int64)),
        ("sequential_recommendation", pl.col("label").cast(pl.Categorical)),
        ("user2item", pl.col("more_negatives").list.join(" ")),
        ("queries", pl.col("text").alias("words")),
    ],
)
def test_a_wrong_column(planted: Tampered, config: str, change: pl.Expr) -> None:
    planted.write(config, "train", planted.read(config, "train").with_columns(change))
    assert rules(planted) == {"columns": 1}


@pytest.mark.parametrize("key", ["splits", "corpora"])
def test_a_wrong_count(planted: Tampered, key: str) -> None:
    manifest = planted.manifest()
    entry = manifest["configs"]["item2item"][key]
    (entry if key == "splits" else entry["shop"])["test"] += 1
    (planted.folder / "recfound.json").write_text(json.dumps(manifest))
    # The card told the number of each split.
    assert rules(planted) == {"rows differ from the manifest": 1} | ({"card": 1} if key == "splits" else {})


def test_rows_that_went(planted: Tampered) -> None:
    manifest = planted.manifest()["configs"]
    planted.write("query2item", "train", planted.read("query2item", "train").head(-1))
    sealed = planted.manifest()
    (planted.folder / "recfound.json").write_text(json.dumps(sealed | {"configs": manifest}))
    assert rules(planted) == {"rows differ from the manifest": 1, "card": 1}


@pytest.mark.parametrize("config", ["items", "user2item"])
def test_a_stale_hash_in_the_card(planted: Tampered, config: str) -> None:
    card = (planted.folder / "README.md").read_text()
    header = re.search(rf"config_name: {config}\n(?:.*\n)*?  description: (\w+)", card)
    (planted.folder / "README.md").write_text(card.replace(header[1], "0" * 32))
    report = check(planted.folder)
    assert [finding.rule for finding in report.findings] == ["card"] and config in report.findings[0].where


@pytest.mark.parametrize("card", [None, "", "# No header", "---\nconfigs: 3\n---\n", "---\n[\n---\n"])
def test_a_card_without_a_readable_header(planted: Tampered, card: str | None) -> None:
    (planted.folder / "README.md").unlink()
    if card is not None:
        (planted.folder / "README.md").write_text(card)
    assert rules(planted) == {"card": 1}


def test_a_dataset_of_another_schema(planted: Tampered) -> None:
    manifest = planted.manifest() | {"schema_version": "0.9"}
    (planted.folder / "recfound.json").write_text(json.dumps(manifest))
    assert rules(planted) == {"schema version": 1}


@pytest.mark.parametrize("manifest", ["{", "[]", "3", "{}", '{"configs": {}, "schema_version": "1.0"}'])
def test_a_damaged_manifest_is_an_error(planted: Tampered, manifest: str) -> None:
    (planted.folder / "recfound.json").write_text(manifest)
    with pytest.raises(RecfoundError, match=r"recfound\.json: (cannot be read|is no dataset manifest)"):
        check(planted.folder)
    (planted.folder / "recfound.json").unlink()
    with pytest.raises(RecfoundError, match=r"is no recfound dataset: it has no recfound\.json"):
        check(planted.folder)


# Ids and leaks


def test_a_repeated_id(planted: Tampered) -> None:
    first = planted.read("query2item", "train")["id"][0]
    planted.change("query2item", "train", lambda row: {"id": first} if row["id"] != first else None)
    assert rules(planted) == {"id repeated": 1}


def test_a_repeated_item_id(planted: Tampered) -> None:
    planted.add("items", "shop_films", **planted.read("items", "shop_films").row(0, named=True))
    assert rules(planted) == {"item id repeated": 1}


def test_a_repeated_query_id(planted: Tampered) -> None:
    planted.add("queries", "test", **planted.read("queries", "test").row(0, named=True) | {"text": "other words"})
    assert rules(planted) == {"query id repeated": 1}


def test_a_test_row_copied_into_training(planted: Tampered) -> None:
    planted.add("user2item", "train", **planted.read("user2item", "test").row(0, named=True))
    # Whether its user has a training sample of its own decides whether the query is known.
    assert rules(planted) - Counter(["query not in queries of its split"]) == {
        "id repeated": 1,
        TARGET_LEAK: 1,
        "leak: the same sample in more than one split": 1,
        "positive not in qrels of its split": 1,
        "leak: a held-out target is shown in training": 1,
    }


def test_a_sample_twice_under_two_ids(planted: Tampered) -> None:
    row = planted.read("query2item", "train").row(0, named=True)
    planted.add("query2item", "train", **row | {"id": row["id"][:-4] + "0000"})
    assert rules(planted) == {"sample repeated": 1}


def test_a_test_target_as_training_target_of_the_other_task(planted: Tampered) -> None:
    titles = dict(
        pl.concat(planted.read("items", name) for name in ("shop", "shop_films")).select("item_id", "title").iter_rows()
    )
    targets = {row["anchor_id"]: titles[row["positive_id"]] for row in planted.read("user2item", "test").to_dicts()}

    def teach(row: dict[str, Any]) -> dict[str, Any] | None:
        secret = targets.get(row["id"].split("-")[0])
        if secret is None or secret in row["options"]:
            return None
        at = LETTERS.index(row["label"])
        # In capitals and with other punctuation it is the same title.
        said = row["prompt"][0]["content"].replace(
            f"\n{row['label']}. {row['options'][at]}", f"\n{row['label']}. {secret.upper()}!"
        )
        options = [f"{secret.upper()}!" if place == at else option for place, option in enumerate(row["options"])]
        return {"options": options, "prompt": [{"role": "user", "content": said}]}

    planted.change("sequential_recommendation", "train", teach)
    assert rules(planted) == {TARGET_LEAK: 1}
    assert {"user2item", "sequential_recommendation"} == {
        example.split(" | ")[0] for example in check(planted.folder).findings[0].examples
    }


def test_an_item_pair_torn_over_splits(planted: Tampered) -> None:
    rows = planted.read("item2item", "train").to_dicts()
    pairs = {(row["anchor_id"], row["positive_id"]) for row in rows}
    row = next(row for row in rows if (row["positive_id"], row["anchor_id"]) in pairs)
    planted.write("item2item", "train", planted.read("item2item", "train").filter(pl.col("id") != row["id"]))
    planted.add("item2item", "validation", **row | {"id": f"{'0' * 16}-{row['id'].split('-')[1]}"})
    planted.judge("validation", "item2item", row["anchor"], row["anchor_id"], row["positive_id"])
    assert rules(planted) == {"leak: pair of items in more than one split": 1}


def test_a_group_torn_over_splits(planted: Tampered) -> None:
    row = planted.read("item2item", "train").row(0, named=True)
    group = planted.read("item2item", "test")["id"][0].split("-")[0]
    planted.change("item2item", "train", lambda found: {"id": f"{group}-{'0' * 16}"} if found == row else None)
    assert rules(planted) == {"leak: group in more than one split": 1}


@pytest.mark.parametrize(
    "words", [str.upper, lambda query: query.replace(" ", "  ") + "?!", lambda query: f"({query})"]
)
def test_a_query_torn_over_splits(planted: Tampered, words: Any) -> None:
    row = planted.read("query2item", "train").row(0, named=True)
    assert words(row["anchor"]) != row["anchor"]
    other = {"id": f"{'0' * 16}-{'1' * 16}", "anchor": words(row["anchor"]), "anchor_id": "0" * 16}
    planted.add("query2item", "validation", **row | other)
    planted.judge("validation", "query2item", words(row["anchor"]), "0" * 16, row["positive_id"], 3)
    assert rules(planted) == {"leak: query in more than one split": 1}


# Positives and negatives


def replace_negative(planted: Tampered, task: str, pick: Any) -> None:
    """Put another item in the first place of some row's negatives; `pick(row)` names it, or None for the next row."""
    items = pl.concat(planted.read("items", name) for name in ("shop", "shop_films", "shop_queries"))
    texts = dict(items.select("item_id", "text").iter_rows())

    def replace(row: dict[str, Any]) -> dict[str, Any] | None:
        item = pick(row)
        if item is None or item in row["negative_ids"]:
            return None
        return {"negative": texts[item], "negative_ids": [item, *row["negative_ids"][1:]]}

    planted.change(task, "train", replace)


@pytest.mark.parametrize("task", ["user2item", "item2item", "query2item"])
def test_a_negative_that_is_the_positive(planted: Tampered, task: str) -> None:
    replace_negative(planted, task, lambda row: row["positive_id"])
    assert rules(planted) == {"negative is the positive or its duplicate": 1, "negative is a known positive": 1}


def test_a_negative_that_is_a_duplicate_of_the_positive(planted: Tampered) -> None:
    row = planted.read("user2item", "train").row(0, named=True)
    item = planted.read("items", row["corpus"]).filter(item_id=row["positive_id"]).row(0, named=True)
    planted.add("items", row["corpus"], **item | {"item_id": "twin", "title": f"{item['title'].upper()}."})
    replace_negative(planted, "user2item", lambda found: "twin" if found == row else None)
    assert rules(planted) == {"negative is the positive or its duplicate": 1}


@pytest.mark.parametrize("task", ["user2item", "item2item", "query2item"])
def test_a_negative_that_is_a_known_positive(planted: Tampered, task: str) -> None:
    def pick(row: dict[str, Any]) -> str | None:
        known = known_positives(planted, row["anchor_id"]) - {row["positive_id"]}
        if task == "query2item":  # a complement is known, and no positive
            graded = pl.concat(planted.read("qrels", split) for split in SPLITS)
            known &= set(graded.filter(pl.col("query_id") == row["anchor_id"], pl.col("grade") >= 2)["item_id"])
        return min(known, default=None)

    replace_negative(planted, task, pick)
    assert rules(planted) == {"negative is a known positive": 1}


def test_what_was_judged_a_complement_or_irrelevant_is_a_fair_negative(planted: Tampered) -> None:
    graded = pl.concat(planted.read("qrels", split) for split in SPLITS).rename({"item_id": "negative_id"})
    given = planted.read("query2item", "train").select(query_id="anchor_id", negative_id="negative_ids")
    judged = given.explode("negative_id").join(graded, on=["query_id", "negative_id"])
    assert set(judged["grade"]) == {0, 1} and rules(planted) == {}


@pytest.mark.parametrize("other", ["shop_films", "shop_queries"])
def test_a_negative_from_another_domain(planted: Tampered, other: str) -> None:
    foreign = planted.read("items", other)["item_id"][0]
    replace_negative(planted, "user2item", lambda row: foreign if row["corpus"] == "shop" else None)
    assert rules(planted) == {"negative of another corpus or domain": 1}


def test_a_negative_that_is_the_anchor(planted: Tampered) -> None:
    replace_negative(planted, "item2item", lambda row: row["anchor_id"])
    assert rules(planted) == {"negative is the anchor or its duplicate": 1}


def test_a_negative_of_other_text(planted: Tampered) -> None:
    planted.change("user2item", "test", lambda row: {"more_negatives": ["Other words", *row["more_negatives"][1:]]})
    assert rules(planted) == {"negative is not its item's text": 1}


def test_a_negative_without_a_text(planted: Tampered) -> None:
    planted.change("user2item", "test", lambda row: {"more_negatives": row["more_negatives"][1:]})
    assert rules(planted) == {"negatives and their ids differ in number": 1}


def test_an_anchor_that_is_its_own_positive(planted: Tampered) -> None:
    row = planted.read("item2item", "train").row(0, named=True)
    item = row["positive_id"]
    planted.add("qrels", "train", query_id=item, item_id=item, grade=1)
    free = known_positives(planted, item)

    def own(row: dict[str, Any]) -> dict[str, Any] | None:
        fits = row["positive_id"] == item and not free & set(row["negative_ids"])
        return {"anchor_id": item, "anchor": row["positive"]} if fits else None

    planted.change("item2item", "train", own)
    assert rules(planted) == {"anchor is the positive or its duplicate": 1}


def test_an_offer_of_the_same_product_is_neither_positive_nor_negative(planted: Tampered) -> None:
    row = planted.read("item2item", "train").row(0, named=True)
    item = planted.read("items", row["corpus"]).filter(item_id=row["anchor_id"]).row(0, named=True)
    planted.add("items", row["corpus"], **item | {"item_id": "twin", "title": f"({item['title']})"})
    replace_negative(planted, "item2item", lambda found: "twin" if found == row else None)
    assert rules(planted) == {"negative is the anchor or its duplicate": 1}
    planted.change(
        "item2item", "train", lambda found: {**row, "anchor_id": "twin"} if found["id"] == row["id"] else None
    )
    planted.judge("train", "item2item", item["text"], "twin", row["positive_id"])
    assert rules(planted) == {}
    twin = {"positive_id": "twin", "positive": item["text"], "anchor_id": row["anchor_id"]}
    planted.change("item2item", "train", lambda found: twin if found["id"] == row["id"] else None)
    planted.add("qrels", "train", query_id=row["anchor_id"], item_id="twin", grade=1)
    assert "anchor is the positive or its duplicate" in rules(planted)


def test_a_pair_of_products_torn_over_splits_by_another_offer(planted: Tampered) -> None:
    row = planted.read("item2item", "train").row(0, named=True)
    item = planted.read("items", row["corpus"]).filter(item_id=row["anchor_id"]).row(0, named=True)
    planted.add(
        "items", row["corpus"], **item | {"item_id": "twin", "title": item["title"].upper(), "text": "Other words"}
    )
    other = {"id": f"{'0' * 16}-{'1' * 16}", "anchor_id": "twin", "anchor": "Other words"}
    planted.add("item2item", "validation", **row | other)
    planted.judge("validation", "item2item", "Other words", "twin", row["positive_id"])
    assert rules(planted) == {"leak: pair of items in more than one split": 1}


def test_a_positive_of_other_text(planted: Tampered) -> None:
    planted.change("item2item", "test", lambda row: {"positive": row["positive"] + " and more"})
    assert rules(planted) == {"positive is not its item's text": 1}


def test_a_positive_that_is_not_in_qrels(planted: Tampered) -> None:
    row = planted.read("user2item", "test").row(0, named=True)
    graded = planted.read("qrels", "test")
    named = (pl.col("query_id") == row["anchor_id"]) & (pl.col("item_id") == row["positive_id"])
    planted.write("qrels", "test", graded.filter(~named))
    assert rules(planted) == {"positive not in qrels of its split": 1}


@pytest.mark.parametrize("task", ["user2item", "query2item"])
def test_an_empty_text(planted: Tampered, task: str) -> None:
    planted.change(task, "train", lambda row: {"anchor": ""})
    assert rules(planted) == {"empty text": 1}


# People


def say(config: str, said: str) -> Any:
    if config == "sequential_recommendation":
        return lambda row: {"prompt": [{"role": "user", "content": f"{row['prompt'][0]['content']} {said}"}]}
    column = {"queries": "text", "items": "brand", "query2item": "instruction"}[config]
    return lambda row: {column: f"{row[column]} {said}"}


@pytest.mark.parametrize("config", ["sequential_recommendation", "queries", "items", "query2item"])
@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("e-mail address", "jane.doe+shop@mail.example.com"),
        ("phone number", "(212) 555-0143"),
        ("phone number", "+44 20 7946 0123"),
    ],
)
def test_a_persons_address_or_number(planted: Tampered, config: str, rule: str, said: str) -> None:
    planted.change(config, "shop_films" if config == "items" else "test", say(config, said))
    assert rules(planted) == {rule: 1}


def test_a_raw_user_id(planted: Tampered) -> None:
    row = planted.read("user2item", "test").row(0, named=True)
    planted.change("user2item", "test", lambda row: {"anchor_id": "A2MN5JQMIY0FQ2"})
    planted.judge("test", "user2item", row["anchor"], "A2MN5JQMIY0FQ2", row["positive_id"])
    assert rules(planted) == {"user id is not a hash": 2}  # in the task and in queries


# Options and labels


def test_a_label_that_is_not_the_completion(planted: Tampered) -> None:
    def mislabel(row: dict[str, Any]) -> dict[str, Any]:
        wrong = "B" if row["label"] == "A" else "A"
        return {"completion": [{"role": "assistant", "content": wrong}]}

    planted.change("sequential_recommendation", "test", mislabel)
    assert rules(planted) == {"completion is not the label": 1}


@pytest.mark.parametrize("label", ["U", "", "AA"])
def test_a_label_that_is_no_letter(planted: Tampered, label: str) -> None:
    answer = {"label": label, "completion": [{"role": "assistant", "content": label}]}
    planted.change("sequential_recommendation", "test", lambda row: answer)
    assert rules(planted) == {"label is no letter of an option": 1} | ({"empty text": 1} if label == "" else {})


def test_nineteen_options(planted: Tampered) -> None:
    planted.change(
        "sequential_recommendation",
        "train",
        lambda row: {"options": row["options"][:19]} if row["label"] < "T" else None,
    )
    assert rules(planted) == {"not twenty options": 1}


def test_a_repeated_option(planted: Tampered) -> None:
    def repeat(row: dict[str, Any]) -> dict[str, Any] | None:
        first, second = row["options"][:2]
        said = row["prompt"][0]["content"].replace(f"\nA. {first}\n", f"\nA. {second}\n")
        options = [second, second, *row["options"][2:]]
        return {"options": options, "prompt": [{"role": "user", "content": said}]} if row["label"] > "B" else None

    planted.change("sequential_recommendation", "train", repeat)
    assert rules(planted) == {"option repeated": 1}


# The command


def test_the_command_exits_with_one_and_says_what_and_where(planted: Tampered, capsys: pytest.CaptureFixture) -> None:
    assert main(["data", "check", str(planted.folder)]) == 0
    assert capsys.readouterr().out.endswith("rows, nothing found\n")
    row = planted.read("item2item", "test").row(0, named=True)
    planted.change("item2item", "test", lambda row: {"positive": "Other words"})
    assert main(["data", "check", str(planted.folder)]) == 1
    out = capsys.readouterr().out
    assert f"positive is not its item's text: item2item: 1\n    {row['id']} | {row['positive_id']}\n" in out
    assert out.endswith(f"{planted.folder}: 1 findings\n")
    assert main(["data", "check", str(planted.folder), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is False and [finding["rule"] for finding in report["findings"]] == [
        "positive is not its item's text"
    ]
