"""The shop's reviews as Amazon Reviews 2018 publishes them: gzipped JSON lines."""

import json
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recfound_data.shop import review_prose
from recfound_data.shop.catalogue import Catalogue
from recfound_data.shop.files import gzip_writer
from recfound_data.shop.names import REVIEWER_NAMES, reviewer_ids
from recfound_data.shop.randomness import Part, generator
from recfound_data.shop.sizes import Block, Sizes, blocks
from recfound_data.shop.tastes import DAYS, FIRST_DAY, Histories, draw_histories
from recfound_data.shop.taxonomy import COLOURS, KINDS

_STAR_LIMITS = np.array([-1.75, -1.43, -1.01, -0.4])
"""Where the latent opinion passes from one star to the next; about 65 % end above the last one."""
OTHER_STARS = 0.05
"""The share of reviews whose opening sounds one star better or worse than the rating."""
VERIFIED, VOTED, STYLED, PICTURED = 0.9, 0.1, 0.5, 0.005
NO_TEXT, CONTACT = 0.002, 0.001
_OPENING_ONLY, _WITH_DETAIL = 0.2, 0.55
_SECONDS_A_DAY = 86_400

_Pieces = NDArray[np.object_]


def write_reviews(path: Path, catalogue: Catalogue, sizes: Sizes, seed: int) -> None:
    """Write all reviews, a block of users at a time, shuffled within the block, its exact duplicates among them."""
    words = _Words()
    ids = np.array(catalogue.ids, dtype=object)
    with gzip_writer(path) as file:
        for block in blocks(sizes.users, sizes.reviews - sizes.duplicate_reviews, sizes.duplicate_reviews):
            histories = draw_histories(catalogue, block, generator(seed, Part.TASTES, block.index))
            random = generator(seed, Part.REVIEWS, block.index)
            reviewers = np.array(reviewer_ids(seed, block.first_user, block.users), dtype=object)
            lines = np.array(list(_lines(catalogue, histories, block, random, words, ids, reviewers)), dtype=object)
            twice = random.choice(block.rows, size=block.duplicates, replace=False)
            order = random.permutation(np.concatenate((np.arange(block.rows), twice)))
            file.write("".join(lines[order].tolist()).encode("ascii"))


class _Words:
    """The pieces of reviews as they stand in JSON; a line is put together by looking pieces up."""

    def __init__(self) -> None:
        days = [date(1970, 1, 1) + timedelta(days=FIRST_DAY + day) for day in range(DAYS)]
        nouns = [noun.lower() for kind in KINDS for noun in (kind.titles[0], kind.synonyms[0])]
        uses = [kind.use for kind in KINDS for _ in range(2)]
        self.days = _pieces(f"{day:%m} {day.day}, {day.year}" for day in days)
        self.styles = _pieces(["", *(f'"style": {{"Color:": " {colour}"}}, ' for colour in COLOURS)])
        self.names = _pieces(REVIEWER_NAMES)
        self.votes = _pieces(["", *(f'"vote": "{votes:,}", ' for votes in (2, 3, 4, 5, 7, 9, 12, 25, 48, 1_204))])
        self.summaries = _pieces(text for pool in review_prose.SUMMARIES for text in pool)
        self.openings = _pieces(text for pool in review_prose.OPENINGS for text in pool)
        self.closings = _pieces(text for pool in review_prose.CLOSINGS for text in pool)
        self.details = _pieces(
            text.format(noun=noun) for pool in review_prose.DETAILS for text in pool for noun in nouns
        )
        self.facts = _pieces(
            text.format(noun=noun, use=use)
            for text in review_prose.FACTS
            for noun, use in zip(nouns, uses, strict=True)
        )


def _pieces(texts: Iterable[str]) -> _Pieces:
    """Return texts as an array of strings, each escaped for JSON unless it is a piece of JSON already."""
    return np.array([text if text.startswith('"') else json.dumps(text)[1:-1] for text in texts], dtype=object)


