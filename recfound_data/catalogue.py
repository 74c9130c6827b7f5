"""The catalogue of a corpus: its items with a title, cleaned, once each, and the text that a model reads of them.

An item is known inside a build by its row number in the catalogue, `item`. The catalogue lies on disk as an Arrow file
that is mapped, not read: texts cost memory only where they are used, and workers share them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pyarrow as pa

from recfound_data.cleaning import SCRIPT_JUNK, clean, product_key, shorten
from recfound_data.identity import hash64
from recfound_data.recipe import DataRecipe
from recfound_data.tables import TABLES

_TITLE_CHARS = 200


def global_id(corpus: str, item: pl.Expr) -> pl.Expr:
    """Return an item's id in the dataset, `<corpus>/<the corpus's own id>`: unique over corpora."""
    return pl.concat_str([pl.lit(corpus), item], separator="/")


def own_id(corpus: str, item: pl.Expr) -> pl.Expr:
    """Return the corpus's own id of an item: the opposite of `global_id`."""
    return item.str.strip_prefix(f"{corpus}/")


def make_catalogue(
    parts: Iterable[pl.DataFrame], corpus: str, recipe: DataRecipe
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the catalogue, sorted by `item_id`, and the items left out of it by reason.

    Columns: those of the configuration `items`; `facts`; `item`, the row number; `product`, equal for duplicates of one
    product; `title_key`, the words that make it so; and stable hashes of 64 bits, `id_hash`, `title_hash` and
    `text_hash`.

    Args:
        parts: rows of the table `items`; raw texts of one part at a time are held.
        corpus: its name in the dataset.
        recipe: of the build.
    """
    empty = pl.DataFrame(schema=TABLES["items"])
    read = pl.concat([_read(part, corpus, recipe) for part in (empty, *parts)])
    once = read.unique("item_id", keep="first", maintain_order=True)
    named = once.filter(pl.col("title") != "")
    items = named.filter(~pl.col("script")).drop("script")
    drops = {
        "item repeated": len(read) - len(once),
        "item without a title": len(once) - len(named),
        "item whose title is script": len(named) - len(items),
    }
    catalogue = items.with_columns(title_key=product_key(pl.col("title"))).sort("item_id")
    return catalogue.with_columns(
        item=pl.int_range(pl.len(), dtype=pl.UInt32),
        product=pl.col("title_key").rank("dense").cast(pl.UInt32),
        id_hash=hash64(pl.col("item_id")),
        title_hash=hash64(pl.col("title")),
        text_hash=hash64(pl.col("text")),
    ), drops


def _read(raw: pl.DataFrame, corpus: str, recipe: DataRecipe) -> pl.DataFrame:
    """Return items as they are read, cleaned and cut, and whether a title is `script`."""
    items = raw.select(list(TABLES["items"])).with_columns(title=clean(pl.col("title")))
    items = items.with_columns(
        script=pl.col("title").str.contains(SCRIPT_JUNK),
        title=shorten(pl.col("title"), _TITLE_CHARS),
        description=clean(pl.col("description")),
        brand=clean(pl.col("brand")),
        categories=_clean_list(items["categories"]),
    )
    return items.select(
        item_id=global_id(corpus, pl.col("item_id")),
        corpus=pl.lit(corpus),
        domain=pl.col("domain").fill_null(corpus),
        title=pl.col("title"),
        text=shorten(_text(), recipe.item_text_chars),
        categories=pl.col("categories"),
        brand=pl.col("brand"),
        facts=pl.col("facts").fill_null([]),
        script=pl.col("script"),
    )


def write_mapped(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame so that `read_mapped` can map it."""
    frame.rechunk().write_ipc(path, compression="uncompressed", record_batch_size=max(len(frame), 1))


def read_mapped(path: Path) -> pl.DataFrame:
    """Return a frame whose columns stay in the file until they are touched."""
    # polars reads an Arrow file into memory; pyarrow maps it.
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame), "a table is no series"
    return frame


def _clean_list(values: pl.Series) -> pl.Series:
    frame = pl.DataFrame({"row": pl.arange(len(values), eager=True), "value": values})
    flat = frame.explode("value", empty_as_null=True, keep_nulls=True).with_columns(value=clean(pl.col("value")))
    kept = flat.filter(pl.col("value") != "").group_by("row", maintain_order=True).agg("value")
    return frame.select("row").join(kept, on="row", how="left", maintain_order="left")["value"].fill_null([])


def _text() -> pl.Expr:
    """Return title, maker, categories and description, a line each, the empty ones left out.

    `By` is said of brands and of authors alike.
    """
    brand = pl.when(pl.col("brand") == "").then(None).otherwise(pl.concat_str([pl.lit("By: "), pl.col("brand")]))
    joined = pl.col("categories").list.join(", ")
    categories = pl.when(joined == "").then(None).otherwise(pl.concat_str([pl.lit("Categories: "), joined]))
    prose = pl.when(pl.col("description") == "").then(None).otherwise(pl.col("description"))
    return pl.concat_str([pl.col("title"), brand, categories, prose], separator="\n", ignore_nulls=True)
