"""Amazon Reviews 2023: reviews and metadata as JSON lines or Parquet, ratings alone (whole or 5-core) as CSV."""

from __future__ import annotations

from typing import ClassVar, Literal

import polars as pl

from recfound_data.corpora.amazon import AmazonReviews, Rows, brand, item_facts, levels, no_other_file, price, prose
from recfound_data.sources import frames
from recfound_data.tables import Terms

_REVIEW = {
    "user_id": pl.String,
    "parent_asin": pl.String,
    "asin": pl.String,
    "rating": pl.Float32,
    "timestamp": pl.Float64,
    "text": pl.String,
}
_ITEM = {
    "parent_asin": pl.String,
    "main_category": pl.String,
    "title": pl.String,
    "features": pl.List(pl.String),
    "description": pl.List(pl.String),
    "price": pl.String,
    "store": pl.String,
    "categories": pl.List(pl.String),
    "details": pl.String,
    "bought_together": pl.List(pl.String),
}
_DETAILS = {
    "Release date": "Released",
    "Release Date": "Released",
    "Publication date": "Published",
    "Publisher": "Publisher",
    "Date First Available": "First available",
    "Language": "Language",
    "Color": "Colour",
    "Material": "Material",
    "Style": "Style",
    "Size": "Size",
    "Item Form": "Form",
    "Scent": "Scent",
    "Theme": "Theme",
    "Product Dimensions": "Dimensions",
}
_MILLISECONDS = 1000


class AmazonReviews2023(AmazonReviews):
    """A category of Amazon Reviews 2023.

    Attributes:
        reviews: path, glob or URL of `<Category>.jsonl.gz`, of the ratings-only or 5-core `<Category>.csv.gz`, or of
            the Hugging Face dataset's Parquet files.
        metadata: path, glob or URL of `meta_<Category>.jsonl.gz` or of the Hugging Face dataset's Parquet files.
    """

    corpus: Literal["amazon_reviews_2023"] = "amazon_reviews_2023"

    relations: ClassVar[dict[str, str]] = {"bought_together": "bought together"}
    last_review: ClassVar[int] = 1_704_067_200  # 2024-01-01: the corpus ends in September 2023
    terms: ClassVar[Terms] = Terms(
        title="Amazon Reviews 2023",
        address="https://amazon-reviews-2023.github.io/",
        licence="no licence text; made available by its authors for research",
        citation="Yupeng Hou, Jiacheng Li, Zhankui He, An Yan, Xiusi Chen, Julian McAuley. Bridging Language and Items "
        "for Retrieval and Recommendation. arXiv 2403.03952, 2024.",
        redistributable=False,
    )

    def review_rows(self) -> Rows:
        """Yield reviews and lines that could not be parsed."""
        for frame, bad in frames(self.reviews, _REVIEW, optional=("asin", "text")):
            rows = frame.select(
                "user_id",
                "rating",
                "text",
                item_id=pl.coalesce("parent_asin", "asin"),  # metadata has the parent of an item's variants alone
                timestamp=pl.col("timestamp") // _MILLISECONDS,
            )
            yield rows, bad

    def item_rows(self) -> Rows:
        """Yield items with their lists of related ids, and lines that could not be parsed."""
        shop = pl.col("main_category")
        for number, (frame, bad) in enumerate(frames(self.metadata, _ITEM, optional=("bought_together",))):
            if not number:
                no_other_file(
                    frame,
                    "categories",
                    "parent_asin",
                    f"{self.metadata}: no item has categories; are they the reviews?",
                )
            named = levels(pl.col("categories"))
            items = frame.select(
                "bought_together",
                item_id=pl.col("parent_asin"),
                title=pl.col("title"),
                description=prose("features", "description"),
                categories=pl.when(named.list.len() > 0).then(named).otherwise(pl.concat_list(shop).list.drop_nulls()),
                brand=brand(pl.coalesce(_detail("Brand"), pl.col("store"))),
                facts=item_facts(frame, _facts()),
            )
            yield items, bad


def _facts() -> dict[str, pl.Expr]:
    # Neither the mean rating nor the number of ratings: both count reviews that samples hold out.
    known = {"Main category": pl.col("main_category"), "Price": price(pl.col("price"))}
    for key, name in _DETAILS.items():
        known[name] = pl.coalesce(known[name], _detail(key)) if name in known else _detail(key)
    return known


def _detail(key: str) -> pl.Expr:
    return pl.col("details").str.json_path_match(f"$['{key}']")
