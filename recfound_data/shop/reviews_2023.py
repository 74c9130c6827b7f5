"""The shop's reviews as Amazon Reviews 2023 publishes them: gzipped JSON lines."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recfound_data.shop import review_prose
from recfound_data.shop.catalogue import Catalogue
from recfound_data.shop.names import account_ids, asins
from recfound_data.shop.reviews import (
    PICTURED,
    SECONDS_A_DAY,
    VERIFIED,
    VOTED,
    Pieces,
    Words,
    draw_stars,
    draw_texts,
    from_pool,
    pieces,
    write_blocks,
)
from recfound_data.shop.sizes import Block, Sizes
from recfound_data.shop.tastes import Histories

OF_A_VARIANT = 0.3
"""The share of reviews of a variant: its `asin` is one that no metadata has, its `parent_asin` is the item's."""
MARKUP = 0.02
"""The share of reviews with a line break as HTML."""
_LATER = 1_800
"""Days between the two corpora's times; the last review is of September 2023."""


@dataclass(frozen=True)
class Opinions:
    """What all reviews of each item come to, `[items]`: the sum of their stars, and how many they are."""

    stars: NDArray[np.int64]
    reviews: NDArray[np.int64]


def write_reviews(path: Path, catalogue: Catalogue, sizes: Sizes, seed: int) -> Opinions:
    """Write all reviews and return what they come to, exact duplicates not counted."""
    words = Words()
    tenures = pieces(f" {text.format(n=n)}" for text in review_prose.TENURES for n in range(2, 61))
    relatives = pieces(
        f" {text.format(who=who, age=age)}"
        for text in review_prose.FOR_WHOM
        for who in review_prose.RELATIVES
        for age in range(30, 80)
    )
    ids = np.array(catalogue.ids, dtype=object)
    variants = np.array(asins(seed, len(ids) + len(catalogue.absent_ids), len(ids)), dtype=object)
    opinions = Opinions(np.zeros(len(ids), dtype=np.int64), np.zeros(len(ids), dtype=np.int64))

    def lines(histories: Histories, block: Block, random: np.random.Generator) -> Iterator[str]:
        rows, item = block.rows, histories.item
        accounts = np.array(account_ids(seed, block.first_user, block.users), dtype=object)
        stars = draw_stars(catalogue, histories, random)
        opinions.stars[:] += np.bincount(item, stars + 1, minlength=len(ids)).astype(np.int64)
        opinions.reviews[:] += np.bincount(item, minlength=len(ids))
        asides = (
            tenures[random.integers(len(tenures), size=rows)] + relatives[random.integers(len(relatives), size=rows)]
        )
        parents = ids[item]
        of_variant = random.random(rows) < OF_A_VARIANT
        moment = random.integers(SECONDS_A_DAY * 1_000, size=rows)
        votes = np.where(random.random(rows) < VOTED, random.geometric(0.3, size=rows), 0)
        columns = zip(
            (stars + 1).tolist(),
            words.summaries[from_pool(random, stars, review_prose.SUMMARIES)].tolist(),
            _marked_up(draw_texts(catalogue.kind[item], stars, random, words, asides), random).tolist(),
            np.where(of_variant, variants[item], parents).tolist(),
            parents.tolist(),
            accounts[histories.user].tolist(),
            ((histories.day + _LATER) * SECONDS_A_DAY * 1_000 + moment).tolist(),
            votes.tolist(),
            np.where(random.random(rows) < VERIFIED, "true", "false").tolist(),
            (random.random(rows) < PICTURED).tolist(),
            strict=True,
        )
        for rating, title, text, asin, parent, account, timestamp, helpful, verified, pictured in columns:
            images = _images(asin) if pictured else ""
            yield (
                f'{{"rating": {rating}.0, "title": "{title}", "text": "{text}", "images": [{images}], '
                f'"asin": "{asin}", "parent_asin": "{parent}", "user_id": "{account}", "timestamp": {timestamp}, '
                f'"helpful_vote": {helpful}, "verified_purchase": {verified}}}\n'
            )

    write_blocks(path, catalogue, sizes, seed, lines)
    return opinions


def _marked_up(texts: Pieces, random: np.random.Generator) -> Pieces:
    for row in np.flatnonzero(random.random(len(texts)) < MARKUP).tolist():
        texts[row] = texts[row].replace(". ", ".<br />", 1)
    return texts


def _images(asin: str) -> str:
    address = f"https://images.example.com/{asin}"
    return (
        f'{{"small_image_url": "{address}_s.jpg", "medium_image_url": "{address}_m.jpg", '
        f'"large_image_url": "{address}_l.jpg", "attachment_type": "IMAGE"}}'
    )
