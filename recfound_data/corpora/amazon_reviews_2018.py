"""Amazon Reviews 2018: reviews (5-core or whole) and metadata as JSON lines, or ratings alone as CSV."""

from __future__ import annotations

from typing import ClassVar, Literal

import polars as pl

from recfound_data.corpora.amazon import (
    AmazonReviews,
    Rows,
    brand,
    item_facts,
    levels,
    linked_items,
    no_other_file,
    price,
    prose,
)
from recfound_data.sources import frames
from recfound_data.tables import Terms

_REVIEW = {
    "reviewerID": pl.String,
    "asin": pl.String,
    "overall": pl.Float32,
    "unixReviewTime": pl.Float64,
    "reviewText": pl.String,
}
_NAMES = dict(zip(_REVIEW, ("user_id", "item_id", "rating", "timestamp", "text"), strict=True))
_RATINGS_ONLY = "asin,reviewerID,overall,unixReviewTime"
_ITEM = {
    "asin": pl.String,
    "title": pl.String,
    "description": pl.List(pl.String),
    "feature": pl.List(pl.String),
    "category": pl.List(pl.String),
    "brand": pl.String,
    "also_buy": pl.List(pl.String),
    "also_view": pl.List(pl.String),
    "similar_item": pl.String,
    "main_cat": pl.String,
    "price": pl.String,
    "date": pl.String,
    "details": pl.String,
}
_DETAILS = {
    "Original Release Date": "Released",
    "DVD Release Date": "Released on DVD",
    "Publisher": "Publisher",
    "Studio": "Studio",
    "Label": "Label",
    "Format": "Format",
    "Language": "Language",
    "Run Time": "Run time",
    "Product Dimensions": "Dimensions",
    "Item Weight": "Weight",
}


class AmazonReviews2018(AmazonReviews):
    """A category of Amazon Reviews 2018.

    Attributes:
        reviews: path, glob or URL of `<Category>_5.json.gz`, `<Category>.json.gz` or `<Category>.csv` (ratings only).
        metadata: path, glob or URL of `meta_<Category>.json.gz`.
    """

    corpus: Literal["amazon_reviews_2018"] = "amazon_reviews_2018"

    relations: ClassVar[dict[str, str]] = {
        "also_buy": "bought together",
        "also_view": "viewed together",
        "similar_item": "similar",
    }
    last_review: ClassVar[int] = 1_546_300_800  # 2019-01-01: the corpus ends in October 2018
    terms: ClassVar[Terms] = Terms(
        title="Amazon Review Data (2018)",
        address="https://nijianmo.github.io/amazon/",
        licence="no licence text; made available by its authors for research",
        citation="Jianmo Ni, Jiacheng Li, Julian McAuley. Justifying recommendations using distantly-labeled reviews "
        "and fine-grained aspects. EMNLP 2019.",
        redistributable=False,
    )

    def review_rows(self) -> Rows:
        """Yield reviews and lines that could not be parsed."""
        for frame, bad in frames(self.reviews, _REVIEW, optional=("reviewText",), header=_RATINGS_ONLY):
            yield frame.rename(_NAMES), bad

    def item_rows(self) -> Rows:
        """Yield items with their lists of related ids, and lines that could not be parsed."""
        for number, (frame, bad) in enumerate(frames(self.metadata, _ITEM)):
            if not number:
                no_other_file(frame, "title", "asin", f"{self.metadata}: no item has a title; are they the reviews?")
            items = frame.select(
                "also_buy",
                "also_view",
                item_id=pl.col("asin"),
                title=pl.col("title"),
                description=prose("feature", "description"),
                categories=levels(pl.col("category")),
                brand=brand(pl.col("brand")),
                facts=item_facts(frame, _facts()),
                similar_item=linked_items(pl.col("similar_item")),
            )
            yield items, bad


def _facts() -> dict[str, pl.Expr]:
    shop = pl.col("main_cat")
    return {
        "Main category": pl.coalesce(shop.str.extract(r'alt="([^"]+)"'), shop),  # some are the image of a name
        "Price": price(pl.col("price")),
        "First available": pl.col("date").str.extract(r"^([A-Z][a-z]+ \d{1,2}, \d{4})$"),
        **{name: _detail(key) for key, name in _DETAILS.items()},
    }


def _detail(key: str) -> pl.Expr:
    """Return a value of the page's table of details, whose keys have line breaks and colons around them."""
    blank = r"(?:\\n|\s)*"
    value = pl.col("details").str.extract(rf'"{blank}{key}{blank}:?{blank}"\s*:\s*"((?:[^"\\]|\\.)*)"')
    return value.str.replace_all(r"\\[nrt]", " ").str.replace_all(r"\\([\"/])", "$1")
