"""The audit, which shares no code with the check, finds nothing in what was built, and finds what is planted."""

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import audit
import pytest
from tampering import FIVE, Tampered, row, samples, write_by_hand

LETTERS = "ABCDEFGHIJKLMNOPQRST"
HASH = "0123456789abcdef"


@pytest.fixture
def hand(tmp_path: Path) -> Tampered:
    return write_by_hand(tmp_path / "hand")


@pytest.fixture
def planted(dataset_copy: Path) -> Tampered:
    return Tampered(dataset_copy)


def run(folder: Path) -> tuple[int, str]:
    done = subprocess.run([sys.executable, audit.__file__, str(folder)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_what_was_built_holds_no_leak_no_duplicate_and_no_person(dataset: Path) -> None:
    assert run(dataset) == (0, f"{dataset}: 0 findings\n")


def test_a_sound_dataset_of_the_other_tasks_passes(hand: Tampered) -> None:
    assert audit.audit(hand.folder) == []


def test_the_audit_uses_nothing_of_the_project() -> None:
    tree = ast.parse(Path(audit.__file__).read_text(encoding="utf-8"))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= {*sys.stdlib_module_names, "pyarrow"}


def test_the_command_ends_with_one_where_there_is_something_and_with_two_where_there_is_no_dataset(
    hand: Tampered, tmp_path: Path
) -> None:
    (hand.folder / "notes.txt").write_text("something")
    code, said = run(hand.folder)
    assert code == 1 and said == f"file that nobody lists: notes.txt\n{hand.folder}: 1 findings\n"
    assert run(tmp_path)[0] == 2


def answer(label: str) -> dict[str, Any]:
    return {"label": label, "completion": [{"role": "assistant", "content": label}]}


def say(found: dict[str, Any], more: str) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": found["prompt"][0]["content"] + more}]}


@pytest.mark.parametrize(
    ("task", "change", "part"),
    [
        ("item_profile", lambda found: say(found, " Ask jane.doe@mail.example.com"), "jane.doe@mail.example.com"),
        ("item_profile", lambda found: say(found, " Call (212) 555-0143"), "(212) 555-0143"),
        ("answer_generation", lambda found: answer("Call +44 20 7946 0123"), "+44 20 7946 0123"),
        ("user_profile", lambda found: {"id": f"A2MN5JQMIY0FQ2-{HASH}"}, "is no hash"),
        ("sentiment_analysis", lambda found: answer("fine"), "'fine' of 5 options"),
        ("sentiment_analysis", lambda found: {"options": FIVE[:4]}, "of 4 options"),
        ("product_matching", lambda found: {"options": ["yes", "yes"]}, "of 1 options"),
        ("query_rewriting", lambda found: {"label": "User: Other words"}, "the completion is not the label"),
    ],
)
def test_a_fault_in_one_sample(hand: Tampered, task: str, change: Callable[..., Any], part: str) -> None:
    hand.change(task, "train", change)
    assert [line for line in audit.audit(hand.folder) if part in line and line.startswith(task)]


@pytest.mark.parametrize("task", [sample["task"] for sample in samples(1)])
def test_a_test_sample_in_training_under_another_phrasing(hand: Tampered, task: str) -> None:
    found = hand.read(task, "test").row(0, named=True)
    said = found["prompt"][0]["content"].split("\n\n", 1)[1]
    other = {"id": f"{HASH}-{HASH}", "prompt": [{"role": "user", "content": f"In other words.\n\n{said}"}]}
    hand.add(task, "train", **found | other)
    assert [line for line in audit.audit(hand.folder) if line.startswith(f"{task}: leak, the same sample")]


def test_two_answers_to_one_question(hand: Tampered) -> None:
    found = hand.read("product_matching", "train").row(0, named=True)
    hand.add("product_matching", "train", **found | {"id": f"{HASH}-{HASH}"} | answer("no"))
    assert [line for line in audit.audit(hand.folder) if line.startswith("product_matching: two answers")]


def test_a_group_in_two_splits_of_one_task_and_of_two(hand: Tampered) -> None:
    group = hand.read("answer_generation", "train")["id"][0].split("-")[0]
    hand.change("answer_generation", "test", lambda found: {"id": f"{group}-{HASH}"})
    assert f"leak, answer_generation: group {group} in 2 splits" in audit.audit(hand.folder)
    hand.give("answer_generation", {"test": [row("answer_generation", int(group, 16), "Question: Where?", "Here.")]})
    between = f"leak, answer_generation and answerability_prediction: group {group} in different splits"
    assert audit.audit(hand.folder) == [between]


def test_rows_that_the_manifest_does_not_count(hand: Tampered) -> None:
    path = hand.path("item_profile", "train")
    hand.read("item_profile", "train").head(2).write_parquet(path)
    assert audit.audit(hand.folder) == ["rows of item_profile train: 2, listed 3"]


def repeat_sample(planted: Tampered) -> None:
    found = planted.read("query2item", "train").row(0, named=True)
    planted.add("query2item", "train", **found | {"id": f"{found['id'][:-4]}0000"})


def repeat_id(planted: Tampered) -> None:
    first = planted.read("query2item", "train")["id"][0]
    planted.change("query2item", "train", lambda found: {"id": first} if found["id"] != first else None)


def repeat_item(planted: Tampered) -> None:
    planted.add("items", "shop", **planted.read("items", "shop").row(0, named=True))


def repeat_judgement(planted: Tampered) -> None:
    planted.add("qrels", "test", **planted.read("qrels", "train").row(0, named=True))


def repeat_query(planted: Tampered) -> None:
    planted.add("queries", "test", **planted.read("queries", "test").row(0, named=True))


def teach_target(planted: Tampered) -> None:
    planted.add("user2item", "train", **planted.read("user2item", "test").row(0, named=True) | {"id": ""})
    held = planted.read("user2item", "test").row(0, named=True)
    planted.change(
        "user2item", "train", lambda found: {"id": f"{held['anchor_id']}-{HASH}"} if not found["id"] else None
    )


def teach_option(planted: Tampered) -> None:
    held = {found["id"].split("-")[0]: found for found in planted.read("sequential_recommendation", "test").to_dicts()}

    def teach(found: dict[str, Any]) -> dict[str, Any] | None:
        test = held.get(found["id"].split("-")[0])
        if test is None:
            return None
        options = list(found["options"])
        options[LETTERS.index(found["label"])] = test["options"][LETTERS.index(test["label"])].upper()
        return {"options": options}

    planted.change("sequential_recommendation", "train", teach)


def show_target(planted: Tampered) -> None:
    titles = dict(planted.read("items", "shop").select("item_id", "title").iter_rows())
    held = {
        found["anchor_id"]: titles.get(found["positive_id"]) for found in planted.read("user2item", "test").to_dicts()
    }

    def show(found: dict[str, Any]) -> dict[str, Any] | None:
        title = held.get(found["anchor_id"])
        return None if title is None else {"anchor": f"{title.upper()}!\n{found['anchor']}"}

    planted.change("user2item", "train", show)


def tear_pair(planted: Tampered) -> None:
    found = planted.read("item2item", "train").row(0, named=True)
    planted.add("item2item", "test", **found | {"id": f"{HASH}-{HASH}"})


def tear_relation(planted: Tampered) -> None:
    found = planted.read("item2item", "train").row(0, named=True)
    titles = dict(planted.read("items", found["corpus"]).select("item_id", "title").iter_rows())
    asked = f"First product: {titles[found['positive_id']]}\nSecond product: {titles[found['anchor_id']]}"
    options = ["bought together", "viewed together", "similar"]
    place = {"corpus": found["corpus"], "domain": found["domain"]}
    sample = row("product_relation_prediction", 7, asked, "similar", options, **place)
    planted.give("product_relation_prediction", {"test": [sample]})


def tear_query(planted: Tampered) -> None:
    found = planted.read("query2item", "train").row(0, named=True)
    planted.add("query2item", "test", **found | {"id": f"{HASH}-{HASH}", "anchor": found["anchor"].upper() + "?"})


def deny_positive(planted: Tampered) -> None:
    items = planted.read("items", "shop_films")
    texts = dict(items.select("item_id", "text").iter_rows())

    def deny(found: dict[str, Any]) -> dict[str, Any] | None:
        item = found["positive_id"]
        return {"negative": texts[item], "negative_ids": [item, *found["negative_ids"][1:]]} if item in texts else None

    planted.change("user2item", "train", deny)


def name_user(planted: Tampered) -> None:
    planted.change("user2item", "test", lambda found: {"anchor_id": "A2MN5JQMIY0FQ2"})


def change_text(planted: Tampered) -> None:
    planted.change("item2item", "test", lambda found: {"positive": "Other words"})


@pytest.mark.parametrize(
    ("plant", "part"),
    [
        (repeat_sample, "query2item: the same sample"),
        (repeat_id, "query2item: id "),
        (repeat_item, "item twice"),
        (repeat_judgement, "qrels: "),
        (repeat_query, "queries: "),
        (teach_target, "leak: user"),
        (teach_option, "leak: user"),
        (show_target, "leak, user2item"),
        (tear_pair, "leak: pair"),
        (tear_relation, "leak: pair"),
        (tear_query, "leak: query"),
        (deny_positive, "is a positive, its duplicate or of another place"),
        (name_user, "user A2MN5JQMIY0FQ2 is not hashed"),
        (change_text, "holds texts that are not its items'"),
    ],
)
def test_a_planted_fault(planted: Tampered, plant: Callable[[Tampered], None], part: str) -> None:
    assert audit.audit(planted.folder) == []
    plant(planted)
    assert [line for line in audit.audit(planted.folder) if part in line]
