"""The shop's reviews as Amazon Reviews 2018 publishes them: gzipped JSON lines."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from recfound_data.shop import review_prose
from recfound_data.shop.catalogue import Catalogue
from recfound_data.shop.names import REVIEWER_NAMES, reviewer_ids
from recfound_data.shop.reviews import (
    PICTURED,
    SECONDS_A_DAY,
    VERIFIED,
    VOTED,
    Words,
    draw_stars,
    draw_texts,
    from_pool,
    pieces,
    write_blocks,
)
from recfound_data.shop.sizes import Block, Sizes
from recfound_data.shop.tastes import DAYS, FIRST_DAY, Histories
from recfound_data.shop.taxonomy import COLOURS

_STYLED = 0.5


def write_reviews(path: Path, catalogue: Catalogue, sizes: Sizes, seed: int) -> None:
    """Write all reviews; the 5-core of a category in its users."""
    words = Words()
    dates = [date(1970, 1, 1) + timedelta(days=FIRST_DAY + day) for day in range(DAYS)]
    days = pieces(f"{day:%m} {day.day}, {day.year}" for day in dates)
    all_styles = pieces(["", *(f'"style": {{"Color:": " {colour}"}}, ' for colour in COLOURS)])
    names = pieces(REVIEWER_NAMES)
    all_votes = pieces(["", *(f'"vote": "{votes:,}", ' for votes in (2, 3, 4, 5, 7, 9, 12, 25, 48, 1_204))])
    ids = np.array(catalogue.ids, dtype=object)

    def lines(histories: Histories, block: Block, random: np.random.Generator) -> Iterator[str]:
        rows, item = block.rows, histories.item
        reviewers = np.array(reviewer_ids(seed, block.first_user, block.users), dtype=object)
        stars = draw_stars(catalogue, histories, random)
        votes = np.where(random.random(rows) < VOTED, random.integers(1, len(all_votes), size=rows), 0)
        styles = np.where(random.random(rows) < _STYLED, 1 + catalogue.colour[item], 0)
        columns = zip(
            (stars + 1).tolist(),
            all_votes[votes].tolist(),
            np.where(random.random(rows) < VERIFIED, "true", "false").tolist(),
            days[histories.day - FIRST_DAY].tolist(),
            reviewers[histories.user].tolist(),
            ids[item].tolist(),
            all_styles[styles].tolist(),
            names[random.integers(len(names), size=block.users)][histories.user].tolist(),
            draw_texts(catalogue.kind[item], stars, random, words).tolist(),
            words.summaries[from_pool(random, stars, review_prose.SUMMARIES)].tolist(),
            (histories.day * SECONDS_A_DAY).tolist(),
            (random.random(rows) < PICTURED).tolist(),
            strict=True,
        )
        for overall, vote, verified, day, reviewer, asin, style, name, text, summary, unix, pictured in columns:
            written = f'"reviewText": "{text}", ' if text else ""
            image = f', "image": ["https://images.example.com/{asin}.jpg"]' if pictured else ""
            yield (
                f'{{"overall": {overall}.0, {vote}"verified": {verified}, "reviewTime": "{day}", '
                f'"reviewerID": "{reviewer}", "asin": "{asin}", {style}"reviewerName": "{name}", '
                f'{written}"summary": "{summary}", "unixReviewTime": {unix}{image}}}\n'
            )

    write_blocks(path, catalogue, sizes, seed, lines)
