"""What the shop's users buy: within their tastes, one step after another, block by block."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from recfound_data.shop.catalogue import POPULARITY_SKEW, Catalogue
from recfound_data.shop.sizes import REVIEWS_PER_USER, Block, history_lengths
from recfound_data.shop.taxonomy import ATTRIBUTES, CATEGORY_NAMES, KINDS_PER_CATEGORY

WITHIN_TASTE = 0.85
STAY_IN_CATEGORY = 0.7
NEXT_STEP = 0.75
FAVOURITE_ATTRIBUTE = 0.6
FAVOURITE_BRAND = 0.2

FIRST_DAY = 14_245
"""2009-01-01, in days since 1970."""
DAYS = 3_560
_LONGEST_GAP = 40
_TYPICAL_GAP = 12.0
_REDRAWS = 4

_SLOT_SHARES = np.array([[1.0, 1.0, 1.0], [0.65, 1.0, 1.0], [0.55, 0.85, 1.0]])


@dataclass(frozen=True)
class Histories:
    """The purchases of a block's users, `[rows]`: each user's together and in order of time."""

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    day: NDArray[np.int64]
    within_taste: NDArray[np.bool_]


def draw_histories(catalogue: Catalogue, block: Block, random: np.random.Generator) -> Histories:
    """Draw the histories of a block's users; no user buys an item twice."""
    lengths = history_lengths(random, block, REVIEWS_PER_USER)
    tastes = _Tastes(catalogue, block.users, random)
    longest = int(lengths[0])
    items = np.full((block.users, longest), -1, dtype=np.int64)
    within = np.zeros((block.users, longest), dtype=np.bool_)
    for step in range(longest):
        # Histories are sorted by length, so those that go on are the first ones.
        active = int(np.searchsorted(-lengths, -step, side="left"))
        kinds, within[:active, step] = tastes.next_kinds(active)
        chosen = tastes.choose(np.arange(active), kinds)
        without_repeats(chosen, items[:active, :step], len(catalogue), partial(tastes.choose_any, kinds))
        items[:active, step] = chosen
    written = items >= 0
    return Histories(
        user=np.repeat(np.arange(block.users), lengths),
        item=items[written],
        day=_days(random, written)[written],
        within_taste=within[written],
    )


def without_repeats(
    chosen: NDArray[np.int64],
    seen: NDArray[np.int64],
    total: int,
    redraw: Callable[[NDArray[np.int64]], NDArray[np.int64]],
) -> None:
    """Replace in place what a user has had before: a few redraws first, then the next item that is new to the user.

    Args:
        chosen: One item a user, `[users]`.
        seen: What each user has had, `[users, steps]`.
        total: How many items there are; more than `steps`.
        redraw: Gives another item for each of the users whose positions it gets.
    """
    for attempt in range(_REDRAWS + total):
        rows = np.flatnonzero((seen == chosen[:, None]).any(axis=1))
        if not len(rows):
            return
        chosen[rows] = redraw(rows) if attempt < _REDRAWS else (chosen[rows] + 1) % total


class _Tastes:
    """The favourites of a block's users, and where each user stands in each favourite category."""

    def __init__(self, catalogue: Catalogue, users: int, random: np.random.Generator) -> None:
        self._catalogue = catalogue
        self._random = random
        self._favourites = np.argsort(random.random((users, len(CATEGORY_NAMES))), axis=1)[:, :3]
        self._how_many = random.integers(3, size=users)
        self._attribute = random.integers(len(ATTRIBUTES), size=users)
        self._brand = random.integers(catalogue.brands_per_department, size=users)
        self._slot = self._draw_slots(users)
        self._position = random.integers(KINDS_PER_CATEGORY, size=(users, 3))

    def next_kinds(self, active: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the kind that each of the first `active` users wants next, and whether it is within their taste."""
        random, rows = self._random, np.arange(active)
        leaves = random.random(active) >= STAY_IN_CATEGORY
        slot = np.where(leaves, self._draw_slots(active), self._slot[:active])
        follows = random.random(active) < NEXT_STEP
        position = np.where(
            follows,
            (self._position[rows, slot] + 1) % KINDS_PER_CATEGORY,
            random.integers(KINDS_PER_CATEGORY, size=active),
        )
        within = random.random(active) < WITHIN_TASTE
        elsewhere = self._catalogue.kind[random.integers(len(self._catalogue), size=active)]
        self._slot[:active] = np.where(within, slot, self._slot[:active])
        self._position[rows[within], slot[within]] = position[within]
        wanted = self._favourites[rows, slot] * KINDS_PER_CATEGORY + position
        return np.where(within, wanted, elsewhere), within

    def choose(self, rows: NDArray[np.int64], kinds: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return an item of each kind: of the user's attribute, of the user's brand or any, popular ones first."""
        catalogue, random = self._catalogue, self._random
        mode, uniform = random.random(len(rows)), random.random(len(rows))
        chosen = catalogue.by_kind.draw(kinds, uniform, POPULARITY_SKEW)
        attribute = catalogue.attribute_group(kinds, self._attribute[rows])
        brand = catalogue.brand_group(kinds, self._brand[rows])
        by_attribute = (mode < FAVOURITE_ATTRIBUTE) & (catalogue.by_attribute.sizes(attribute) > 0)
        by_brand = (mode >= 1 - FAVOURITE_BRAND) & (catalogue.by_brand.sizes(brand) > 0)
        for rule, buckets, group in (
            (by_attribute, catalogue.by_attribute, attribute),
            (by_brand, catalogue.by_brand, brand),
        ):
            chosen[rule] = buckets.draw(group[rule], uniform[rule], POPULARITY_SKEW)
        return chosen

    def choose_any(self, kinds: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return any item, popular or not, of the kinds that these users want."""
        return self._catalogue.by_kind.draw(kinds[rows], self._random.random(len(rows)), 1.0)

    def _draw_slots(self, active: int) -> NDArray[np.int64]:
        reached = self._random.random(active)[:, None] >= _SLOT_SHARES[self._how_many[:active]]
        return reached.sum(axis=1)


def _days(random: np.random.Generator, written: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the day of each purchase, `[users, steps]`: at least one day apart, from any start that leaves room."""
    gaps = np.minimum(1 + random.exponential(_TYPICAL_GAP, size=written.shape).astype(np.int64), _LONGEST_GAP)
    gaps[:, 0] = 0
    elapsed = np.cumsum(gaps * written, axis=1)
    room = np.maximum(DAYS - elapsed[:, -1], 1)
    start = (room * random.random(len(room))).astype(np.int64)
    return np.minimum(FIRST_DAY + start[:, None] + elapsed, FIRST_DAY + DAYS - 1)
