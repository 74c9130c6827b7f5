"""The shop's questions and answers as AmazonQA publishes them: JSON lines with the reviews that may answer."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from recfound_data.shop.catalogue import Catalogue
from recfound_data.shop.question_prose import BESIDE_THE_POINT, SHRUGS, TOPICS
from recfound_data.shop.question_topics import Topic, Value
from recfound_data.shop.randomness import Part, generator
from recfound_data.shop.taxonomy import DEPARTMENT_NAMES, KINDS, SINGULAR, department_of

SPLIT_FILES = {"train": "train-qar.jsonl", "val": "val-qar.jsonl", "test": "test-qar.jsonl"}
ANSWERABLE = 0.65
_QUESTIONS_OF_ITEM = 4
_FEWEST_SNIPPETS, _MOST_SNIPPETS = 4, 7


def write_questions(folder: Path, catalogue: Catalogue, count: int, seed: int) -> int:
    """Write `count` questions, all of an item in one file, and return how many there are."""
    random = generator(seed, Part.QUESTIONS)
    singular = np.isin(catalogue.kind, SINGULAR)
    items = random.permutation(np.flatnonzero(singular))[: -(-count // _QUESTIONS_OF_ITEM)].tolist()
    files = {split: (folder / name).open("w", encoding="ascii", newline="\n") for split, name in SPLIT_FILES.items()}
    written = 0
    try:
        for place, item in enumerate(items):
            split = {0: "test", 1: "val"}.get(place % 10, "train")
            for record in _of_item(catalogue, item, random):
                if written < count:
                    files[split].write(json.dumps({**record, "qid": written}) + "\n")
                    written += 1
    finally:
        for file in files.values():
            file.close()
    return written


def _of_item(catalogue: Catalogue, item: int, random: np.random.Generator) -> Iterator[dict[str, object]]:
    """Yield the questions on an item; how things stand with it is the same in all of them."""
    kind = int(catalogue.kind[item])
    slots = {
        "noun": KINDS[kind].titles[0].lower(),
        "brand": catalogue.brand_names[catalogue.brand[item]],
        "line": catalogue.line_names[catalogue.line[item]],
        "use": KINDS[kind].use,
    }
    stands = [topic.values[int(random.integers(len(topic.values)))] for topic in TOPICS]
    numbers = [value.numbers[int(random.integers(len(value.numbers)))] for value in stands]
    asked = random.permutation(len(TOPICS))[:_QUESTIONS_OF_ITEM].tolist()
    for number in asked:
        topic, value = TOPICS[number], stands[number]
        answerable = bool(random.random() < ANSWERABLE)
        snippets = _snippets(number, answerable, stands, numbers, slots, random)
        yield {
            "questionText": _one(topic.questions, random).format(**slots),
            "questionType": topic.question_type,
            "review_snippets": snippets,
            "answers": _answers(topic, value, {**slots, "n": numbers[number]}, random),
            "asin": catalogue.ids[item],
            "category": DEPARTMENT_NAMES[department_of(kind)],
            "is_answerable": int(answerable),
        }


def _snippets(
    asked: int,
    answerable: bool,
    stands: list[Value],
    numbers: list[int],
    slots: dict[str, str],
    random: np.random.Generator,
) -> list[str]:
    """Return what reviews say: something on the topic asked about if it is answerable, and on others."""
    wanted = int(random.integers(_FEWEST_SNIPPETS, _MOST_SNIPPETS + 1))
    said = []
    if answerable:
        on_topic = random.permutation(len(stands[asked].snippets))[: int(random.integers(1, 3))].tolist()
        said += [stands[asked].snippets[place].format(**slots, n=numbers[asked]) for place in on_topic]
    others = [number for number in random.permutation(len(TOPICS)).tolist() if number != asked]
    for number in others[: (wanted - len(said)) // 2]:
        said.append(_one(stands[number].snippets, random).format(**slots, n=numbers[number]))
    beside = random.permutation(len(BESIDE_THE_POINT))[: wanted - len(said)].tolist()
    said += [BESIDE_THE_POINT[place].format(**slots) for place in beside]
    return [said[place] for place in random.permutation(len(said)).tolist()]


def _answers(
    topic: Topic, value: Value, slots: dict[str, str | int], random: np.random.Generator
) -> list[dict[str, object]]:
    """Return one or two answers, of which more people find the first written one helpful, and at times a shrug."""
    order = random.permutation(len(value.answers)).tolist()
    votes = int(random.integers(3, 12))
    answers: list[dict[str, object]] = []
    for rank, place in enumerate(order[: int(random.integers(1, 3))]):
        helpful = [votes - 2 * rank - (rank > 0), votes]
        answers.append(
            {"answerText": value.answers[place].format(**slots), "answerType": value.answer_type, "helpful": helpful}
        )
    if random.random() < 0.3:
        unsure = "?" if topic.question_type == "yesno" else "NA"
        answers.append({"answerText": _one(SHRUGS, random), "answerType": unsure, "helpful": [0, 2]})
    return [answers[place] for place in random.permutation(len(answers)).tolist()]


def _one(texts: tuple[str, ...], random: np.random.Generator) -> str:
    return texts[int(random.integers(len(texts)))]
