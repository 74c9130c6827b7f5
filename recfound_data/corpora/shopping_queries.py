"""Shopping Queries (ESCI): queries, judged products and their texts, in the official Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import polars as pl

from recfound_data.sources import parquet_frames
from recfound_data.tables import TABLES, Batch, People, Source, Terms

_EXAMPLE = {
    "query": pl.String,
    "query_id": pl.String,
    "product_id": pl.String,
    "product_locale": pl.String,
    "esci_label": pl.String,
    "small_version": pl.Int64,
    "large_version": pl.Int64,
    "split": pl.String,
}
_PRODUCT = {
    "product_id": pl.String,
    "product_title": pl.String,
    "product_description": pl.String,
    "product_bullet_point": pl.String,
    "product_brand": pl.String,
    "product_color": pl.String,
    "product_locale": pl.String,
}
GRADES = {"E": 3, "S": 2, "C": 1, "I": 0}


class ShoppingQueries(Source):
    """The Shopping Queries data set.

    Attributes:
        examples: path, glob or URL of `shopping_queries_dataset_examples.parquet`.
        products: path, glob or URL of `shopping_queries_dataset_products.parquet`.
        locales: keep these locales (`us`, `es`, `jp`); empty keeps all.
        version: `small` keeps the harder, reduced version that the ranking task is defined on.
    """

    corpus: Literal["shopping_queries"] = "shopping_queries"
    examples: str
    products: str
    locales: tuple[str, ...] = ()
    version: Literal["small", "large"] = "large"

    path_fields: ClassVar[tuple[str, ...]] = ("examples", "products")
    terms: ClassVar[Terms] = Terms(
        title="Shopping Queries Dataset",
        address="https://github.com/amazon-science/esci-data",
        licence="Apache-2.0",
        citation="Chandan K. Reddy et al. Shopping Queries Dataset: A Large-Scale ESCI Benchmark for Improving Product "
        "Search. arXiv 2206.06588, 2022.",
        redistributable=True,
    )

    def batches(self, people: People) -> Iterator[Batch]:  # noqa: ARG002  (no people in this corpus)
        """Yield judgements from the examples, then items from the products."""
        for frame in parquet_frames(self.examples, _EXAMPLE):
            complete = frame.drop_nulls(["query", "query_id", "product_id", "product_locale", "esci_label"])
            judged = complete.filter(pl.col("esci_label").is_in(list(GRADES)))
            wanted = self._locale(judged).filter(pl.col(f"{self.version}_version") == 1)
            locale = pl.col("product_locale")
            judgements = wanted.select(
                query_id=pl.concat_str([locale, pl.col("query_id")], separator="-"),
                query=pl.col("query"),
                item_id=pl.concat_str([locale, pl.col("product_id")], separator="-"),
                grade=pl.col("esci_label").replace_strict(GRADES, return_dtype=pl.Int8),
                split=pl.col("split"),
                domain=self._domain(),
            )
            drops = {
                "judgement incomplete": len(frame) - len(complete),
                "judgement with an unknown label": len(complete) - len(judged),
                "judgement of another locale or version": len(judged) - len(wanted),
            }
            yield Batch("judgements", judgements.select(list(TABLES["judgements"])), drops)
        for frame in parquet_frames(self.products, _PRODUCT):
            complete = frame.drop_nulls(["product_id", "product_locale"])
            wanted = self._locale(complete)
            named = pl.concat_str([pl.lit("Colour: "), pl.col("product_color"), pl.lit(".")])
            colour = pl.when(pl.col("product_color") != "").then(named).otherwise(pl.lit(""))
            prose = pl.concat_str(
                [colour, pl.col("product_bullet_point", "product_description").fill_null("")], separator=" "
            )
            items = wanted.select(
                item_id=pl.concat_str([pl.col("product_locale"), pl.col("product_id")], separator="-"),
                title=pl.col("product_title"),
                description=prose,
                categories=pl.lit([], pl.List(pl.String)),
                brand=pl.col("product_brand"),
                domain=self._domain(),
            )
            drops = {
                "item without id": len(frame) - len(complete),
                "item of another locale": len(complete) - len(wanted),
            }
            yield Batch("items", items, drops)

    def _locale(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.filter(pl.col("product_locale").is_in(list(self.locales))) if self.locales else frame

    def _domain(self) -> pl.Expr:
        return pl.concat_str([pl.lit(self.domain or "Shopping"), pl.col("product_locale")], separator=" ")
