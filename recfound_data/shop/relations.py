"""Which items are bought together and viewed together."""

from collections.abc import Iterator
from dataclasses import dataclass

from recfound_data.shop.catalogue import POPULARITY_SKEW, Buckets, Catalogue
from recfound_data.shop.randomness import Part, generator
from recfound_data.shop.taxonomy import ATTRIBUTES, KINDS_PER_CATEGORY, category_of

NONE_LISTED = 0.15
ABSENT = 0.3
"""How often a list that is not empty also names an item which has no metadata."""
OTHER_KIND_VIEWED = 0.06
MOST_BOUGHT, MOST_VIEWED = 6, 8
_BLOCK = 4096
_DRAWS = 3 * (MOST_BOUGHT + MOST_VIEWED) + 6


@dataclass(frozen=True)
class Related:
    """The ASINs that an item's metadata names."""

    also_buy: list[str]
    also_view: list[str]


def related_items(catalogue: Catalogue, seed: int) -> Iterator[Related]:
    """Yield the relations of each item in turn.

    Bought together: other kinds of the same category, of the item's product line first and then of its brand.
    Viewed together: the same kind, of the same attribute every other time, with a little noise.
    """
    relations = _Relations(catalogue)
    for block, first in enumerate(range(0, len(catalogue), _BLOCK)):
        items = range(first, min(first + _BLOCK, len(catalogue)))
        draws = generator(seed, Part.RELATIONS, block).random((len(items), _DRAWS)).tolist()
        for item, uniforms in zip(items, draws, strict=True):
            yield relations.of(item, uniforms)


class _Relations:
    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._kind: list[int] = catalogue.kind.tolist()
        self._by_kind = _Group(catalogue.by_kind)
        self._by_attribute = _Group(catalogue.by_attribute)
        self._by_brand = _Group(catalogue.by_brand)
        self._by_line = _Group(catalogue.by_line)

    def of(self, item: int, uniforms: list[float]) -> Related:
        bought = self._bought(item, uniforms[6 : 6 + 3 * MOST_BOUGHT])
        viewed = self._viewed(item, uniforms[6 + 3 * MOST_BOUGHT :])
        return Related(
            also_buy=[] if uniforms[0] < NONE_LISTED else self._listed(bought, uniforms[1], uniforms[2]),
            also_view=[] if uniforms[3] < NONE_LISTED else self._listed(viewed, uniforms[4], uniforms[5]),
        )

    def _bought(self, item: int, uniforms: list[float]) -> list[int]:
        kind = self._kind[item]
        slot = int(self._catalogue.brand[item]) % self._catalogue.brands_per_department
        line = int(self._catalogue.line[item])
        found: dict[int, None] = {}
        for place in range(MOST_BOUGHT):
            first, second, third = uniforms[3 * place : 3 * place + 3]
            other = category_of(kind) * KINDS_PER_CATEGORY + (kind + 1 + int(3 * second)) % KINDS_PER_CATEGORY
            candidate = self._by_line.at(line, first)
            if place >= MOST_BOUGHT // 2 or self._kind[candidate] == kind or candidate in found:
                group = other * self._catalogue.brands_per_department + slot
                candidate = self._by_brand.at(group, third) if self._by_brand.size(group) else -1
            if candidate < 0 or candidate in found:
                candidate = self._by_kind.at(other, third**POPULARITY_SKEW)
            found[candidate] = None
        return list(found)

    def _viewed(self, item: int, uniforms: list[float]) -> list[int]:
        kind = self._kind[item]
        group = kind * len(ATTRIBUTES) + int(self._catalogue.attribute[item])
        found: dict[int, None] = {}
        for place in range(MOST_VIEWED):
            first, second, third = uniforms[3 * place : 3 * place + 3]
            if first < OTHER_KIND_VIEWED:
                other = category_of(kind) * KINDS_PER_CATEGORY + int(KINDS_PER_CATEGORY * second)
                candidate = self._by_kind.at(other, third)
            elif second < 0.5:
                candidate = self._by_attribute.at(group, third)
            else:
                candidate = self._by_kind.at(kind, third**POPULARITY_SKEW)
            if candidate != item:
                found[candidate] = None
        return list(found)

    def _listed(self, items: list[int], absent: float, which: float) -> list[str]:
        ids = [self._catalogue.ids[item] for item in items]
        if absent < ABSENT:
            place = int(which * (len(ids) + 1))
            absent_ids = self._catalogue.absent_ids
            ids.insert(place, absent_ids[int(absent / ABSENT * len(absent_ids))])
        return ids


class _Group:
    """The groups of a `Buckets` as lists, which are quicker to look one item up in."""

    def __init__(self, buckets: Buckets) -> None:
        self._order: list[int] = buckets.order.tolist()
        self._start: list[int] = buckets.start.tolist()

    def size(self, group: int) -> int:
        return self._start[group + 1] - self._start[group]

    def at(self, group: int, share: float) -> int:
        """Return the item at a share in [0, 1) of the way through a group, most popular first."""
        return self._order[self._start[group] + int(self.size(group) * share)]
