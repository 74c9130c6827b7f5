"""Amazon Reviews 2018: reviews (5-core or whole) and metadata, JSON lines, usually gzipped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import polars as pl

from recfound_data.sources import json_lines, line_blocks
from recfound_data.tables import TABLES, Batch, People, Source, Terms

_REVIEW = {
    "reviewerID": pl.String,
    "asin": pl.String,
    "overall": pl.Float32,
    "unixReviewTime": pl.Int64,
    "reviewText": pl.String,
}
_ITEM = {
    "asin": pl.String,
    "title": pl.String,
    "description": pl.List(pl.String),
    "feature": pl.List(pl.String),
    "category": pl.List(pl.String),
    "brand": pl.String,
    "also_buy": pl.List(pl.String),
    "also_view": pl.List(pl.String),
}
_FIRST_REVIEW = 801_619_200  # 1995-05-28, before the shop's first review; an earlier one has an impossible date
_LAST_REVIEW = 1_546_300_800  # 2019-01-01: the corpus ends in October 2018


class AmazonReviews2018(Source):
    """A category of Amazon Reviews 2018.

    Attributes:
        reviews: path, glob or URL of `<Category>_5.json.gz` or `<Category>.json.gz`.
        metadata: path, glob or URL of `meta_<Category>.json.gz`.
    """

    corpus: Literal["amazon_reviews_2018"] = "amazon_reviews_2018"
    reviews: str
    metadata: str

    path_fields: ClassVar[tuple[str, ...]] = ("reviews", "metadata")
    terms: ClassVar[Terms] = Terms(
        title="Amazon Review Data (2018)",
        address="https://nijianmo.github.io/amazon/",
        licence="no licence text; made available by its authors for research",
        citation="Jianmo Ni, Jiacheng Li, Julian McAuley. Justifying recommendations using distantly-labeled reviews "
        "and fine-grained aspects. EMNLP 2019.",
        redistributable=False,
    )

    def batches(self, people: People) -> Iterator[Batch]:
        """Yield interactions from the reviews, then items and relations from the metadata."""
        for block in line_blocks(self.reviews):
            frame, bad = json_lines(block, _REVIEW)
            complete = frame.drop_nulls(["reviewerID", "asin", "overall", "unixReviewTime"])
            rated = complete.filter(pl.col("overall").is_between(1, 5))
            dated = rated.filter(pl.col("unixReviewTime").is_between(_FIRST_REVIEW, _LAST_REVIEW))
            interactions = dated.select(
                user_id=people.pseudonym(pl.col("reviewerID")),
                item_id=pl.col("asin"),
                rating=pl.col("overall"),
                timestamp=pl.col("unixReviewTime"),
            )
            drops = {
                "review unparsable": len(bad),
                "review without user, item, rating or time": len(frame) - len(complete),
                "impossible rating": len(complete) - len(rated),
                "impossible date": len(rated) - len(dated),
            }
            yield Batch("interactions", interactions, drops, bad)
        for block in line_blocks(self.metadata):
            frame, bad = json_lines(block, _ITEM)
            items = frame.drop_nulls("asin")
            drops = {"item unparsable": len(bad), "item without id": len(frame) - len(items)}
            yield Batch("items", self._items(items), drops, bad)
            yield Batch("relations", _relations(items))

    def _items(self, frame: pl.DataFrame) -> pl.DataFrame:
        prose = pl.concat_list(pl.col("feature", "description").fill_null([])).list.join(" ")
        # The category list goes on into marketing lines ("No expiration, no fees."); names have no full stop.
        named = pl.col("category").fill_null([]).list.filter(~pl.element().str.contains(r"[.!:]\s*$|^.{41,}"))
        levels = named.list.unique(maintain_order=True).list.head(4)
        return frame.select(
            item_id=pl.col("asin"),
            title=pl.col("title"),
            description=prose,
            categories=levels,
            brand=pl.col("brand"),
            domain=pl.lit(self.domain or self.label),
        )


def _relations(frame: pl.DataFrame) -> pl.DataFrame:
    parts = [
        frame.select(item_id=pl.col("asin"), other_id=pl.col(column))
        .explode("other_id")
        .drop_nulls()
        .with_columns(relation=pl.lit(column))
        for column in ("also_buy", "also_view")
    ]
    return pl.concat(parts).select(list(TABLES["relations"]))
