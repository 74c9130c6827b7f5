"""How large each part of a shop is, and how its users are cut into blocks that fit in memory."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recfound_data.errors import UsageError
from recfound_data.shop.taxonomy import KINDS

FEWEST_REVIEWS = 200
REVIEWS_PER_USER = 5
"""The fewest reviews of a user: the corpus is a 5-core in its users."""
RATINGS_PER_FILM_USER = 20
"""The fewest ratings of a film user, as in MovieLens."""
_BLOCK_USERS = 4096
_MOST_QUERIES = 40_000
_MOST_QUESTIONS, _MOST_OFFER_PAIRS, _MOST_LABELLED, _MOST_DIALOGUES = 2_400, 2_000, 1_200, 600


@dataclass(frozen=True)
class Sizes:
    """How many of each thing a shop holds."""

    reviews: int
    duplicate_reviews: int
    users: int
    items: int
    film_ratings: int
    film_users: int
    films: int
    queries: int
    questions: int
    offer_pairs: int
    labelled_products: int
    dialogues: int

    @classmethod
    def of(cls, reviews: int) -> "Sizes":
        """Return the sizes of a shop of `reviews` reviews; items and films grow as a square root where it is large.

        Raises:
            UsageError: `reviews` is below 200, which is too few for every part to be there.
        """
        if reviews < FEWEST_REVIEWS:
            raise UsageError(
                f"a shop has {FEWEST_REVIEWS} reviews or more, not {reviews}: give --reviews a larger number"
            )
        items = max(2 * len(KINDS), min(_grown(reviews, 0.075, 200_000), 500_000))
        ratings = max(reviews // 3, 60)
        return cls(
            reviews=reviews,
            duplicate_reviews=reviews // 100,
            users=reviews // 10,
            items=items,
            film_ratings=ratings,
            film_users=ratings // 30,
            films=max(120, min(_grown(ratings, 1 / 15, 60_000), 60_000)),
            queries=min(items // 4, _MOST_QUERIES),
            questions=min(2 * items, _MOST_QUESTIONS),
            offer_pairs=min(items, _MOST_OFFER_PAIRS),
            labelled_products=min(items, _MOST_LABELLED),
            dialogues=min(items, _MOST_DIALOGUES),
        )


@dataclass(frozen=True)
class Block:
    """Consecutive users whose histories are drawn together."""

    index: int
    first_user: int
    users: int
    rows: int
    duplicates: int


def blocks(users: int, rows: int, duplicates: int = 0) -> Iterator[Block]:
    """Cut users into blocks, with `rows` and `duplicates` shared out in proportion so that they sum to the whole."""
    for index, first in enumerate(range(0, users, _BLOCK_USERS)):
        last = min(first + _BLOCK_USERS, users)
        yield Block(
            index=index,
            first_user=first,
            users=last - first,
            rows=rows * last // users - rows * first // users,
            duplicates=duplicates * last // users - duplicates * first // users,
        )


def history_lengths(random: np.random.Generator, block: Block, fewest: int) -> NDArray[np.int64]:
    """Return how long each user's history is, `[users]`, longest first: `fewest` and a skewed share of what is left."""
    shares = random.gamma(1.5, size=block.users)
    spare = random.multinomial(block.rows - fewest * block.users, shares / shares.sum())
    return np.sort(spare + fewest)[::-1]


def _grown(amount: int, rate: float, knee: int) -> int:
    return int(rate * amount) if amount <= knee else int(rate * knee * math.sqrt(amount / knee))
