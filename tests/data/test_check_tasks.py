"""The check's rules for the tasks that are not of users and items, on a dataset written by hand."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tampering import SCHEMA, TRIPLES, Tampered, row, samples, write_by_hand

from recfound_data import check

TASKS = [sample["task"] for sample in samples(1)]
ROLES = "prompt does not end with a user, or completion is not one answer"
ABSENT = "attribute's value is not in the prompt"
HASH = "0123456789abcdef"


@pytest.fixture
def hand(tmp_path: Path) -> Tampered:
    return write_by_hand(tmp_path / "hand")


@pytest.fixture
def planted(dataset_copy: Path) -> Tampered:
    return Tampered(dataset_copy)


def rules(planted: Tampered) -> Counter[str]:
    return Counter(finding.rule for finding in check(planted.folder).findings)


def answer(label: str) -> dict[str, Any]:
    return {"label": label, "completion": [{"role": "assistant", "content": label}]}


def ask(text: str) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": text}]}


def test_a_sound_dataset_passes(hand: Tampered) -> None:
    report = check(hand.folder)
    assert report.passed and report.rows == 5 * len(TASKS) == 45


@pytest.mark.parametrize(
    ("task", "change", "rule"),
    [
        ("sentiment_analysis", answer("fine") | {"options": ["fine"]}, "label that the task does not have"),
        ("answerability_prediction", answer("Yes") | {"options": []}, "label that the task does not have"),
        ("product_matching", answer("maybe") | {"options": []}, "label that the task does not have"),
        ("product_relation_prediction", answer("equal") | {"options": []}, "label that the task does not have"),
        ("sentiment_analysis", {"options": ["neutral"]} | answer("negative"), "label is not among the options"),
        ("product_matching", {"options": ["yes", "no", "yes"]}, "option repeated"),
        ("attribute_value_extraction", answer("teal"), "label is no JSON list of attribute, value, source"),
        ("attribute_value_extraction", answer("[]"), "label is no JSON list of attribute, value, source"),
        (
            "attribute_value_extraction",
            answer('[{"attribute":"Colour","value":"teal"}]'),
            "label is no JSON list of attribute, value, source",
        ),
        (
            "attribute_value_extraction",
            answer('[{"attribute":"Colour","value":3,"source":"title"}]'),
            "label is no JSON list of attribute, value, source",
        ),
        ("attribute_value_extraction", answer(TRIPLES.replace("teal", "red")), ABSENT),
        (
            "attribute_value_extraction",
            answer(TRIPLES.replace('"title"', "null")),
            "label is no JSON list of attribute, value, source",
        ),
        ("query_rewriting", answer("User: What does it cost?"), "rewrite is the dialogue unchanged"),
        ("item_profile", {"label_source": "somebody"}, "label source not in the manifest"),
        ("item_profile", {"label": "Other words."}, "completion is not the label"),
        ("item_profile", answer(" "), "empty text"),
        ("user_profile", ask("\n"), "empty text"),
        ("answer_generation", ask("Do it.\n\n" + "word " * 4_001), "prompt longer than 20,000 characters"),
        ("answer_generation", answer("word " * 801), "completion longer than 4,000 characters"),
        ("answer_generation", {"prompt": [{"role": "assistant", "content": "Well"}]}, ROLES),
        ("answer_generation", {"prompt": [{"role": "person", "content": "Sir"}, *ask("Do.")["prompt"]]}, ROLES),
        ("answer_generation", {"label": "It.\nIt.", "completion": answer("It.")["completion"] * 2}, ROLES),
        ("item_profile", {"id": "17-3"}, "id is not a group and a digest"),
        ("item_profile", {"id": f"A2MN5JQMIY0FQ2-{HASH}"}, "id is not a group and a digest"),
        ("item_profile", {"task": "user_profile"}, "sample of another task"),
        ("item_profile", {"corpus": "elsewhere"}, "corpus not in the manifest"),
        ("item_profile", {"domain": None}, "value missing"),
        ("product_matching", {"options": ["yes", None]}, "value missing"),
        ("user_profile", answer("Likes lamps, see +1 (212) 555-0143."), "phone number"),
        ("answer_generation", answer("Write to jane@mail.example.com"), "e-mail address"),
        ("item_profile", {"options": ["jane@mail.example.com", "Lamp number 1 is a lamp by Lumo."]}, "e-mail address"),
    ],
)  # fmt: skip
def test_a_fault_in_one_sample(hand: Tampered, task: str, change: dict[str, Any], rule: str) -> None:
    hand.change(task, "train", lambda found: change)
    found = check(hand.folder).findings
    # A corpus that the manifest does not know is also missing in its counts.
    counted = {"rows differ from the manifest"} if "corpus" in change else set()
    assert {finding.rule for finding in found} - counted == {rule}
    assert all(finding.count == 1 and finding.where.split(".")[0] == task for finding in found)
    assert found[0].examples


def test_another_source_of_labels_that_the_manifest_lists(hand: Tampered) -> None:
    hand.change("item_profile", "train", lambda found: {"label_source": "some-model"})
    manifest = hand.manifest() | {"label_sources": ["some-model"]}
    (hand.folder / "recfound.json").write_text(json.dumps(manifest))
    assert rules(hand) == {}


# Splits


def first(hand: Tampered, task: str) -> dict[str, Any]:
    return hand.read(task, "train").row(0, named=True)


@pytest.mark.parametrize("task", TASKS)
def test_a_sample_in_two_splits_under_another_phrasing(hand: Tampered, task: str) -> None:
    found = first(hand, task)
    said = found["prompt"][0]["content"].split("\n\n", 1)[1]
    hand.add(task, "test", **found | {"id": f"{HASH}-{HASH}"} | ask(f"In other words, do this.\n\n{said}"))
    assert rules(hand) == {"leak: the same sample in more than one split": 1}


def test_a_sample_twice_in_a_split_under_another_phrasing(hand: Tampered) -> None:
    found = first(hand, "item_profile")
    said = found["prompt"][0]["content"].split("\n\n", 1)[1]
    hand.add("item_profile", "train", **found | {"id": f"{HASH}-{HASH}"} | ask(f"In other words.\n\n{said}"))
    assert rules(hand) == {"sample repeated": 1}


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_same_prompt_with_two_labels(hand: Tampered, split: str) -> None:
    found = first(hand, "sentiment_analysis")
    other = "neutral" if found["label"] != "neutral" else "positive"
    hand.add("sentiment_analysis", split, **found | {"id": f"{HASH}-{HASH}"} | answer(other))
    assert rules(hand) == {"the same prompt has two labels": 1}


@pytest.mark.parametrize("task", TASKS)
def test_a_group_in_two_splits(hand: Tampered, task: str) -> None:
    group = first(hand, task)["id"].split("-")[0]
    hand.change(task, "validation", lambda found: {"id": f"{group}-{HASH}"})
    found = [finding for finding in check(hand.folder).findings if "pair" not in finding.rule]
    assert {finding.rule for finding in found} - {"leak: product asked about in more than one split"} == {
        "leak: group in more than one split"
    }


@pytest.mark.parametrize("task", ["answer_generation", "answerability_prediction"])
def test_a_product_asked_about_in_training_of_one_task_and_in_the_test_of_another(hand: Tampered, task: str) -> None:
    other = {"answer_generation", "answerability_prediction"} - {task}
    group = first(hand, other.pop())["id"].split("-")[0]
    number = int(group, 16)
    kept = [found for found in hand.read(task, "train").to_dicts() if found["id"].split("-")[0] != group]
    moved = next(sample for sample in samples(number) if sample["task"] == task)
    splits = {split: hand.read(task, split).to_dicts() for split in ("validation", "test")}
    hand.give(task, {"train": kept, **splits, "test": [*splits["test"], moved]})
    assert rules(hand) == {"leak: product asked about in more than one split": 1}


def test_a_pair_in_training_of_item2item_and_in_the_test_of_relations(planted: Tampered) -> None:
    label = next(iter(planted.manifest()["corpora"]))
    group = planted.read("item2item", "train")["id"][0].split("-")[0]

    def relation(group: str) -> dict[str, list[dict[str, Any]]]:
        sample = next(found for found in samples(1) if found["task"] == "product_relation_prediction")
        return {"test": [sample | {"id": f"{group}-{HASH}", "corpus": label}]}

    planted.give("product_relation_prediction", relation(HASH))
    assert rules(planted) == {}
    planted.give("product_relation_prediction", relation(group))
    assert rules(planted) == {"leak: pair of products in more than one split": 1}


def profile(user: str, title: str) -> dict[str, Any]:
    asked = f"Rated choices:\n- {title.upper()} [Things / Lamps; by Lumo; from 1999]: 4.5\n- Other: 2"
    return row("user_profile", 7, asked, "Likes things.", id=f"{user}-{HASH}")


def review(user: str, title: str) -> dict[str, Any]:
    asked = f"Options: neutral\n\nItem: {title}\nReview: Nothing to say about it."
    return row("sentiment_analysis", 7, asked, "neutral", ["neutral"], id=f"{user}-{HASH}")


@pytest.mark.parametrize(("task", "make"), [("user_profile", profile), ("sentiment_analysis", review)])
def test_a_held_out_target_shown_in_training(
    planted: Tampered, task: str, make: Callable[[str, str], dict[str, Any]]
) -> None:
    target = planted.read("user2item", "test").row(0, named=True)
    title = planted.read("items", target["corpus"]).filter(item_id=target["positive_id"])["title"][0]
    held = make(target["anchor_id"], title) | {"corpus": target["corpus"]}
    planted.give(task, {"train": [held | {"id": f"{HASH}-{HASH}"}]})
    assert rules(planted) == {}  # another user's
    planted.give(task, {"train": [held]})
    found = check(planted.folder).findings
    assert [(finding.rule, finding.where) for finding in found] == [
        ("leak: a held-out target is shown in training", task)
    ]


@pytest.mark.parametrize("task", ["user2item", "sequential_recommendation"])
def test_a_held_out_target_in_a_training_history(planted: Tampered, task: str) -> None:
    titles = dict(planted.read("items", "shop").select("item_id", "title").iter_rows())
    held = {
        found["anchor_id"]: titles.get(found["positive_id"]) for found in planted.read("user2item", "test").to_dicts()
    }

    def show(found: dict[str, Any]) -> dict[str, Any] | None:
        title = held.get(found["id"].split("-")[0])
        if title is None:
            return None
        if task == "user2item":
            return {"anchor": f"{found['anchor']}\n{title}"}
        return ask(found["prompt"][0]["content"].replace("\n\nOptions:", f"\n- {title}\n\nOptions:"))

    planted.change(task, "train", show)
    assert rules(planted) == {"leak: a held-out target is shown in training": 1}


# Items, queries and judgements


@pytest.mark.parametrize(
    ("config", "split", "change", "rule"),
    [
        ("items", "shop", {"title": ""}, "empty text"),
        ("items", "shop_films", {"brand": None}, "value missing"),
        ("items", "shop_films", {"corpus": "elsewhere"}, "corpus not in the manifest"),
        ("queries", "test", {"text": ""}, "empty text"),
        ("queries", "test", {"task": "item_profile"}, "query of no embedding task"),
        ("qrels", "train", {"grade": 4}, "grade that there is not"),
        ("item2item", "train", {"anchor": "Other words"}, "anchor is not its item's text"),
        ("user2item", "train", {"domain": "elsewhere"}, "sample is not of its positive's corpus and domain"),
        ("user2item", "train", {"anchor": "word " * 1_601}, "anchor longer than 8,000 characters"),
        ("user2item", "train", {"instruction": ""}, "empty text"),
    ],
)
def test_a_fault_in_one_row(planted: Tampered, config: str, split: str, change: dict[str, Any], rule: str) -> None:
    planted.change(config, split, lambda found: change)
    assert rule in rules(planted)


def test_an_items_text_that_is_too_long(planted: Tampered) -> None:
    planted.add(
        "items", "shop", **planted.read("items", "shop").row(0, named=True) | {"item_id": "long", "text": "x" * 601}
    )
    assert rules(planted) == {"text longer than item_text_chars": 1}


def test_a_judgement_of_what_is_not_there(planted: Tampered) -> None:
    known = planted.read("qrels", "train").row(0, named=True)
    planted.add("qrels", "train", query_id=known["query_id"], item_id="nothing", grade=1)
    assert rules(planted) == {"judgement of an item that is not in items": 1}
    planted.add("qrels", "train", query_id="nobody", item_id=known["item_id"], grade=1)
    assert rules(planted)["judgement of a query that is not in queries"] == 1


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_judgement_twice(planted: Tampered, split: str) -> None:
    planted.add("qrels", split, **planted.read("qrels", "train").row(0, named=True))
    assert rules(planted) == {"judgement repeated": 1}


def test_a_query_that_queries_lacks(planted: Tampered) -> None:
    query = planted.read("user2item", "test")["anchor_id"][0]
    queries = planted.read("queries", "test")
    planted.write("queries", "test", queries.filter(queries["query_id"] != query))
    assert rules(planted) == {"query not in queries of its split": 1}


def test_a_negative_twice(planted: Tampered) -> None:
    def repeat(found: dict[str, Any]) -> dict[str, Any]:
        twice = {"negative_ids": [found["negative_ids"][0], *found["negative_ids"][:-1]]}
        return twice | {"more_negatives": [found["negative"], *found["more_negatives"][:-1]]}

    planted.change("user2item", "train", repeat)
    assert rules(planted) == {"negative repeated": 1}


# The manifest, the files and the card


def test_a_configuration_that_this_package_does_not_know(hand: Tampered) -> None:
    manifest = hand.manifest()
    manifest["configs"]["haiku"] = manifest["configs"]["item_profile"]
    (hand.folder / "recfound.json").write_text(json.dumps(manifest))
    assert rules(hand) == {"configuration unknown": 1, "card": 2}


@pytest.mark.parametrize("name", ["notes.txt", "data/item_profile/train.csv", "plots/old.png", "data/more/x.parquet"])
def test_a_stray_file(hand: Tampered, name: str) -> None:
    (hand.folder / name).parent.mkdir(exist_ok=True)
    (hand.folder / name).write_bytes(b"something")
    found = check(hand.folder).findings
    assert [(finding.rule, finding.where) for finding in found] == [("file not in the manifest", name)]


def test_hidden_files_are_left_aside(hand: Tampered) -> None:
    (hand.folder / ".gitattributes").write_text("*.parquet filter=lfs")
    (hand.folder / ".git").mkdir()
    (hand.folder / ".git" / "config").write_text("")
    assert rules(hand) == {}


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("data/item_profile/dev-00000-of-00001.parquet", "file outside the layout"),
        ("elsewhere/train-00000-of-00001.parquet", "file outside the layout"),
        ("data/haiku/train-00000-of-00001.parquet", "file of no configuration"),
        ("data/item_profile/train-00001-of-00003.parquet", "files are not numbered through"),
    ],
)
def test_a_file_with_another_name_than_the_layout_has(hand: Tampered, name: str, rule: str) -> None:
    (hand.folder / name).parent.mkdir(exist_ok=True)
    hand.read("item_profile", "train").head(0).write_parquet(hand.folder / name)
    hand.seal()
    assert rules(hand) == {rule: 1}


def test_a_manifest_that_leads_out_of_the_folder(hand: Tampered) -> None:
    manifest = hand.manifest()
    manifest["files"]["../hand/README.md"] = {"bytes": 1, "sha256": "0"}
    (hand.folder / "recfound.json").write_text(json.dumps(manifest))
    assert rules(hand) == {"file outside the layout": 1}


@pytest.mark.parametrize("config", ["items", "queries", "qrels"])
def test_a_configuration_that_ranking_needs(planted: Tampered, config: str) -> None:
    manifest = planted.manifest()
    del manifest["configs"][config]
    (planted.folder / "recfound.json").write_text(json.dumps(manifest))
    assert rules(planted)["configuration missing"] == 1


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        ("`item_profile`", "`item_profiles`"),
        ("https://example.com/things", "https://example.com/other"),
        ("Nobody, Things, 2020.", "Nobody."),
        ("num_examples: 3", "num_examples: 4"),
        ("split: test", "split: train"),
        ("# RecFound dataset", "# RecFound dataset\n\n![Lengths](plots/none.png)"),
    ],
)
def test_a_card_that_does_not_tell_what_there_is(hand: Tampered, said: str, instead: str) -> None:
    card = (hand.folder / "README.md").read_text()
    assert said in card
    (hand.folder / "README.md").write_text(card.replace(said, instead, 1 if ":" in said else -1))
    assert set(rules(hand)) == {"card"}


def test_the_schema_of_these_rows_is_the_published_one(dataset: Path) -> None:
    found = Tampered(dataset).read("sequential_recommendation", "test")
    assert dict(found.schema) == SCHEMA
