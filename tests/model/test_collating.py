"""What a step is made of: no false negatives, each document once, and the same for any number of processes."""

from dataclasses import replace

import polars as pl
import pytest
import torch
from tiny_models import byte_level

from recfound_model.bases import load_base
from recfound_model.templates import completion_ids, text_ids, with_defaults
from recfound_model.training.collating import Collator, shared_out
from recfound_model.training.streams import known_positives, load_split

TASK = "item2item"


def row(anchor: str, positive: str, *negatives: str, **texts: str) -> dict:
    """A sample whose texts are made of its ids, but for those given."""
    named = {key: texts.get(key, f"text of {key}") for key in (positive, *negatives)}
    return {
        "id": f"{anchor}-{positive}",
        "instruction": "Find it.",
        "anchor": f"words of {anchor}",
        "anchor_id": anchor,
        "positive": named[positive],
        "positive_id": positive,
        "negative": named[negatives[0]] if negatives else None,
        "more_negatives": [named[key] for key in negatives[1:]],
        "negative_ids": list(negatives),
    }


@pytest.fixture(scope="module")
def tokenizer():
    return with_defaults(byte_level(["text of words", "Instruct: Find it."] * 9, 300))


@pytest.fixture
def collator(tokenizer):
    def make(negatives_per_pair=1, negatives="same_task", known=None) -> Collator:
        return Collator(tokenizer, 64, 64, 64, negatives_per_pair, negatives, known or {})

    return make


@pytest.fixture
def collate(collator):
    """The pairs of a step, by documents: (text of each, text of each positive, texts excluded from each row)."""

    def make(rows: list[dict] | dict[str, list[dict]], **settings):
        drawn = rows if isinstance(rows, dict) else {TASK: rows}
        pairs = collator(**settings).pairs(drawn)
        assert pairs.tasks == tuple(task for task, samples in drawn.items() for _ in samples)
        documents = pairs.texts[len(pairs.tasks) :]
        texts = [one.text.removeprefix("text of ") for one in documents]
        assert pairs.excluded.shape == (len(pairs.tasks), len(documents))
        excluded = [{text for text, out in zip(texts, flags, strict=True) if out} for flags in pairs.excluded.tolist()]
        return texts, [texts[at] for at in pairs.positives.tolist()], excluded

    return make


# --- pairs


def test_a_step_holds_each_document_once_and_only_the_wanted_negatives(collate):
    rows = [row("a", "p", "n", "m", "o"), row("b", "q", "n", "p"), row("c", "p", "q", "m")]
    for count, expected in ((0, "pq"), (1, "npq"), (2, "mnpq"), (9, "mnopq")):
        texts, positives, _ = collate(rows, negatives_per_pair=count)
        assert sorted(texts) == list(expected) and positives == ["p", "q", "p"]


def test_documents_known_as_positive_of_an_anchor_are_no_negatives_of_it(collate):
    known = known_positives(
        pl.DataFrame(
            [
                {"query_id": "a", "item_id": "q", "grade": 3},  # the positive of the other row
                {"query_id": "a", "item_id": "m", "grade": 1},  # the other row's hard negative: right, if not exact
                {"query_id": "a", "item_id": "n", "grade": 0},  # judged, and wrong
                {"query_id": "a", "item_id": "elsewhere", "grade": 3},
            ]
        )
    )
    assert known == {"a": frozenset({"q", "m", "elsewhere"})}
    _, _, excluded = collate([row("a", "p", "n"), row("b", "q", "m")], known=known)
    assert [found - {own} for found, own in zip(excluded, "pq", strict=True)] == [{"q", "m"}, set()]


def test_two_positives_of_one_anchor_are_no_negatives_of_each_other(collate):
    known = known_positives(pl.DataFrame({"query_id": ["a", "a"], "item_id": ["p", "q"], "grade": [1, 1]}))
    _, positives, excluded = collate([row("a", "p", "n"), row("a", "q", "n"), row("b", "r", "n")], known=known)
    assert positives == ["p", "q", "r"]
    assert excluded[0] | excluded[1] == {"p", "q"} and "q" in excluded[0] and "p" in excluded[1]
    assert excluded[2] <= {"r"}


def test_the_anchor_itself_is_no_negative(collate):
    _, _, excluded = collate([row("a", "p", "n"), row("b", "a", "n")])
    assert "a" in excluded[0] and excluded[1] <= {"a"}


def test_a_document_with_the_words_of_the_positive_is_no_negative(collator):
    rows = [row("a", "p", "n", p="mug"), row("b", "q", "twin", q="kettle", twin="mug")]
    pairs = collator().pairs({TASK: rows})
    assert pairs.positives.tolist() == [0, 1] and len(pairs.texts) == 2 + 4  # p, q, n, twin
    assert pairs.excluded.tolist() == [[True, False, False, True], [False, True, False, False]]


