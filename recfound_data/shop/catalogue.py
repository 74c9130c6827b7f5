"""The shop's items as columns of numbers; their words are made from these when they are written."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from recfound_data.shop.names import asins, made_up_names
from recfound_data.shop.randomness import Part, generator
from recfound_data.shop.taxonomy import (
    ATTRIBUTES,
    CATEGORIES_PER_DEPARTMENT,
    CATEGORY_NAMES,
    COLOURS,
    DEPARTMENT_NAMES,
    KINDS,
    KINDS_PER_CATEGORY,
)

PICKS = 20
POPULARITY_SKEW = 3.5
"""A draw of `u` in [0, 1) takes the item at the share `u ** skew` of a bucket sorted by popularity: a heavy tail."""
_ITEMS_PER_LINE = 7


class Dirt(IntEnum):
    """What is wrong with an item on purpose."""

    NONE = 0
    NO_METADATA = 1
    SCRIPT_TITLE = 2
    HTML_TITLE = 3
    HTML_DESCRIPTION = 4
    HTML_ONLY_DESCRIPTION = 5
    CONTACT_IN_DESCRIPTION = 6


DIRT_RATES: dict[Dirt, float] = {
    Dirt.NO_METADATA: 0.01,
    Dirt.SCRIPT_TITLE: 0.003,
    Dirt.HTML_TITLE: 0.01,
    Dirt.HTML_DESCRIPTION: 0.02,
    Dirt.HTML_ONLY_DESCRIPTION: 0.005,
    Dirt.CONTACT_IN_DESCRIPTION: 0.005,
}


@dataclass(frozen=True)
class Buckets:
    """Items grouped by a key, most popular first within a group."""

    order: NDArray[np.int64]
    start: NDArray[np.int64]

    @classmethod
    def by(cls, key: NDArray[np.int64], groups: int, unpopularity: NDArray[np.float64]) -> "Buckets":
        """Group items by `key`, `[items]` with values below `groups`."""
        order = np.lexsort((unpopularity, key))
        start = np.concatenate(([0], np.cumsum(np.bincount(key, minlength=groups))))
        return cls(order, start)

    def sizes(self, group: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many items each of the groups holds."""
        return self.start[group + 1] - self.start[group]

    def draw(self, group: NDArray[np.int64], uniform: NDArray[np.float64], skew: float) -> NDArray[np.int64]:
        """Draw one item from each group, which must not be empty, by numbers in [0, 1)."""
        return self.order[self.start[group] + (self.sizes(group) * uniform**skew).astype(np.int64)]

    def members(self, group: int) -> NDArray[np.int64]:
        """Return the items of one group."""
        return self.order[self.start[group] : self.start[group + 1]]


@dataclass(frozen=True)
class Catalogue:
    """All items; every array is `[items]` but `picks`, `[items, PICKS]`, which decides the wording of each text."""

    kind: NDArray[np.int64]
    attribute: NDArray[np.int64]
    colour: NDArray[np.int64]
    brand: NDArray[np.int64]
    line: NDArray[np.int64]
    quality: NDArray[np.float64]
    dirt: NDArray[np.int64]
    picks: NDArray[np.uint16]
    ids: list[str]
    absent_ids: list[str]
    brand_names: list[str]
    line_names: list[str]
    brands_per_department: int
    by_kind: Buckets
    by_attribute: Buckets
    by_brand: Buckets
    by_line: Buckets

    def __len__(self) -> int:
        return len(self.kind)

    def attribute_group(self, kind: NDArray[np.int64], attribute: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the groups of `by_attribute` that hold the items of a kind and an attribute."""
        return kind * len(ATTRIBUTES) + attribute

    def brand_group(self, kind: NDArray[np.int64], slot: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the groups of `by_brand` that hold the items of a kind and a brand, by its place in its department."""
        return kind * self.brands_per_department + slot % self.brands_per_department


def draw_catalogue(seed: int, items: int) -> Catalogue:
    """Draw all items of a shop: brands belong to departments, product lines to a brand and a category."""
    random = generator(seed, Part.CATALOGUE)
    kind = _kinds(random, items)
    attribute = random.integers(len(ATTRIBUTES), size=items)
    per_department = int(np.clip(np.sqrt(items / len(DEPARTMENT_NAMES)) / 3, 3, 100))
    slot = (per_department * random.random(items) ** 1.4).astype(np.int64)
    brand = kind // (KINDS_PER_CATEGORY * CATEGORIES_PER_DEPARTMENT) * per_department + slot
    line, lines = _lines(random, brand, kind // KINDS_PER_CATEGORY % CATEGORIES_PER_DEPARTMENT)
    unpopularity = random.random(items)
    names = generator(seed, Part.NAMES)
    brands = len(DEPARTMENT_NAMES) * per_department
    return Catalogue(
        kind=kind,
        attribute=attribute,
        colour=random.integers(len(COLOURS), size=items),
        brand=brand,
        line=line,
        quality=random.standard_normal(items),
        dirt=_dirt(random, items),
        picks=random.integers(2**16, size=(items, PICKS), dtype=np.uint16),
        ids=asins(seed, 0, items),
        absent_ids=asins(seed, items, max(4, items // 50)),
        brand_names=made_up_names(names, brands, syllables=2),
        line_names=made_up_names(names, lines, syllables=3),
        brands_per_department=per_department,
        by_kind=Buckets.by(kind, len(KINDS), unpopularity),
        by_attribute=Buckets.by(kind * len(ATTRIBUTES) + attribute, len(KINDS) * len(ATTRIBUTES), unpopularity),
        by_brand=Buckets.by(kind * per_department + slot, len(KINDS) * per_department, unpopularity),
        by_line=Buckets.by(line, lines, unpopularity),
    )


def faulty_items(fault: Dirt, items: int) -> int:
    """Return how many of a shop's items have a fault: one at least."""
    return max(1, round(DIRT_RATES[fault] * items))


def _kinds(random: np.random.Generator, items: int) -> NDArray[np.int64]:
    weights = 1 / (random.permutation(len(CATEGORY_NAMES)) + 6.0)
    shares = np.repeat(weights / weights.sum() / KINDS_PER_CATEGORY, KINDS_PER_CATEGORY)
    counts = 2 + random.multinomial(items - 2 * len(KINDS), shares)
    return random.permutation(np.repeat(np.arange(len(KINDS)), counts))


def _lines(
    random: np.random.Generator, brand: NDArray[np.int64], category: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int]:
    group = brand * CATEGORIES_PER_DEPARTMENT + category
    lines = np.maximum(1, np.bincount(group) // _ITEMS_PER_LINE)
    first = np.concatenate(([0], np.cumsum(lines)))
    return first[group] + (lines[group] * random.random(len(group))).astype(np.int64), int(first[-1])


def _dirt(random: np.random.Generator, items: int) -> NDArray[np.int64]:
    dirt = np.zeros(items, dtype=np.int64)
    order = random.permutation(items)
    used = 0
    for fault in DIRT_RATES:
        count = faulty_items(fault, items)
        dirt[order[used : used + count]] = fault
        used += count
    return dirt
