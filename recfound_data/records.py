"""Files that are read record by record: tables with quoted line breaks, JSON and Python literals.

For corpora of up to a few million records; `sources` reads the large ones a block at a time.
"""

from __future__ import annotations

import ast
import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from recfound_data.errors import RecfoundError
from recfound_data.sources import Unparsable, line_blocks
from recfound_data.tables import TABLES, Batch

Values = dict[str, Any]
_BATCH_ROWS = 10_000


@dataclass(frozen=True)
class Record:
    """One record of a file: where it begins and its values by name."""

    path: str
    line: int
    values: Values


def in_batches(
    table: str, records: Iterable[Record | Unparsable], rows: Callable[[Values], list[Values] | str]
) -> Iterator[Batch]:
    """Yield batches of `table`.

    Args:
        table: a name of `TABLES`; columns that a row lacks are null.
        records: as the functions below yield them.
        rows: turns a record into rows of the table, or says why it is dropped.
    """
    kept: list[Values] = []
    drops: Counter[str] = Counter()
    bad: list[Unparsable] = []
    for record in records:
        if isinstance(record, Unparsable):
            bad.append(record)
            continue
        made = rows(record.values)
        if isinstance(made, str):
            drops[made] += 1
        else:
            kept += made
        if len(kept) + len(bad) >= _BATCH_ROWS:
            yield _batch(table, kept, drops, bad)
            kept, drops, bad = [], Counter(), []
    yield _batch(table, kept, drops, bad)


def _batch(table: str, rows: list[Values], drops: Counter[str], bad: list[Unparsable]) -> Batch:
    if bad:
        drops["record unparsable"] += len(bad)
    schema = TABLES[table]
    frame = pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)
    return Batch(table, frame, dict(drops), bad)


def json_records(pattern: str) -> Iterator[Record | Unparsable]:
    """Yield the objects of JSON lines, an object a line."""
    return _lines(pattern, json.loads)


def literal_records(pattern: str) -> Iterator[Record | Unparsable]:
    """Yield the dictionaries of a file that holds a Python literal a line, as Amazon's 2014 files do."""
    return _lines(pattern, ast.literal_eval)


def _lines(pattern: str, parse: Callable[[str], Any]) -> Iterator[Record | Unparsable]:
    for block in line_blocks(pattern):
        for number, line in enumerate(block.data.split(b"\n"), block.first_line):
            if not line.strip():
                continue
            try:
                values = parse(decoded(line).strip())
            except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
                yield Unparsable(block.path, number, " ".join(str(error).split())[:200])
                continue
            if isinstance(values, dict):
                yield Record(block.path, number, values)
            else:
                yield Unparsable(block.path, number, f"expected an object, found {type(values).__name__}")


def json_document(pattern: str) -> Iterator[tuple[str, Any]]:
    """Yield each file's path and what it holds: one JSON value a file.

    Raises:
        RecfoundError: a file is no JSON.
    """
    for path, data in whole_files(pattern):
        try:
            yield path, json.loads(decoded(data))
        except (ValueError, RecursionError) as error:
            raise RecfoundError(f"{path}: is no valid JSON ({error}); download it again") from None


def table_records(
    pattern: str, columns: Iterable[str], *, delimiter: str = ",", quote: str | None = '"'
) -> Iterator[Record | Unparsable]:
    """Yield the rows of delimited text with a header; every value is a str.

    Args:
        pattern: path, glob or URL.
        columns: what the header must hold.
        delimiter: between values.
        quote: what values are quoted with, line breaks and all; None where nothing is quoted.

    Raises:
        RecfoundError: a file lacks a column.
    """
    csv.field_size_limit(1 << 30)
    for path, data in whole_files(pattern):
        text = io.StringIO(decoded(data).removeprefix("\ufeff"), newline="")
        style: dict[str, Any] = {"quoting": csv.QUOTE_NONE} if quote is None else {"quotechar": quote}
        lines = csv.reader(text, delimiter=delimiter, **style)
        header = [name.strip() for name in next(lines, [])]
        missing = [name for name in columns if name not in header]
        if missing:
            raise RecfoundError(f"{path}: line 1: has no column {missing[0]!r}; it has {', '.join(header)}")
        begins = lines.line_num + 1
        for row in lines:
            if len(row) == len(header):
                yield Record(path, begins, dict(zip(header, row, strict=True)))
            elif row:
                yield Unparsable(path, begins, f"expected {len(header)} values, found {len(row)}")
            begins = lines.line_num + 1


def whole_files(pattern: str) -> Iterator[tuple[str, bytes]]:
    """Yield each file's path and bytes, decompressed."""
    current, parts = "", list[bytes]()
    for block in line_blocks(pattern):
        if block.path != current and parts:
            yield current, b"".join(parts)
            parts = []
        current = block.path
        parts.append(block.data)
    if parts:
        yield current, b"".join(parts)


def decoded(data: bytes) -> str:
    """Return `data` as text: UTF-8, or Latin-1 where it is none."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
