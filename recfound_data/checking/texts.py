"""Rules for every text: it is there, it is not too long; and texts out of lists and chat messages."""

from __future__ import annotations

import polars as pl

from recfound_data.checking.findings import Findings

ANCHOR_CHARS = 8_000
PROMPT_CHARS = 20_000
COMPLETION_CHARS = 4_000
"""The longest anchor, prompt and completion, in characters; tasks keep far below."""


def spoken(frame: pl.DataFrame, column: str) -> pl.Series:
    """Return one text a row: the column, its texts or what its messages say, a line each."""
    dtype = frame.schema[column]
    if dtype == pl.String:
        return frame[column]
    assert isinstance(dtype, pl.List)
    element = pl.element() if dtype == pl.List(pl.String) else pl.element().struct.field("content")
    return frame.select(pl.col(column).list.eval(element).list.join("\n")).to_series()


def check_nulls(frame: pl.DataFrame, config: str, name: str, findings: Findings) -> pl.DataFrame:
    """Report values that are missing, in columns or inside lists, and return the rows with empty ones for them."""
    filled = []
    for column, dtype in frame.schema.items():
        if frame[column].null_count():
            faulty = pl.col(column).is_null()
            filled.append(pl.col(column).fill_null([] if isinstance(dtype, pl.List) else dtype.to_python()()))
        elif isinstance(dtype, pl.List) and _lacks_inside(frame[column]):
            faulty = pl.col(column).list.eval(_missing(dtype)).list.any()
        else:
            continue
        findings.rows("value missing", f"{config}.{column}", frame.filter(faulty), name)
    return frame.with_columns(filled) if filled else frame


def _lacks_inside(lists: pl.Series) -> bool:
    # Arrow's flattened lists are a view: no text is copied to count what is missing.
    values = lists.to_arrow().flatten()
    return bool(
        values.null_count or any(field.null_count for field in (values.flatten() if values.type.num_fields else ()))
    )


def _missing(dtype: pl.DataType) -> pl.Expr:
    assert isinstance(dtype, pl.List)
    if not isinstance(dtype.inner, pl.Struct):
        return pl.element().is_null()
    return pl.any_horizontal(
        pl.element().is_null(), *(pl.element().struct.field(field.name).is_null() for field in dtype.inner.fields)
    )
