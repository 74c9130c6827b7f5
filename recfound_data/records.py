"""Files that are read record by record: tables with quoted line breaks, JSON and Python literals.

For corpora of up to a few million records; `sources` reads the large ones a block at a time. Lines that are no UTF-8
are read as Latin-1.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from recfound_data.errors import RecfoundError
from recfound_data.sources import Block, Unparsable, csv_records, decoded, line_blocks, require
from recfound_data.tables import TABLES, Batch

Values = dict[str, Any]
_BATCH_ROWS = 10_000
_LARGEST_DOCUMENT = 32 << 20
"""In bytes: JSON that is read at once takes up to thirty times as much memory."""
LONGEST_LITERAL = 2 << 20
"""In characters: Python's parser takes up to 250 bytes for each."""
_LARGEST_LIST = 256 << 20
"""In bytes: a list is held as text, its values one by one."""
_SPACE = re.compile(r"[ \t\n\r]*")


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
    frame, lost = frame_of(table, rows)
    drops["record with a value of the wrong type"] += lost
    return Batch(table, frame, dict(+drops), bad)


def frame_of(table: str, rows: list[Values]) -> tuple[pl.DataFrame, int]:
    """Return rows as those of a table, columns that they lack null, and how many had a value of another type."""
    schema = TABLES[table]

    def made(some: list[Values]) -> pl.DataFrame | None:
        try:
            return pl.DataFrame([{name: row.get(name) for name in schema} for row in some], schema=schema)
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
            return None

    frame = made(rows)
    if frame is not None:
        return frame, 0
    parts = [part for row in rows if (part := made([row])) is not None]
    return pl.concat([pl.DataFrame(schema=schema), *parts]), len(rows) - len(parts)


def json_records(pattern: str) -> Iterator[Record | Unparsable]:
    """Yield the objects of JSON lines, an object a line."""
    return (record for block in line_blocks(pattern) for record in _lines(block, json.loads))


def literal_records(pattern: str) -> Iterator[Record | Unparsable]:
    """Yield the dictionaries of a file that holds a Python literal a line, as Amazon's 2014 files do."""
    return (record for block in line_blocks(pattern) for record in block_literals(block))


def block_literals(block: Block) -> Iterator[Record | Unparsable]:
    """Yield the dictionaries of a block of Python literals."""
    return _lines(block, _literal)


def _literal(text: str) -> Any:
    if len(text) > LONGEST_LITERAL:
        raise ValueError(f"a literal of {len(text):,} characters is too long")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes that Python does not know: they stand for themselves
        return ast.literal_eval(text)


def _lines(block: Block, parse: Callable[[str], Any]) -> Iterator[Record | Unparsable]:
    for number, line in enumerate(block.data.split(b"\n"), block.first_line):
        if not line.strip():
            continue
        try:
            values = parse(decoded(line).strip())
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
            yield Unparsable(block.path, number, " ".join(str(error).split())[:200])
            continue
        if isinstance(values, dict):
            escaped = b"\\u" in line or b"\\U" in line
            yield Record(block.path, number, _encodable(values) if escaped else values)
        else:
            yield Unparsable(block.path, number, f"expected an object, found {type(values).__name__}")


_SURROGATES = re.compile("[\ud800-\udfff]+")


def _encodable(value: Any) -> Any:
    """Return a value whose texts are valid Unicode: escaped surrogates are joined, or replaced where they have no pair.

    JSON's parser joins them itself; Python literals and broken JSON leave halves, which no file format takes.
    """
    if isinstance(value, str):
        return _SURROGATES.sub(lambda m: m[0].encode("utf-16", "surrogatepass").decode("utf-16", "replace"), value)
    if isinstance(value, dict):
        return {_encodable(key): _encodable(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(held) for held in value]
    return value


def json_document(pattern: str) -> Iterator[tuple[str, Any]]:
    """Yield each file's path and what it holds: one JSON value a file.

    Raises:
        RecfoundError: a file is no JSON.
    """
    for path, data in whole_files(pattern):
        try:
            value = json.loads(decoded(data))
            yield path, _encodable(value) if b"\\u" in data or b"\\U" in data else value
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
    style: dict[str, Any] = {"quoting": csv.QUOTE_NONE} if quote is None else {"quotechar": quote}
    for path, lines in _files_of_lines(pattern):
        try:
            header = [name.strip() for name in next(csv.reader(lines, delimiter=delimiter, **style), [])]
        except csv.Error as error:
            raise RecfoundError(f"{path}: line 1: is no row of columns ({error}); is it the right file?") from None
        require(columns, header, f"{path}: line 1")
        for line, row in csv_records(lines, 2, len(header), delimiter=delimiter, **style):
            if isinstance(row, str):
                yield Unparsable(path, line, row)
            else:
                yield Record(path, line, dict(zip(header, row, strict=True)))


def _files_of_lines(pattern: str) -> Iterator[tuple[str, Iterator[str]]]:
    """Yield each file's path and its lines; a file's lines are to be taken before the next file."""
    blocks = line_blocks(pattern)
    block = next(blocks, None)

    def lines(path: str) -> Iterator[str]:
        nonlocal block
        while block is not None and block.path == path:
            yield from map(decoded, io.BytesIO(block.data))
            block = next(blocks, None)

    while block is not None:
        yield block.path, lines(block.path)


def json_items(path: str) -> Iterator[tuple[int, Any]]:
    """Yield the values of a file that holds one JSON list, numbered from 1, one in memory at a time.

    Raises:
        RecfoundError: it is no JSON list, or larger than `_LARGEST_LIST`.
    """
    decoder = json.JSONDecoder()
    for _, data in whole_files(path, _LARGEST_LIST):
        text = decoded(data)
        escaped = b"\\u" in data or b"\\U" in data
        at, number = _next(text, _next(text, 0) + 1), 0
        try:
            while text[at : at + 1] != "]":
                value, at = decoder.raw_decode(text, at)
                number, at = number + 1, _next(text, at)
                yield number, _encodable(value) if escaped else value
                if text[at : at + 1] == ",":
                    at = _next(text, at + 1)
                elif text[at : at + 1] != "]":
                    raise ValueError(f"expected a comma after value {number:,}")
        except (ValueError, RecursionError) as error:
            raise RecfoundError(f"{path}: is no valid JSON ({error}); download it again") from None


def _next(text: str, at: int) -> int:
    """Return the first place from `at` on that is no white space."""
    found = _SPACE.match(text, at)
    assert found is not None, "no white space is white space too"
    return found.end()


def whole_files(pattern: str, largest: int = _LARGEST_DOCUMENT) -> Iterator[tuple[str, bytes]]:
    """Yield each file's path and bytes, decompressed.

    Raises:
        RecfoundError: a file is larger than `largest` bytes.
    """
    current, parts = "", list[bytes]()
    for block in line_blocks(pattern):
        if block.path != current and parts:
            yield current, b"".join(parts)
            parts = []
        current = block.path
        parts.append(block.data)
        if sum(map(len, parts)) > largest:
            raise RecfoundError(
                f"{current}: is larger than {largest >> 20} MiB and one document; split it, or write an object "
                "a line, as `jq -c '.[]'` does"
            )
    if parts:
        yield current, b"".join(parts)