@pytest.mark.parametrize("negatives", ["same_task", "all"])
def test_documents_of_other_tasks_are_negatives_only_if_the_recipe_says_so(collate, negatives):
    known = known_positives(pl.DataFrame({"query_id": ["a"], "item_id": ["s"], "grade": [1]}))
    drawn = {
        "item2item": [row("a", "p", "n")],
        # The same item p again under another task, a known positive of a, and one that is neither.
        "query2item": [row("x", "p", "s"), row("y", "q", "n")],
    }
    texts, positives, excluded = collate(drawn, negatives=negatives, known=known)
    assert sorted(texts) == ["n", "n", "p", "p", "q", "s"] and positives == ["p", "p", "q"]
    pairs = Collator(None, 9, 9, 9, 1, negatives, known).pairs(drawn)
    documents = pairs.texts[3:]
    for anchor, task in enumerate(pairs.tasks):
        for at, document in enumerate(documents):
            same_item = documents[pairs.positives[anchor]].text == document.text
            right = same_item or (anchor == 0 and document.text == "text of s")
            other = negatives == "same_task" and document.task != task
            assert bool(pairs.excluded[anchor, at]) == (right or other), (anchor, at)
    assert [documents[at].task for at in pairs.positives] == list(pairs.tasks)
    assert len(excluded) == 3


def test_masks_agree_with_a_slow_double_loop(collator):
    draw = torch.Generator().manual_seed(0)

    def some(count: int) -> list[str]:
        return [f"i{int(number)}" for number in torch.randint(12, (count,), generator=draw)]

    known = {f"i{number}": frozenset(some(4)) for number in range(12)}
    for negatives in ("same_task", "all"):
        drawn = {
            task: [row(*some(2), *dict.fromkeys(some(3)), i3="the words of i4", i4="the words of i4") for _ in range(6)]
            for task in ("item2item", "user2item")
        }
        pairs = collator(3, negatives, known).pairs(drawn)
        documents = pairs.texts[len(pairs.tasks) :]
        keys = list(dict.fromkeys((t, r["positive_id"]) for t, rows in drawn.items() for r in rows))
        keys += [(t, item) for t, rows in drawn.items() for r in rows for item in r["negative_ids"]]
        keys = list(dict.fromkeys(keys))
        assert len(keys) == len(documents)
        samples = [(task, sample) for task, rows in drawn.items() for sample in rows]
        for at, (task, sample) in enumerate(samples):
            right = {sample["anchor_id"]} | (set(known[sample["anchor_id"]]) - set(sample["negative_ids"]))
            for column, (other, item) in enumerate(keys):
                expected = item in right or documents[column].text == sample["positive"]
                expected |= negatives == "same_task" and other != task
                assert bool(pairs.excluded[at, column]) == expected


def test_pairs_without_hard_negatives_have_the_other_pairs_documents(collate):
    rows = [row("a", "p"), row("b", "q", "n"), row("c", "r")]
    for count in (0, 1):
        texts, positives, excluded = collate(rows, negatives_per_pair=count)
        assert sorted(texts) == ["n", "p", "q", "r"][1 - count :] and positives == ["p", "q", "r"]
        assert excluded == [{"p"}, {"q"}, {"r"}]
    assert collate([row("a", "p")]) == (["p"], ["p"], [{"p"}])


def test_a_document_weighs_by_how_often_it_is_a_positive_of_its_task(tokenizer, collator):
    drawn = {
        "user2item": [row("u", "a", "n"), row("v", "b")],
        "item2item": [row("c", "a")],
        "item_spans": [row("a", "a")],
    }
    counts = {"user2item": {"a": 3, "b": 1}, "item2item": {"a": 7}}
    pairs = Collator(tokenizer, 64, 64, 64, 1, routing={"item_spans": "query2item"}, frequencies=counts).pairs(drawn)
    # a and b; a of the other task, and of a source that is no task; n, which is a negative alone
    texts = [text.text[-1] for text in pairs.texts[len(pairs.tasks) :]]
    assert texts == ["a", "b", "a", "a", "n"]
    assert pairs.prior.exp().tolist() == pytest.approx([4, 2, 8, 1, 1])
    assert collator().pairs(drawn | {"item_spans": []}).prior is None


def test_a_source_of_samples_is_routed_as_a_task_and_keeps_its_name(collator):
    drawn = {"query2item": [row("a", "p", "n")], "extra": [row("b", "p", "m"), row("c", "q")]}
    plain = collator().pairs(drawn)
    routed = replace(collator(), routing={"extra": "query2item"}).pairs(drawn)
    assert routed.tasks == plain.tasks == ("query2item", "extra", "extra")
    assert {text.task for text in routed.texts} == {"query2item"}
    assert {text.task for text in plain.texts} == {"query2item", "extra"}
    assert [text.text for text in routed.texts] == [text.text for text in plain.texts]
    assert routed.excluded.equal(plain.excluded) and routed.positives.equal(plain.positives)


