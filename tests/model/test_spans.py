"""Spans of descriptions: words of one item alone, never its title, the same for the same seed, routed as query2item."""

import json
import re
import shutil
from random import Random

import polars as pl
import pytest
from tiny_models import byte_level

from recfound_data.cli import main
from recfound_data.errors import UsageError
from recfound_model import TmoleConfig
from recfound_model.templates import with_defaults
from recfound_model.training.collating import Collator
from recfound_model.training.spans import ITEM_SPANS, LONGEST, ROUTED_AS, SHORTEST, SpanStream, describing, item_spans


def squashed(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.lower())


def catalogue(*rows: tuple[str, str], corpus: str = "shop") -> pl.DataFrame:
    """Items by title and the lines after it."""
    return pl.DataFrame(
        [
            {"item_id": f"{corpus}/{at}", "corpus": corpus, "title": title, "text": f"{title}\n{lines}".rstrip("\n")}
            for at, (title, lines) in enumerate(rows)
        ]
    )


@pytest.fixture(scope="module")
def items() -> pl.DataFrame:
    """A hundred descriptions of few different words, with boilerplate and titles inside."""
    draw = Random(0)
    made = []
    for number in range(100):
        title = " ".join(draw.choices(["Kettle", "Cup", "Pan", "It", "X-1"], k=draw.randint(1, 3)))
        words = draw.choices(["steel", "Blue,", "the", "-", "handle", "with", "cup", "x", "1", "pan"], k=20)
        where = draw.randint(0, 20)
        words[where:where] = [*title.split(), "&", "This", "product", "is", "not", "a", "medicine."]
        made.append((title, f"By: {number} Sons of Ironmongers\nCategories: Kitchen {number}, Pots\n{' '.join(words)}"))
    return catalogue(*made)


@pytest.fixture(scope="module")
def stream(items):
    return lambda seed=0: SpanStream(describing(items), seed)


def test_a_span_is_some_words_of_the_description_without_the_title(items, stream):
    rows = stream().draw(1000)
    texts = {item: (title, text.split("\n")[-1]) for item, title, text in items["item_id", "title", "text"].iter_rows()}
    lengths = set()
    for row in rows:
        title, description = texts[row["anchor_id"]]
        assert row["positive"] == title and row["positive_id"] == row["anchor_id"]
        assert f" {row['anchor']} " in f" {description} "
        assert squashed(title) not in squashed(row["anchor"])
        lengths.add(len(row["anchor"].split()))
    assert lengths == set(range(SHORTEST, LONGEST + 1))
    assert len({row["instruction"] for row in rows}) == 4 and len({row["id"] for row in rows}) > 500


def test_no_span_describes_an_item_of_another_title(items, stream):
    def words(text: str) -> str:
        return f" {' '.join(squashed(word) for word in text.split(' '))} "

    texts = [(squashed(title), words(text.split("\n")[-1])) for title, text in items["title", "text"].iter_rows()]
    for row in stream().draw(500):
        others = [text for title, text in texts if title != squashed(row["positive"])]
        assert not [text for text in others if words(row["anchor"]) in text], row


def test_items_without_words_of_their_own_are_left_out():
    shared = "Gift cards never expire and carry no fees"
    made = catalogue(
        ("Card", shared),
        ("Voucher", shared + "!"),
        ("Both", "By: Somebody Somewhere Else\nCategories: One, Two, Three"),
        ("Bare", ""),
        ("Short", "two words"),
        ("title of words", "Title, of words."),
        ("!?", "a description of symbols"),
        ("Own", f"{shared} in  Rome\tor Milan"),
        ("Twin", "the same twice over"),
        ("twin!", "The same, twice over"),
    )
    found = describing(made)
    assert found["title"].to_list() == ["Own", "Twin", "twin!"]
    assert found["description"][0] == f"{shared} in Rome or Milan"
    # "no fees in", "fees in Rome", "in Rome or", "Rome or Milan"
    assert found["telling"][0].to_list() == [6, 7, 8, 9]
    elsewhere = describing(pl.concat([made, catalogue(("Elsewhere", shared), corpus="other")]))
    assert elsewhere["item_id"].to_list() == [*found["item_id"], "other/0"]


