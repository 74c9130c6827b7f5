"""answer_generation and answerability_prediction: what is asked, what is shown, what is never a label."""

import polars as pl
import pytest

from recfound_data.identity import stable_id
from recfound_data.recipe import DataRecipe
from recfound_data.samples import GENERATIVE, Corpus
from recfound_data.tables import TABLES
from recfound_data.tasks import answer_generation, answerability_prediction

PASSAGE = "The lamp gives warm light."


def question(number, **columns):
    row = {
        "question_id": f"q{number}",
        "item_id": f"P{number}",
        "question": f"Does lamp {number} dim?",
        "evidence": [PASSAGE],
        "answers": [f"Lamp {number} does dim."],
        "answerable": True,
        "domain": "Lamps",
    }
    return row | columns


def build(task, rows, official=frozenset(), catalogue=None):
    frame = pl.DataFrame([{name: row.get(name) for name in TABLES["questions"]} for row in rows], TABLES["questions"])
    tables = {"questions": frame.with_columns(group=stable_id(pl.col("item_id")))}
    if catalogue is not None:
        tables["catalogue"] = catalogue
    recipe = DataRecipe(corpora=[{"corpus": "amazonqa"}], tasks=[task.TASK])
    built = task.build(Corpus("shop", recipe, tables, {"questions": frozenset(official)}))
    assert dict(built.samples.schema) == {**GENERATIVE, "split": pl.String}
    assert built.samples["completion"].list.first().struct.field("content").equals(built.samples["label"])
    kept = sum(count for reason, count in built.drops.items() if reason.startswith("question"))
    assert len(rows) == len(built.samples) + kept, "every question is a sample or counted"
    return built


def prompts(built):
    return [prompt[0]["content"] for prompt in built.samples["prompt"]]


def answered(*answers, **columns):
    return build(answer_generation, [question(1, answers=list(answers), **columns)])


def test_the_prompt_holds_the_question_title_and_evidence_and_never_the_answer():
    [text] = prompts(answered("It dims <b>to</b> ten percent.", title="Oakly Lamp", evidence=["One.", "<i>Two.</i>"]))
    instruction, asked, shown = text.split("\n\n")
    assert instruction in answer_generation.PHRASINGS
    assert asked == "Product: Oakly Lamp\nQuestion: Does lamp 1 dim?"
    assert shown == "Reviews and product details:\n- One.\n- Two."


def test_the_label_is_the_first_answer_that_says_something():
    built = answered("Yes", "See http://example.org/x", "I don't know, sorry.", "It dims to ten percent.", "It dims.")
    assert built.samples["label"].to_list() == ["It dims to ten percent."]
    assert built.drops["answer of one word"] == built.drops["answer with a link"] == 1
    assert built.drops["answer that does not know"] == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("24hrs", "answer of one word"),
        ("N/A", "answer of one word"),
        ("Look at www.example.org for that", "answer with a link"),
        ("Write to fern@example.org and they send one", "answer with an address or a phone number"),
        ("They are at 555-0123 all day", "answer with an address or a phone number"),
        ("I’m not really sure about that one.", "answer that does not know"),
        ("Sorry, dont know the size.", "answer that does not know"),
        ("No idea. Bought it as a gift.", "answer that does not know"),
        ("Please contact the seller about this.", "answer that sends elsewhere"),
        ("You should check the owner's manual first", "answer that sends elsewhere"),
        ("See above.", "answer that sends elsewhere"),
        ("Which model do you have?", "answer that asks back"),
        ("It is fine. " * 80, "answer longer than 800 characters"),
    ],
)
def test_answers_that_say_nothing_are_dropped_and_counted(answer, reason):
    built = answered(answer)
    assert built.drops[reason] == 1 and built.drops["question without a usable answer"] == 1


@pytest.mark.parametrize(
    "answer",
    [
        "Not that I noticed, it stays cool.",
        "Check that the plug is dry, then turn it on.",
        "No need to call anyone, it just clips on.",
        "I have no trouble with it.",
        "The shop says yes, it does.",
        "Two feet.",
    ],
)
def test_answers_that_say_something_stay(answer):
    assert answered(answer).samples["label"].to_list() == [answer]


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("Hi Carla, Yes it does dim.", "Yes it does dim."),
        ("hello shopper99! it dims well", "it dims well"),
        ("Hi yes, it dims.", "yes, it dims."),
        ("It dims to ten percent. Kind regards, Ben Oak", "It dims to ten percent."),
        ("It dims, thanks to the Oakly switch.", "It dims, thanks to the Oakly switch."),
    ],
)
def test_people_who_are_greeted_or_sign_leave_the_answer(answer, label):
    assert answered(answer).samples["label"].to_list() == [label]