def test_each_text_is_its_own_after_its_own_prompt(collator, tokenizer):
    rows = [row("a", "p", "n"), row("b", "q", "n")]
    rows[1]["instruction"] = "Another way to say it."
    made = collator()
    pairs = made.pairs({TASK: rows})
    prompts = [f"Instruct: {one['instruction']}\nQuery:\n" for one in rows]
    expected = text_ids(tokenizer, prompts, ["words of a", "words of b"], 64)
    sequences = made.tokenize(pairs.texts)
    assert [(list(one.ids), one.marked) for one in sequences[:2]] == expected
    assert tokenizer.decode(sequences[1].ids[sequences[1].marked :]) == "words of b"
    assert [tokenizer.decode(one.ids[one.marked :]) for one in sequences[2:]] == ["text of p", "text of q", "text of n"]
    # A share of the texts, in any order, is tokenised as the whole is.
    assert made.tokenize([pairs.texts[at] for at in (3, 0)]) == [sequences[3], sequences[0]]


def test_anchors_and_documents_have_their_own_limits(tokenizer):
    made = Collator(tokenizer, 40, 20, 64, 1)
    sequences = made.tokenize(made.pairs({TASK: [row("a " * 80, "p", "n", p="word " * 80)]}).texts)
    assert [len(one.ids) for one in sequences[:2]] == [40, 20]


# --- completions


def conversation(number: int, words: int, answer: str = "B") -> dict:
    prompt = [{"role": "user", "content": " ".join(f"{number}x{word}" for word in range(words))}]
    return {"id": f"s{number}", "prompt": prompt, "completion": [{"role": "assistant", "content": answer}]}


def test_long_prompts_lose_their_beginning_and_completions_nothing(tokenizer):
    rows = [conversation(0, 2), conversation(1, 40), conversation(2, 9, answer="a longer answer")]
    made = Collator(tokenizer, 64, 64, 48, 1).completions([("sentiment_analysis", one) for one in rows])
    for one, sequence in zip(rows, made, strict=True):
        prompt, answer = completion_ids(tokenizer, one["prompt"], one["completion"])
        assert list(sequence.ids) == [*prompt[-(48 - len(answer)) :], *answer]
        assert list(sequence.ids[sequence.marked :]) == answer and sequence.task == "sentiment_analysis"
    assert len(made[1].ids) == 48 < len(completion_ids(tokenizer, rows[1]["prompt"], rows[1]["completion"])[0])


def test_a_completion_that_does_not_fit_loses_its_end_and_keeps_some_prompt(tokenizer):
    rows = [conversation(1, 30), conversation(3, 30, answer="long " * 20)]
    made = Collator(tokenizer, 64, 64, 16, 1).completions([("answer_generation", one) for one in rows])
    for one, sequence in zip(rows, made, strict=True):
        prompt, answer = completion_ids(tokenizer, one["prompt"], one["completion"])
        kept = min(len(answer), 12)
        assert list(sequence.ids) == [*prompt[kept - 16 :], *answer[:12]] and sequence.marked == 16 - kept
    assert len(answer) > 16


# --- processes


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_every_process_has_its_share(processes):
    draw = torch.Generator().manual_seed(1)
    for count in (0, 1, 7, 40):
        lengths = torch.randint(1, 200, (count,), generator=draw).tolist()
        shares = shared_out(lengths, processes)
        assert len(shares) == processes and sorted(at for share in shares for at in share) == list(range(count))
        sizes = [len(share) for share in shares]
        assert max(sizes) - min(sizes) <= 1
        loads = [sum(lengths[at] for at in share) for share in shares]
        if count == 40:
            assert max(loads) - min(loads) <= max(lengths)


# --- the data


def test_known_positives_of_a_dataset_hold_the_positive_of_each_training_sample(dataset):
    known = known_positives(load_split(dataset, "qrels", "train").to_polars())
    for task in ("user2item", "query2item", "item2item"):
        for sample in load_split(dataset, task, "train"):
            assert sample["positive_id"] in known[sample["anchor_id"]]


def test_the_negatives_that_a_dataset_names_are_negatives(dataset, base):
    tokenizer = load_base(base)[1]
    known = known_positives(load_split(dataset, "qrels", "train").to_polars())
    collator = Collator(tokenizer, 64, 64, 64, 9, known=known)
    graded = 0
    for task in ("user2item", "query2item", "item2item"):
        for sample in load_split(dataset, task, "train").select(range(20)):
            pairs = collator.pairs({task: [sample]})
            assert pairs.excluded.tolist() == [[True] + [False] * len(sample["negative_ids"])]
            graded += bool(set(sample["negative_ids"]) & known[sample["anchor_id"]])
    assert graded > 0  # complements, judged wrong although their grade is above zero