def test_spans_are_a_function_of_seed_and_epoch_and_continue_from_a_cursor(stream):
    size = len(stream().samples)
    whole = stream().draw(3 * size)
    again, parts = stream(), []
    for count in (1, 0, size, 2 * size - 1):
        parts += again.draw(count)
    assert parts == whole
    for cursor in (3, size, 2 * size + 5):
        resumed = stream()
        resumed.cursor = cursor
        assert resumed.draw(3 * size - cursor) == whole[cursor:]
    by_epoch = [{row["anchor_id"]: row["anchor"] for row in whole[at : at + size]} for at in range(0, 3 * size, size)]
    assert [len(spans) for spans in by_epoch] == [size] * 3
    for one, other in ((by_epoch[0], by_epoch[1]), (by_epoch[1], by_epoch[2])):
        assert sum(one[item] != other[item] for item in one) > size / 2
    seeded = {row["anchor_id"]: row["anchor"] for row in stream(1).draw(size)}
    assert sum(by_epoch[0][item] != seeded[item] for item in seeded) > size / 2


def test_spans_are_read_by_the_experts_of_query2item_and_ranked_among_themselves(stream):
    rows = stream().draw(6)
    tokenizer = with_defaults(byte_level(["Instruct: Query: Item:"] * 9, 300))
    collator = Collator(tokenizer, 200, 64, 64, 1, "same_task", {}, {ITEM_SPANS: ROUTED_AS})
    spans, same = collator.pairs({ITEM_SPANS: rows}), collator.pairs({ROUTED_AS: rows})
    # The same tokens under the same task: the same vectors.
    assert collator.tokenize(spans.texts) == collator.tokenize(same.texts)
    assert {text.task for text in spans.texts} == {ROUTED_AS} and set(spans.tasks) == {ITEM_SPANS}
    both = collator.pairs({ROUTED_AS: rows[:2], ITEM_SPANS: rows})
    assert both.tasks == (ROUTED_AS,) * 2 + (ITEM_SPANS,) * 6
    documents = len(both.texts) - 8
    own = documents - len(spans.texts) + 6
    assert both.excluded[:2, own:].all() and both.excluded[2:, :own].all()
    assert not both.excluded[2:, own:].all(dim=1).any()
    # Its own item's whole text, under another task, is no negative of a span.
    everything = Collator(tokenizer, 200, 64, 64, 1, "all", {}, {ITEM_SPANS: ROUTED_AS})
    full = rows[0] | {"anchor_id": "query", "positive": "all of the text"}
    pairs = everything.pairs({ROUTED_AS: [full], ITEM_SPANS: rows})
    assert pairs.texts[len(rows) + 1].text == "all of the text" and pairs.excluded[1, 0]
    assert not pairs.excluded[2, 0]


def test_spans_of_a_dataset(dataset):
    found = item_spans(dataset, 0, ["user2item", ROUTED_AS])
    assert len(found.samples) > 50 and found.task == ITEM_SPANS
    assert all(squashed(row["positive"]) not in squashed(row["anchor"]) for row in found.draw(300))
    with pytest.raises(UsageError, match="the route of query2item, and it is not trained"):
        item_spans(dataset, 0, ["user2item"])


def test_a_catalogue_without_descriptions_is_refused(dataset, monkeypatch):
    class Bare:
        def to_polars(self) -> pl.DataFrame:
            return catalogue(("Film", "Categories: Drama"))

    monkeypatch.setattr("recfound_model.training.spans.load_split", lambda *_: Bare())
    with pytest.raises(UsageError, match=r"no item of .* has a description"):
        item_spans(dataset, 0, [ROUTED_AS])


# --- a run


def test_a_run_with_spans_reports_them_has_no_task_of_them_and_resumes_exactly(recipe, tmp_path):
    path, run = recipe(item_spans=0.25, scheduler={"kind": "proportional"}), tmp_path / "run"
    assert main(["model", "train", path]) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["samples"][ITEM_SPANS] for line in lines] == [3] * 4  # a quarter of 12
    assert all(line["losses"][ITEM_SPANS] > 0 for line in lines)
    assert ITEM_SPANS not in TmoleConfig.from_pretrained(run / "adapter").kinds
    weights = (run / "adapter" / "adapter_model.safetensors").read_bytes()
    shutil.rmtree(run / "checkpoints" / "step-000004")
    shutil.rmtree(run / "adapter")
    assert main(["model", "train", path, "--resume"]) == 0
    again = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["losses"] for line in again] == [line["losses"] for line in lines]
    assert (run / "adapter" / "adapter_model.safetensors").read_bytes() == weights


def test_spans_without_query2item_are_refused(recipe, capsys):
    path = recipe(item_spans=0.25, tasks=["user2item", "sequential_recommendation"], proportions={})
    assert main(["model", "train", path]) == 2
    assert "spans take the route of query2item" in capsys.readouterr().err
