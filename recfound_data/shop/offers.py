"""The shop's offers beside a rival's, as the Amazon-Google pairs of DeepMatcher are published: three CSV files."""

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recfound_data.shop.catalogue import Catalogue
from recfound_data.shop.randomness import Part, generator
from recfound_data.shop.taxonomy import ATTRIBUTES, COLOURS, DEPARTMENT_NAMES, KINDS, KINDS_PER_CATEGORY, department_of

SPLIT_FILES = {
    "train": "amz_goog_train.csv",
    "validation": "amz_goog_validation.csv",
    "test": "amz_goog_test.csv",
}
MATCHES = 0.3
_COLUMNS = (
    "id", "label", "left_id", "left_title", "left_manufacturer", "left_price",
    "right_id", "right_title", "right_manufacturer", "right_price",
)  # fmt: skip
_OWN = (
    "{brand} {line} {attribute} {noun} , {colour}",
    "{brand} {attribute} {noun} {line} ( {colour} )",
    "{line} by {brand} : {attribute} {noun} , {colour}",
)
_RIVAL = (
    "{noun} {brand} {line} {attribute} {colour}",
    "{attribute} {colour} {noun} - {brand} {line}",
    "{brand} {line} {noun} {colour} {attribute} - {department}",
    "new {brand} {noun} ' {line} ' {colour} , {attribute}",
    "{sku} {brand} {line} {noun} {attribute} {colour}",
)
_WITHOUT_MANUFACTURER, _WITHOUT_PRICE = 0.6, 0.1


class Offer(NamedTuple):
    """What an offer is of; two of the same are of one product."""

    brand: int
    line: int
    kind: int
    attribute: int
    colour: int


@dataclass(frozen=True)
class _Pair:
    left: Offer
    right: Offer


def write_pairs(folder: Path, catalogue: Catalogue, count: int, seed: int) -> int:
    """Write `count` pairs, all of a brand in one file, and return how many there are.

    A match says the same of brand, line, kind, attribute and colour in other words and order. Others are of the same
    brand and differ in one to three of these, and say so.
    """
    random = generator(seed, Part.OFFERS)
    by_brand: dict[int, list[Offer]] = defaultdict(list)
    for item in random.permutation(len(catalogue)).tolist():
        columns = (catalogue.brand, catalogue.line, catalogue.kind, catalogue.attribute, catalogue.colour)
        offer = Offer(*(int(column[item]) for column in columns))
        if offer not in by_brand[offer.brand]:
            by_brand[offer.brand].append(offer)
    writer = _Writer(catalogue, random)
    brands = [brand for brand in random.permutation(sorted(by_brand)).tolist() if len(by_brand[brand]) > 1]
    share = max(1, -(-count // len(brands)))
    rows: dict[str, list[dict[str, object]]] = {split: [] for split in SPLIT_FILES}
    written = 0
    for place, brand in enumerate(brands):
        split = {0: "test", 1: "validation"}.get(place % 5, "train")
        for left in by_brand[brand][: min(share, count - written)]:
            match = bool(random.random() < MATCHES)
            right = left if match else _near(left, by_brand[brand], random)
            rows[split].append(writer.row(len(rows[split]), _Pair(left, right)))
            written += 1
    for split, name in SPLIT_FILES.items():
        with (folder / name).open("w", encoding="ascii", newline="") as file:
            table = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows(rows[split])
    return written


def _near(offer: Offer, others: list[Offer], random: np.random.Generator) -> Offer:
    """Return another product of the brand: the nearest there is, or one that differs in colour or attribute alone."""
    if random.random() < 0.5:
        colour = (offer.colour + int(random.integers(1, len(COLOURS)))) % len(COLOURS)
        attribute = (offer.attribute + int(random.integers(1, len(ATTRIBUTES)))) % len(ATTRIBUTES)
        return offer._replace(colour=colour) if random.random() < 0.5 else offer._replace(attribute=attribute)
    drawn = [others[place] for place in random.integers(len(others), size=6).tolist()]
    different = [other for other in drawn if other != offer] or [other for other in others if other != offer]
    return max(different, key=lambda other: _shared(offer, other))


def _shared(one: Offer, other: Offer) -> int:
    same_category = one.kind // KINDS_PER_CATEGORY == other.kind // KINDS_PER_CATEGORY
    return sum(first == second for first, second in zip(one, other, strict=True)) + same_category


class _Writer:
    """Gives every product the same id and price wherever one shop offers it."""

    def __init__(self, catalogue: Catalogue, random: np.random.Generator) -> None:
        self._catalogue = catalogue
        self._random = random
        self._prices: dict[Offer, float] = {}
        self._left: dict[Offer, dict[str, object]] = {}
        self._right: dict[Offer, dict[str, object]] = {}

    def row(self, number: int, pair: _Pair) -> dict[str, object]:
        """Return one row of a pair's file."""
        if pair.left not in self._left:
            self._left[pair.left] = self._offer(len(self._left), pair.left, _OWN, own=True)
        if pair.right not in self._right:
            self._right[pair.right] = self._offer(len(self._right), pair.right, _RIVAL, own=False)
        left, right = self._left[pair.left], self._right[pair.right]
        return {
            "id": number,
            "label": int(pair.left == pair.right),
            **{f"left_{name}": value for name, value in left.items()},
            **{f"right_{name}": value for name, value in right.items()},
        }

    def _offer(self, number: int, offer: Offer, templates: tuple[str, ...], *, own: bool) -> dict[str, object]:
        random = self._random
        kind, brand = KINDS[offer.kind], self._catalogue.brand_names[offer.brand].lower()
        title = templates[int(random.integers(len(templates)))].format(
            brand=brand,
            line=self._catalogue.line_names[offer.line].lower(),
            noun=kind.titles[0 if own else int(random.integers(2))].lower(),
            attribute=ATTRIBUTES[offer.attribute].title.lower(),
            colour=COLOURS[offer.colour].lower(),
            department=DEPARTMENT_NAMES[department_of(offer.kind)].lower(),
            sku=f"{random.integers(10_000, 99_999)}{brand[:2]}",
        )
        price = self._prices.setdefault(offer, float(random.integers(8, 240)) - 0.01)
        asked = price if own else round(price * (0.9 + 0.2 * random.random()), 2)
        named = own or random.random() >= _WITHOUT_MANUFACTURER
        priced = random.random() >= _WITHOUT_PRICE
        return {
            "id": number,
            "title": title,
            "manufacturer": brand if named else "",
            "price": asked if priced else "",
        }
