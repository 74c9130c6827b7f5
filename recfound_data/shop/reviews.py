"""What the reviews of both Amazon forms share: how they are drawn, what they say, and how they reach the disk."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recfound_data.shop import review_prose
from recfound_data.shop.catalogue import Catalogue
from recfound_data.shop.files import gzip_writer
from recfound_data.shop.randomness import Part, generator
from recfound_data.shop.sizes import Block, Sizes, blocks
from recfound_data.shop.tastes import Histories, draw_histories
from recfound_data.shop.taxonomy import KINDS

_STAR_LIMITS = np.array([-1.75, -1.43, -1.01, -0.4])
"""Where the latent opinion passes from one star to the next; about 65 % end above the last one."""
OTHER_STARS = 0.05
"""The share of reviews whose opening sounds one star better or worse than the rating."""
VERIFIED, VOTED, PICTURED = 0.9, 0.1, 0.005
NO_TEXT, CONTACT = 0.002, 0.001
SECONDS_A_DAY = 86_400
_OPENING_ONLY, _WITH_DETAIL = 0.2, 0.55

Pieces = NDArray[np.object_]
Lines = Callable[[Histories, Block, np.random.Generator], Iterable[str]]


def write_blocks(path: Path, catalogue: Catalogue, sizes: Sizes, seed: int, lines_of: Lines) -> None:
    """Write all reviews, a block of users at a time, shuffled within the block, its exact duplicates among them."""
    with gzip_writer(path) as file:
        for block in blocks(sizes.users, sizes.reviews - sizes.duplicate_reviews, sizes.duplicate_reviews):
            histories = draw_histories(catalogue, block, generator(seed, Part.TASTES, block.index))
            random = generator(seed, Part.REVIEWS, block.index)
            lines = np.array(list(lines_of(histories, block, random)), dtype=object)
            twice = random.choice(block.rows, size=block.duplicates, replace=False)
            order = random.permutation(np.concatenate((np.arange(block.rows), twice)))
            file.write("".join(lines[order].tolist()).encode("ascii"))


class Words:
    """The pieces of reviews as they stand in JSON; a line is put together by looking pieces up."""

    def __init__(self) -> None:
        nouns = [noun.lower() for kind in KINDS for noun in (kind.titles[0], kind.synonyms[0])]
        uses = [kind.use for kind in KINDS for _ in range(2)]
        self.summaries = pieces(text for pool in review_prose.SUMMARIES for text in pool)
        self.openings = pieces(text for pool in review_prose.OPENINGS for text in pool)
        self.closings = pieces(text for pool in review_prose.CLOSINGS for text in pool)
        self.details = pieces(
            text.format(noun=noun) for pool in review_prose.DETAILS for text in pool for noun in nouns
        )
        self.facts = pieces(
            text.format(noun=noun, use=use)
            for text in review_prose.FACTS
            for noun, use in zip(nouns, uses, strict=True)
        )


def pieces(texts: Iterable[str]) -> Pieces:
    """Return texts as an array of strings, each escaped for JSON unless it is a piece of JSON already."""
    return np.array([text if text.startswith('"') else json.dumps(text)[1:-1] for text in texts], dtype=object)


def draw_stars(catalogue: Catalogue, histories: Histories, random: np.random.Generator) -> NDArray[np.int64]:
    """Return the stars of each review less one: better for a good item, and for one within the user's taste."""
    opinion = random.standard_normal(len(histories.item)) + 0.5 * catalogue.quality[histories.item]
    opinion += np.where(histories.within_taste, 0.15, -0.6)
    return np.searchsorted(_STAR_LIMITS, opinion)


def draw_texts(
    kind: NDArray[np.int64],
    stars: NDArray[np.int64],
    random: np.random.Generator,
    words: Words,
    asides: Pieces | str = "",
) -> Pieces:
    """Return the text of each review: an opening, mostly a detail and the aside, often a fact and a closing.

    A few are empty, and a few tell how to reach the reviewer.
    """
    rows = len(kind)
    sway = np.where(random.random(rows) < OTHER_STARS, random.choice([-1, 1], size=rows), 0)
    noun = 2 * kind + random.integers(2, size=rows)
    nouns = 2 * len(KINDS)
    openings = words.openings[from_pool(random, np.clip(stars + sway, 0, 4), review_prose.OPENINGS)]
    details = words.details[from_pool(random, stars, review_prose.DETAILS) * nouns + noun]
    facts = words.facts[random.integers(len(review_prose.FACTS), size=rows) * nouns + noun]
    closings = words.closings[from_pool(random, stars, review_prose.CLOSINGS)]
    length = random.random(rows)
    texts = openings + np.where(length < _OPENING_ONLY, "", " " + details + asides)
    texts += np.where(length < _WITH_DETAIL, "", " " + facts + " " + closings)
    texts[random.random(rows) < NO_TEXT] = ""
    for row in np.flatnonzero(random.random(rows) < CONTACT).tolist():
        contact = review_prose.CONTACTS[row % len(review_prose.CONTACTS)].format(box=f"buyer{row}", number=row % 100)
        if texts[row]:
            texts[row] = f"{texts[row]} {contact}"
    return texts


def from_pool(
    random: np.random.Generator, stars: NDArray[np.int64], pools: tuple[tuple[str, ...], ...]
) -> NDArray[np.int64]:
    """Return a random place in the pool of each review's stars, counted through all pools, which are of one size."""
    size = len(pools[0])
    return stars * size + random.integers(size, size=len(stars))
