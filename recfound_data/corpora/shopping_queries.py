"""Shopping Queries (ESCI): queries, judged products and their texts, as Parquet, CSV or JSON lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Self

import polars as pl

from recfound_data.corpora.amazon import file_parts, item_facts
from recfound_data.sources import frames
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
_OPTIONAL = ("small_version", "large_version", "split")
_PRODUCT = {
    "product_id": pl.String,
    "product_title": pl.String,
    "product_description": pl.String,
    "product_bullet_point": pl.String,
    "product_brand": pl.String,
    "product_color": pl.String,
    "product_locale": pl.String,
}
_FED = dict(zip(_PRODUCT, ("id", "title", "description", "bullets", "brand", "color", "locale"), strict=True))
"""The names of a product's columns in the JSON lines that search engines are fed with, `{"put": ..., "fields": {}}`."""
_FIELDS = {"fields": pl.Struct(dict.fromkeys(_FED.values(), pl.String))}
GRADES = {"E": 3, "S": 2, "C": 1, "I": 0, "Exact": 3, "Substitute": 2, "Complement": 1, "Irrelevant": 0}
_ITEM_ID = pl.concat_str([pl.col("product_locale"), pl.col("product_id")], separator="-")


class ShoppingQueries(Source):
    """The Shopping Queries data set.

    Attributes:
        examples: path, glob or URL of `shopping_queries_dataset_examples.parquet`, or of examples as CSV or JSON lines.
        products: path, glob or URL of `shopping_queries_dataset_products.parquet`, or of products as CSV or JSON lines;
            where examples and products are joined in one file, that file again. Empty for none.
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
        if self.examples:
            yield from self._judgements()
        if self.products:
            yield from self._items()

    def parts(self) -> list[Self]:
        """Return a reader for each file."""
        return file_parts(self)

    def _judgements(self) -> Iterator[Batch]:
        for frame, bad in frames(self.examples, _EXAMPLE, optional=_OPTIONAL):
            complete = frame.drop_nulls(["query", "query_id", "product_id", "product_locale", "esci_label"])
            judged = complete.filter(pl.col("esci_label").is_in(list(GRADES)))
            # What says nothing of versions is the whole.
            within = pl.col("small_version") if self.version == "small" else pl.col("large_version").fill_null(1)
            wanted = self._of_locale(judged).filter(within == 1)
            judgements = wanted.select(
                query_id=pl.concat_str([pl.col("product_locale"), pl.col("query_id")], separator="-"),
                query=pl.col("query"),
                item_id=_ITEM_ID,
                grade=pl.col("esci_label").replace_strict(GRADES, return_dtype=pl.Int8),
                split=pl.col("split"),
                domain=self._domain(),
            )
            drops = {
                "judgement unparsable": len(bad),
                "judgement incomplete": len(frame) - len(complete),
                "judgement with an unknown label": len(complete) - len(judged),
                "judgement of another locale or version": len(judged) - len(wanted),
            }
            yield Batch("judgements", judgements.select(list(TABLES["judgements"])), drops, bad)

    def _items(self) -> Iterator[Batch]:
        fed = [pl.coalesce(name, pl.col("fields").struct.field(field)) for name, field in _FED.items()]
        for raw, bad in frames(self.products, _PRODUCT | _FIELDS, optional=tuple(_FIELDS)):
            frame = raw.select(fed)
            complete = frame.drop_nulls(["product_id", "product_locale"])
            wanted = self._of_locale(complete)
            once = wanted.unique(["product_id", "product_locale"], keep="first", maintain_order=True)
            colour = pl.col("product_color")
            named = pl.concat_str([pl.lit("Colour: "), colour, pl.lit(".")])
            parts = pl.col("product_bullet_point", "product_description").fill_null("")
            items = once.select(
                item_id=_ITEM_ID,
                title=pl.col("product_title"),
                description=pl.concat_str(
                    [pl.when(colour != "").then(named).otherwise(pl.lit("")), parts], separator=" "
                ),
                categories=pl.lit([], pl.List(pl.String)),
                brand=pl.col("product_brand"),
                domain=self._domain(),
                facts=item_facts(once, {"Colour": colour}),
            )
            drops = {
                "item unparsable": len(bad),
                "item without id": len(frame) - len(complete),
                "item of another locale": len(complete) - len(wanted),
                "item repeated": len(wanted) - len(once),
            }
            yield Batch("items", items, drops, bad)

    def _of_locale(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.filter(pl.col("product_locale").is_in(list(self.locales))) if self.locales else frame

    def _domain(self) -> pl.Expr:
        return pl.concat_str([pl.lit(self.domain or "Shopping"), pl.col("product_locale")], separator=" ")
