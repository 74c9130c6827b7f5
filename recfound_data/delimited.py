"""Text whose values are split by a separator and never quoted, a block of lines at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import polars as pl

from recfound_data.errors import RecfoundError
from recfound_data.sources import Block, Unparsable, text_lines

_LINE, _ENOUGH, _FAULT = "\x00line", "\x00enough", "\x00fault"  # no column of a file is called so


def split_block(
    block: Block,
    schema: Mapping[str, Any],
    separator: str,
    *,
    wide: str = "",
    optional: Collection[str] = (),
) -> tuple[pl.DataFrame, list[Unparsable]]:
    """Return the lines of a block as columns, and those that do not fit; see `split_lines`."""
    return split_lines(text_lines(block), block.path, schema, separator, wide=wide, optional=optional)


def split_lines(
    lines: pl.DataFrame,
    path: str,
    schema: Mapping[str, Any],
    separator: str,
    *,
    wide: str = "",
    optional: Collection[str] = (),
) -> tuple[pl.DataFrame, list[Unparsable]]:
    """Return lines as columns, and those that do not fit.

    Args:
        lines: `number` and `line`, as `sources.text_lines` gives them.
        path: where they are from.
        schema: the columns in their order, with their polars types.
        separator: between values, literally.
        wide: the column whose values may hold the separator itself.
        optional: columns that may be empty; elsewhere an empty value makes its line one that does not fit.

    Raises:
        RecfoundError: the file begins with these lines, more than one, and none of them fits.
    """
    names = list(schema)
    fields = pl.col("line").str.split(separator)
    count = fields.list.len()
    before = names.index(wide) if wide else len(names)
    values = []
    for place, name in enumerate(names):
        if name == wide:
            value = fields.list.slice(place, count - len(names) + 1).list.join(separator)
        else:
            value = fields.list.get(place if place < before else place - len(names), null_on_oob=True)
        text = value.str.strip_chars()
        values.append(pl.when(text != "").then(text).alias(name))
    enough = (count >= len(names)) if wide else (count == len(names))
    frame = lines.select(pl.col("number").alias(_LINE), enough.alias(_ENOUGH), *values)
    typed = {name: pl.col(name).cast(dtype, strict=False) for name, dtype in schema.items()}
    fits = pl.all_horizontal(
        typed[name].is_not_null() | (pl.col(name).is_null() if name in optional else pl.lit(False)) for name in names
    )
    fault = (
        pl.when(~pl.col(_ENOUGH))
        .then(pl.lit(f"expected {len(names)} values between {separator!r}"))
        .when(~fits)
        .then(pl.lit("a value is missing or of the wrong type"))
    )
    frame = frame.with_columns(fault.alias(_FAULT))
    bad = [
        Unparsable(path, number, why)
        for number, why in frame.filter(pl.col(_FAULT).is_not_null()).select(_LINE, _FAULT).iter_rows()
    ]
    if 1 < len(bad) == len(frame) and bad[0].line <= 2:
        raise RecfoundError(f"{path}: line {bad[0].line}: {bad[0].why}, and so in every line; is it the right file?")
    good = frame.filter(pl.col(_FAULT).is_null()) if bad else frame
    return good.select(value.alias(name) for name, value in typed.items()), bad
