"""The shop's dialogues with customers as MuDoCo-QR publishes a domain: one JSON document."""

import json
import re
from pathlib import Path

import numpy as np

from recfound_data.shop.catalogue import Catalogue
from recfound_data.shop.dialogue_prose import ERRANDS, FAREWELLS, MOVES_ON, WEEK, Errand, Exchange
from recfound_data.shop.randomness import Part, generator
from recfound_data.shop.taxonomy import ATTRIBUTES, COLOURS, KINDS, SINGULAR, department_of, next_kind

_FOLLOW_UPS = 3
_FAREWELL, _UNGRADED = 0.3, 0.1
_PRONOUN = re.compile(r"\b(it|they|them|those|that|one)\b")


def write_dialogues(path: Path, catalogue: Catalogue, count: int, seed: int) -> int:
    """Write a document of `count` dialogues and return how many there are."""
    random = generator(seed, Part.DIALOGUES)
    dialogs: dict[str, object] = {}
    said: set[str] = set()
    while len(dialogs) < count:
        turns = _turns(catalogue, random)
        words = json.dumps([turn["utterance"] for turn in turns])
        if words not in said:
            said.add(words)
            split = {0: "test", 1: "eval"}.get(len(dialogs) % 10, "train")
            name = "-".join(random.bytes(size).hex() for size in (4, 2, 2, 2, 6))
            dialogs[name] = {"split": split, "turns": turns}
    path.write_text(json.dumps({"domain": "shopping", "dialogs": dialogs}, indent=1) + "\n", encoding="ascii")
    return len(dialogs)


def _turns(catalogue: Catalogue, random: np.random.Generator) -> list[dict[str, object]]:
    errand = ERRANDS[int(random.integers(len(ERRANDS)))]
    slots = _slots(catalogue, errand, random)
    exchanges = [errand.openings[int(random.integers(len(errand.openings)))]]
    topics: set[str] = set()
    last: list[Exchange] = []
    wanted = int(random.integers(1, _FOLLOW_UPS + 1))
    for place in random.permutation(len(errand.follow_ups)).tolist():
        follow_up = errand.follow_ups[place]
        if len(topics) == wanted or follow_up.topic in topics or (follow_up.topic in MOVES_ON and last):
            continue
        topics.add(follow_up.topic)
        (last if follow_up.topic in MOVES_ON else exchanges).append(follow_up)
    exchanges += last
    turns: list[dict[str, object]] = []
    for exchange in exchanges:
        turns += _exchange(exchange, slots, len(turns))
    if random.random() < _FAREWELL:
        # What was not graded has no rewrite, in the corpus too; a thank-you needs none.
        graded = bool(random.random() >= _UNGRADED)
        farewell = FAREWELLS[int(random.integers(len(FAREWELLS)))]
        if last or not graded:
            farewell = FAREWELLS[0]
        turns += _exchange(farewell, slots, len(turns), graded=graded)
    return turns


def _slots(catalogue: Catalogue, errand: Errand, random: np.random.Generator) -> dict[str, str]:
    kind = SINGULAR[int(random.integers(len(SINGULAR)))]
    first = department_of(kind) * catalogue.brands_per_department
    brands = (first + random.permutation(catalogue.brands_per_department)[:2]).tolist()
    colours = [COLOURS[place].lower() for place in random.permutation(len(COLOURS))[:3].tolist()]
    day = int(random.integers(len(WEEK)))
    styles = [attribute.title.lower() for attribute in ATTRIBUTES if attribute.title != "Kids"]
    price = int(random.integers(20, 200))
    slots = {
        "noun": KINDS[kind].titles[0].lower(),
        "use": KINDS[kind].use,
        "next": KINDS[next_kind(kind)].titles[0].lower(),
        "brand": catalogue.brand_names[brands[0]],
        "other": catalogue.brand_names[brands[1]],
        "attribute": styles[int(random.integers(len(styles)))],
        "colour": colours[0],
        "second": colours[1],
        "third": colours[2],
        "price": str(price),
        "less": str(price - int(random.integers(5, 15))),
        "ounces": str(random.integers(4, 40)),
        "day": WEEK[day],
        "later": WEEK[(day + int(random.integers(1, 5))) % len(WEEK)],
    }
    return {**slots, "item": errand.mention.format(**slots)}


def _exchange(
    exchange: Exchange, slots: dict[str, str], before: int, *, graded: bool = True
) -> list[dict[str, object]]:
    pairs = ((exchange.asked, exchange.asked_rewrite), (exchange.told, exchange.told_rewrite))
    return [
        _turn(before + place, said.format(**slots), rewrite.format(**slots), slots, graded=graded)
        for place, (said, rewrite) in enumerate(pairs, 1)
    ]


def _turn(number: int, said: str, rewrite: str, slots: dict[str, str], *, graded: bool) -> dict[str, object]:
    mentions = [_span(number, match) for match in re.finditer(re.escape(slots["item"]), said)]
    pronouns = [_span(number, match) for match in _PRONOUN.finditer(said)] if rewrite else []
    turn: dict[str, object] = {
        "number": number,
        "utterance": said,
        "named_entities": {"product": mentions} if mentions else {},
        "references": {"personal_pronoun": pronouns} if pronouns else {},
        "links": [],
        "graded": graded,
    }
    if graded:
        turn["rewritten_utterance"] = rewrite or said
        turn["rewrite_required"] = bool(rewrite)
    return turn


def _span(number: int, match: re.Match[str]) -> dict[str, object]:
    return {"turn_id": number, "span": {"start": match.start(), "end": match.end()}, "text": match.group()}
