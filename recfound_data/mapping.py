"""Columns of anybody's file as the typed columns of a table: texts, numbers, times, yes and no, lists and records."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping
from typing import Any

import polars as pl

from recfound_data.records import LONGEST_LITERAL
from recfound_data.tables import RELATIONS

TIME_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
"""How many of a unit are a second."""
_ISO = r"^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(:\d{2})?(?:[.,]\d+)?)?\s?(?:Z|UTC|([+-]\d{2}):?(\d{2}))?$"
_YES = {"true": True, "yes": True, "y": True, "t": True, "1": True}
_NO = {"false": False, "no": False, "n": False, "f": False, "0": False}
_SPLITS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test",
}  # fmt: skip
_GRADES = {
    "e": 3, "exact": 3, "s": 2, "substitute": 2, "c": 1, "complement": 1, "i": 0, "irrelevant": 0,
    **{str(grade): grade for grade in range(4)}, **{f"{grade}.0": grade for grade in range(4)},
}  # fmt: skip
_WORDS: dict[str, tuple[dict[str, Any], str]] = {
    "split": (_SPLITS, "one of train, validation, test"),
    "grade": (_GRADES, "a grade: 3 to 0, or E, S, C, I"),
    "relation": ({relation: relation for relation in RELATIONS}, f"one of {', '.join(RELATIONS)}"),
}
_SAID_CHARS = 40
_MEANT_AS_LIST = re.compile(r"""\[\s*["'{\[]""")
_SIDE_BY_SIDE = re.compile(r"""["']\s+["']""")
"""Texts without a comma between them, as NumPy prints them: read as Python, they would become one."""


def typed(
    column: pl.Series, name: str, dtype: Any, *, values: Mapping[str, str], unit: str = "", list_separator: str = "|"
) -> tuple[pl.Series, pl.Series]:
    """Return a column as one of a table, null where it is empty or unreadable, and what is unreadable, null elsewhere.

    Args:
        column: as the file has it: text, or what Parquet stores.
        name: of the table's column, which decides how a time, a split, a grade and a relation are read.
        dtype: of the table's column.
        values: what to read for a value, by its text.
        unit: of times, a key of `TIME_UNITS`; empty tells it by their size.
        list_separator: between the values of a list that is written as text.
    """
    if isinstance(dtype, pl.List):
        texts = dtype == pl.List(pl.String)
        made = _texts(column, values, list_separator) if texts else _records(column, dtype)
        kind = "a list of texts" if texts else f"a list of objects with {_fields(dtype)}"
    else:
        words = text(column)
        expression, kind = _scalar(name, dtype, unit)
        if name == "timestamp" and column.dtype.is_temporal():
            words, expression = column, pl.col("").cast(pl.Datetime("us")).dt.epoch("s")
        elif values:
            words = words.replace(dict(values))
        made = words.to_frame("").select(expression).to_series()
    nothing = pl.Series("fault", [None] * len(column), pl.String)
    if made.null_count() == column.null_count():
        return made.alias(name), nothing
    words = text(column).str.slice(0, _SAID_CHARS)
    unread = pl.DataFrame({"word": words, "unread": made.is_null() & words.is_not_null()})
    said = pl.format("{}: '{}' is not {}", pl.lit(name), "word", pl.lit(kind))
    return made.alias(name), unread.select(fault=pl.when("unread").then(said))["fault"]


def misunderstood(name: str, dtype: Any, word: str) -> str:
    """Return what a column's values should be if it takes some words only and `word` is none; empty otherwise."""
    meanings, kind = _WORDS.get(name, (_YES | _NO if dtype == pl.Boolean else {}, "true or false"))
    return kind if meanings and word.lower() not in meanings else ""


def _scalar(name: str, dtype: Any, unit: str) -> tuple[pl.Expr, str]:
    """Return how the text in the column called "" becomes a value, and what kind of value that is."""
    word = pl.col("").str.to_lowercase()
    if name == "timestamp":
        return _seconds(unit), "a time: seconds, milliseconds or ISO 8601"
    if name in _WORDS:
        meanings, kind = _WORDS[name]
        return word.replace_strict(meanings, default=None, return_dtype=dtype), kind
    if dtype == pl.Boolean:
        return word.replace_strict(_YES | _NO, default=None, return_dtype=dtype), "true or false"
    if dtype.is_float():
        number = pl.col("").cast(dtype, strict=False)
        return pl.when(number.is_finite()).then(number), "a number"
    if dtype == pl.String:
        # A whole number of a column with gaps is often written as a float, and would not be found in another table.
        return pl.col("").str.replace(r"^(\d+)\.0$", "$1") if name.endswith("_id") else pl.col(""), "a text"
    return pl.col("").cast(dtype, strict=False), "a whole number"


def text(column: pl.Series) -> pl.Series:
    """Return a column as text, null where it is empty; `12.0` of a column of whole floats is `12`, as an id is."""
    if column.dtype.is_float():
        whole = column.drop_nulls().drop_nans()
        if (whole == whole.floor()).all() and (whole.abs() < 2**53).all():
            column = column.fill_nan(None).cast(pl.Int64)
    if column.dtype.is_nested():
        column = pl.Series(column.name, [None if v is None else json.dumps(v) for v in column.to_list()], pl.String)
    try:
        words = column.cast(pl.String, strict=False).str.strip_chars()
    except pl.exceptions.PolarsError:  # a type that has no text, or bytes that are none
        words = pl.Series(column.name, [None if v is None else str(v) for v in column.to_list()], pl.String)
    return words.to_frame("").select(pl.when(pl.col("") != "").then(pl.col("")).alias(column.name))[column.name]


def _seconds(unit: str) -> pl.Expr:
    """Return times in seconds: numbers in their unit, or ISO 8601, which is UTC where it names no zone."""
    number = pl.col("").cast(pl.Float64, strict=False)
    exact = pl.col("").cast(pl.Int64, strict=False)  # nanoseconds are more than a float holds
    if unit:
        counted = pl.coalesce(
            exact // TIME_UNITS[unit], (number / TIME_UNITS[unit]).floor().cast(pl.Int64, strict=False)
        )
    else:
        size = number.abs()
        per = (
            pl.when(size < 1e11).then(1)  # the year 5138 in seconds, 1973 in milliseconds
            .when(size < 1e14).then(TIME_UNITS["ms"])
            .when(size < 1e17).then(TIME_UNITS["us"])
            .otherwise(TIME_UNITS["ns"])
        )  # fmt: skip
        counted = pl.coalesce(exact // per, (number / per).floor().cast(pl.Int64, strict=False))
    part = pl.col("").str.extract_groups(_ISO).struct
    clock = pl.concat_str(part["2"].fill_null("00:00"), part["3"].fill_null(":00"))
    moment = pl.concat_str(part["1"], clock, separator=" ").str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False)
    hours, minutes = (part[group].cast(pl.Int64, strict=False).fill_null(0) for group in ("4", "5"))
    sign = pl.when(part["4"].str.starts_with("-")).then(-1).otherwise(1)
    zone = hours * 3600 + sign * minutes * 60
    return pl.coalesce(counted, moment.dt.epoch("s") - zone)


def _texts(column: pl.Series, values: Mapping[str, str], separator: str) -> pl.Series:
    """Return a column of lists of texts: lists as they are, JSON and Python read, other text split at `separator`."""
    if not isinstance(column.dtype, pl.List):
        words = text(column)
        if words.str.starts_with("[").any():
            lists = [_list_of(word, separator) if word else None for word in words.to_list()]
            column = pl.Series(column.name, lists, pl.List(pl.String))
        else:
            column = (
                words.str.split(separator)
                if separator
                else words.to_frame("").select(pl.when(pl.col("").is_not_null()).then(pl.concat_list(""))).to_series()
            )
    elif column.dtype != pl.List(pl.String):
        column = _records(column, pl.List(pl.String))
    element = pl.element().str.strip_chars()
    stripped = pl.col("").list.eval(element.replace(dict(values)) if values else element)
    return column.to_frame("").select(stripped.list.filter(pl.element() != "")).to_series()


def _list_of(word: str, separator: str) -> list[str] | None:
    """Return what the text of a list holds; None where it is meant as JSON or Python and is broken."""
    try:
        return _shaped(_loaded(word), pl.List(pl.String))
    except ValueError:
        if _MEANT_AS_LIST.match(word):
            return None
        return word.split(separator) if separator else [word]


def _records(column: pl.Series, dtype: Any) -> pl.Series:
    """Return nested values, as they are or as text, in the shape of `dtype`; null where they have another."""
    shaped = []
    try:
        values = column.to_list()
    except pl.exceptions.PanicException:  # text that is none
        values = [None] * len(column)
    for value in values:
        try:
            shaped.append(None if value in (None, "") else _shaped(_loaded(value), dtype))
        except ValueError:
            shaped.append(None)
    return pl.Series(column.name, shaped, dtype)


def _loaded(value: Any) -> Any:
    """Return a value; one that is text is read as JSON, or as Python, which is what pandas writes into CSV.

    Raises:
        ValueError: the text is neither.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except RecursionError as error:
        raise ValueError(str(error)) from None
    except ValueError:
        if len(value) > LONGEST_LITERAL or _SIDE_BY_SIDE.search(value):
            raise
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know: they stand for themselves
            return ast.literal_eval(value)
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(str(error)) from None


def _fields(dtype: Any) -> str:
    return ", ".join(field.name for field in dtype.inner.fields)


def _shaped(value: Any, dtype: Any) -> Any:
    """Return a JSON value in the shape of `dtype`; an object of pairs is a list of two-field objects.

    Raises:
        ValueError: it has another shape.
    """
    if value is None:
        return None
    if isinstance(dtype, pl.List):
        names = [field.name for field in dtype.inner.fields] if isinstance(dtype.inner, pl.Struct) else []
        if isinstance(value, dict) and len(names) == 2 and not set(value) & set(names):
            value = [dict(zip(names, pair, strict=True)) for pair in value.items()]
        if not isinstance(value, list):
            raise ValueError("no list")
        return [_shaped(part, dtype.inner) for part in value if part is not None]
    if isinstance(dtype, pl.Struct):
        if not isinstance(value, dict) or not any(field.name in value for field in dtype.fields):
            raise ValueError("no object with such fields")
        return {field.name: _shaped(value.get(field.name), field.dtype) for field in dtype.fields}
    if not isinstance(value, str | int | float):
        raise ValueError("no text")
    return value if isinstance(value, str) else json.dumps(value)