def test_contradicted_and_unanswerable_questions_have_no_label():
    assert answered("Yes, it does.", "No, it cannot.").drops["question answered with both yes and no"] == 1
    assert len(answered("Yes, it does.", "No problem with the dimmer.").samples) == 1
    assert answered("It does.", answerable=False).drops["question that its evidence does not answer"] == 1
    assert len(answered("It does.", answerable=None).samples) == 1


def test_a_question_alone_names_its_category_and_has_some_words():
    rows = [
        question(1, evidence=None, question="Does this lamp fit a desk?"),
        question(2, evidence=[], question="Size?"),
    ]
    built = build(answer_generation, rows)
    [text] = prompts(built)
    assert text.endswith("\n\nProduct category: Lamps\nQuestion: Does this lamp fit a desk?")
    assert built.drops["question too short to be asked alone"] == 1


def test_the_title_may_come_from_the_catalogue():
    catalogue = pl.DataFrame({"item_id": ["shop/P1", "other/P2"], "title": ["Oakly Lamp", "Wrong Lamp"]})
    built = build(answer_generation, [question(1), question(2)], catalogue=catalogue)
    assert sorted("Product: Oakly Lamp\n" in text for text in prompts(built)) == [False, True]
    assert not any("Wrong Lamp" in text for text in prompts(built))


def test_one_product_is_asked_the_same_only_once_and_lies_in_one_split():
    rows = [question(1), question(2, item_id="P1", question="does lamp 1 DIM"), question(3, item_id="P1", split="test")]
    built = build(answer_generation, rows, official={"train", "test"})
    assert built.drops["question asked before of the same product"] == 1
    assert built.samples["split"].to_list() == ["test", "test"]
    both = [
        build(task, [question(n) for n in range(80)]).samples for task in (answer_generation, answerability_prediction)
    ]
    splits = [dict(zip(frame["id"].str.slice(0, 16), frame["split"], strict=True)) for frame in both]
    assert splits[0] == splits[1] and set(splits[0].values()) == {"train", "validation", "test"}


def test_evidence_and_answers_are_bounded():
    rows = [question(1, evidence=[f"{n} " * 400 for n in range(30)], question="long " * 200, title="big " * 100)]
    [text] = prompts(build(answer_generation, rows))
    assert text.count("\n- ") == answer_generation.PASSAGES
    limit = answer_generation.PASSAGES * (answer_generation.PASSAGE_CHARS + 3)
    assert len(text) < limit + answer_generation.QUESTION_CHARS + answer_generation.TITLE_CHARS + 200


def test_answerability_is_yes_or_no_as_labelled():
    built = build(answerability_prediction, [question(1), question(2, answerable=False), question(3, answerable=None)])
    labels = {
        prompt.split("lamp ")[1][0]: label for prompt, label in zip(prompts(built), built.samples["label"], strict=True)
    }
    assert labels == {"1": "yes", "2": "no"}
    assert built.samples["options"].to_list() == [["yes", "no"]] * 2
    assert built.drops["question that nobody labelled"] == 1
    assert all(PASSAGE in prompt and "does dim." not in prompt for prompt in prompts(built))


def test_evidence_is_shown_whole_or_not_at_all_whatever_the_label():
    long = [f"word{n} " * 300 for n in range(5)]
    rows = [question(1, evidence=long), question(2, evidence=long, answerable=False), question(3, evidence=[" "])]
    rows.append(question(4, evidence=["word " * 300, "end"]))
    built = build(answerability_prediction, rows)
    [text] = prompts(built)
    assert text.endswith("word\n- end")
    assert built.drops["question with more than 6000 characters of evidence"] == 2
    assert built.drops["question without evidence"] == 1


def test_equal_questions_with_both_labels_are_dropped_and_with_one_label_kept_once():
    rows = [question(1), question(2, item_id="P1", question="does lamp 1 dim", answerable=False)]
    rows += [question(3), question(4, item_id="P3", question="Does lamp 3 dim")]
    rows.append(question(5, item_id="P3", question="Does lamp 3 dim", evidence=["Another review."], answerable=False))
    built = build(answerability_prediction, rows)
    assert sorted(built.samples["label"]) == ["no", "yes"]
    assert built.drops["question with both labels"] == 2
    assert built.drops["question asked before with the same evidence"] == 1