def _lines(
    catalogue: Catalogue,
    histories: Histories,
    block: Block,
    random: np.random.Generator,
    words: _Words,
    ids: _Pieces,
    reviewers: _Pieces,
) -> Iterator[str]:
    rows, item = block.rows, histories.item
    stars = _stars(catalogue, histories, random)
    votes = np.where(random.random(rows) < VOTED, random.integers(1, len(words.votes), size=rows), 0)
    styles = np.where(random.random(rows) < STYLED, 1 + catalogue.colour[item], 0)
    columns = zip(
        (stars + 1).tolist(),
        words.votes[votes].tolist(),
        np.where(random.random(rows) < VERIFIED, "true", "false").tolist(),
        words.days[histories.day - FIRST_DAY].tolist(),
        reviewers[histories.user].tolist(),
        ids[item].tolist(),
        words.styles[styles].tolist(),
        words.names[random.integers(len(words.names), size=block.users)][histories.user].tolist(),
        _texts(catalogue.kind[item], stars, random, words),
        words.summaries[_from_pool(random, stars, review_prose.SUMMARIES)].tolist(),
        (histories.day * _SECONDS_A_DAY).tolist(),
        (random.random(rows) < PICTURED).tolist(),
        strict=True,
    )
    for overall, vote, verified, day, reviewer, asin, style, name, text, summary, unix, pictured in columns:
        image = f', "image": ["https://images.example.com/{asin}.jpg"]' if pictured else ""
        yield (
            f'{{"overall": {overall}.0, {vote}"verified": {verified}, "reviewTime": "{day}", '
            f'"reviewerID": "{reviewer}", "asin": "{asin}", {style}"reviewerName": "{name}", '
            f'{text}"summary": "{summary}", "unixReviewTime": {unix}{image}}}\n'
        )


def _stars(catalogue: Catalogue, histories: Histories, random: np.random.Generator) -> NDArray[np.int64]:
    """Return the stars of each review less one: better for a good item, and for one within the user's taste."""
    opinion = random.standard_normal(len(histories.item)) + 0.5 * catalogue.quality[histories.item]
    opinion += np.where(histories.within_taste, 0.15, -0.6)
    return np.searchsorted(_STAR_LIMITS, opinion)


def _texts(kind: NDArray[np.int64], stars: NDArray[np.int64], random: np.random.Generator, words: _Words) -> list[str]:
    """Return the `"reviewText": ...` of each review: an opening, mostly a detail, often a fact and a closing."""
    rows = len(kind)
    sway = np.where(random.random(rows) < OTHER_STARS, random.choice([-1, 1], size=rows), 0)
    noun = 2 * kind + random.integers(2, size=rows)
    nouns = 2 * len(KINDS)
    openings = words.openings[_from_pool(random, np.clip(stars + sway, 0, 4), review_prose.OPENINGS)]
    details = words.details[_from_pool(random, stars, review_prose.DETAILS) * nouns + noun]
    facts = words.facts[random.integers(len(review_prose.FACTS), size=rows) * nouns + noun]
    closings = words.closings[_from_pool(random, stars, review_prose.CLOSINGS)]
    length = random.random(rows)
    texts = openings + np.where(length < _OPENING_ONLY, "", " " + details)
    texts += np.where(length < _WITH_DETAIL, "", " " + facts + " " + closings)
    texts = '"reviewText": "' + texts + '", '
    texts[random.random(rows) < NO_TEXT] = ""
    for row in np.flatnonzero(random.random(rows) < CONTACT).tolist():
        contact = review_prose.CONTACTS[row % len(review_prose.CONTACTS)].format(box=f"buyer{row}", number=row % 100)
        if texts[row]:
            texts[row] = f'{texts[row][:-3]} {contact}", '
    return texts.tolist()


def _from_pool(
    random: np.random.Generator, stars: NDArray[np.int64], pools: tuple[tuple[str, ...], ...]
) -> NDArray[np.int64]:
    """Return a random place in the pool of each review's stars, counted through all pools, which are of one size."""
    size = len(pools[0])
    return stars * size + random.integers(size, size=len(stars))
