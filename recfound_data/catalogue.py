"""The catalogue of a corpus: its items with a title, cleaned, once each, and the text that a model reads of them."""

from __future__ import annotations

import polars as pl

from recfound_data.cleaning import SCRIPT_JUNK, clean, product_key, shorten
from recfound_data.tables import TABLES, CorpusTables

_TITLE_CHARS = 200


def global_id(corpus: str, item: pl.Expr) -> pl.Expr:
    """Return an item's id in the dataset, `<corpus>/<the corpus's own id>`: unique over corpora."""
    return pl.concat_str([pl.lit(corpus), item], separator="/")


def make_catalogue(tables: CorpusTables) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the catalogue and the items left out of it by reason.

    Columns: those of the configuration `items`, and `title_key`, equal for duplicates of one product.
    """
    raw = tables.read("items").select(list(TABLES["items"]))
    once = raw.unique("item_id", keep="first", maintain_order=True)
    named = once.with_columns(title=clean(pl.col("title"))).filter(pl.col("title") != "")
    items = named.filter(~pl.col("title").str.contains(SCRIPT_JUNK))
    drops = {
        "item repeated": len(raw) - len(once),
        "item without a title": len(once) - len(named),
        "item whose title is script": len(named) - len(items),
    }
    items = items.with_columns(
        title=shorten(pl.col("title"), _TITLE_CHARS),
        description=clean(pl.col("description")),
        brand=clean(pl.col("brand")),
        categories=_clean_list(items["categories"]),
    )
    catalogue = items.select(
        item_id=global_id(tables.corpus, pl.col("item_id")),
        corpus=pl.lit(tables.corpus),
        domain=pl.col("domain"),
        title=pl.col("title"),
        text=shorten(_text(), tables.recipe.item_text_chars),
        categories=pl.col("categories"),
        brand=pl.col("brand"),
        title_key=product_key(pl.col("title")),
    )
    return catalogue.sort("item_id"), drops


def _clean_list(values: pl.Series) -> pl.Series:
    frame = pl.DataFrame({"row": pl.arange(len(values), eager=True), "value": values})
    flat = frame.explode("value", empty_as_null=True, keep_nulls=True).with_columns(value=clean(pl.col("value")))
    kept = flat.filter(pl.col("value") != "").group_by("row", maintain_order=True).agg("value")
    return frame.select("row").join(kept, on="row", how="left", maintain_order="left")["value"].fill_null([])


def _text() -> pl.Expr:
    """Return title, brand, categories and description, a line each, the empty ones left out."""
    brand = pl.when(pl.col("brand") == "").then(None).otherwise(pl.concat_str([pl.lit("Brand: "), pl.col("brand")]))
    joined = pl.col("categories").list.join(", ")
    categories = pl.when(joined == "").then(None).otherwise(pl.concat_str([pl.lit("Categories: "), joined]))
    prose = pl.when(pl.col("description") == "").then(None).otherwise(pl.col("description"))
    return pl.concat_str([pl.col("title"), brand, categories, prose], separator="\n", ignore_nulls=True)
