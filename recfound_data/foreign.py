"""Some columns of anybody's files, whatever they hold: CSV with any separator, JSON lines, Parquet."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl
import pyarrow.parquet as pq

from recfound_data.errors import RecfoundError
from recfound_data.files import form, opened, said
from recfound_data.records import Record, table_records
from recfound_data.sources import Block, Unparsable, csv_frame, decoded, json_lines, line_blocks, parquet_frames

Form = Literal["csv", "tsv", "jsonl", "parquet"]
_FORMS: dict[str, Form] = {
    "csv": "csv", "tsv": "tsv", "tab": "tsv", "jsonl": "jsonl", "ndjson": "jsonl", "json": "jsonl",
    "parquet": "parquet", "pq": "parquet",
}  # fmt: skip
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""Byte order marks, as spreadsheet programs write them."""
_BATCH_ROWS = 50_000
_LOOK_ROWS = 1_000
"""How many JSON lines are read to list a file's fields."""


@dataclass(frozen=True)
class Chunk:
    """Some rows of a file, the line of each (counted only when asked for), and the lines that could not be parsed.

    Values are text, nested ones as JSON; those of Parquet have the types that the file gives them, and rows for lines.
    """

    frame: pl.DataFrame
    lines: Callable[[], Sequence[int]]
    bad: list[Unparsable]


@dataclass(frozen=True)
class ForeignFile:
    """One file.

    Attributes:
        path: as `files.expand` names it.
        form: what it holds; empty tells it by its name.
        separator: between the values of a row; empty is a comma in CSV and a tab in TSV.
    """

    path: str
    form: Form | Literal[""] = ""
    separator: str = ""

    def columns(self, sought: Collection[str] = ()) -> list[str]:
        """Return the names of the columns, none where the file is empty.

        Of JSON lines those of the beginning, and of the `sought` those that stand further on.

        Raises:
            RecfoundError: the file cannot be read, its name does not tell what it is, or it is of no form that is read.
        """
        kind = self._kind()
        if kind == "parquet":
            return list(self._arrow().columns)
        block = next(line_blocks(self.path), None)
        if block is None:
            return []
        if block.data.startswith(_UTF_16):
            raise RecfoundError(f"{self.path}: is UTF-16; save it as UTF-8")
        if kind != "jsonl":
            header = decoded(block.data.split(b"\n", 1)[0]).removeprefix("\ufeff")
            try:
                return [name.strip() for name in next(csv.reader([header], delimiter=self._between()), [])]
            except csv.Error as error:
                raise RecfoundError(
                    f"{self.path}: line 1: is no row of columns ({error}); is it the right file?"
                ) from None
        names: dict[str, None] = {}
        for line in itertools.islice(block.data.split(b"\n"), _LOOK_ROWS):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue  # counted, with its line, where the file is read
            names |= dict.fromkeys(value if isinstance(value, dict) else ())
        first = block.data.lstrip().partition(b"\n")[0].strip()
        if first == b"[" or (first.startswith(b"[") and not names):
            raise RecfoundError(f"{self.path}: is one JSON list; write an object a line, as `jq -c '.[]'` does")
        return [*names, *(name for name in sought if name not in names and json.dumps(name).encode() in block.data)]

    def chunks(self, columns: Sequence[str]) -> Iterator[Chunk]:
        """Yield the rows with the named columns.

        Raises:
            RecfoundError: the file cannot be read, or lacks a column.
        """
        kind = self._kind()
        if kind == "parquet":
            yield from self._parquet(columns)
        elif kind == "jsonl":
            for block in line_blocks(self.path):
                frame, bad = json_lines(block, dict.fromkeys(columns, pl.String))
                yield Chunk(frame, _Lines(block, bad, len(frame)), bad)
        elif self._between() == "," and form(self.path) == "csv":
            header = b""
            for block in line_blocks(self.path):
                header = header or block.data[: block.data.find(b"\n") + 1] or block.data
                frame, bad = csv_frame(block, header, dict.fromkeys(columns, pl.String), needed=())
                yield Chunk(frame, _Lines(block, bad, len(frame), skipped=block.first_line == 1), bad)
        else:
            yield from self._records(columns)

    def _kind(self) -> Form:
        found = self.form or _FORMS.get(form(self.path))
        if not found:
            raise RecfoundError(
                f"{self.path}: its name does not tell what it is; add `form:` csv, tsv, jsonl or parquet"
            )
        return found

    def _between(self) -> str:
        return self.separator or ("\t" if self._kind() == "tsv" else ",")

    def _arrow(self) -> pl.DataFrame:
        """Return a frame without rows with the columns of a Parquet file."""
        try:
            with opened(self.path) as raw:
                # Without metadata: polars panics where they are no text.
                empty = pl.from_arrow(pq.ParquetFile(raw).schema_arrow.remove_metadata().empty_table())
        except (Exception, pl.exceptions.PanicException) as error:  # a file system's driver raises what it likes
            raise RecfoundError(f"{self.path}: is not a readable Parquet file ({said(error)})") from None
        assert isinstance(empty, pl.DataFrame), "a table is no series"
        return empty

    def _parquet(self, columns: Sequence[str]) -> Iterator[Chunk]:
        schema, before = self._arrow().schema, 0
        for frame in parquet_frames(self.path, {name: schema[name] for name in columns}, _BATCH_ROWS):
            rows = range(before + 1, before + 1 + len(frame))
            yield Chunk(frame, lambda rows=rows: rows, [])  # type: ignore[misc]
            before += len(frame)

    def _records(self, columns: Sequence[str]) -> Iterator[Chunk]:
        records = iter(table_records(self.path, columns, delimiter=self._between()))
        while some := list(itertools.islice(records, _BATCH_ROWS)):
            good = [record for record in some if isinstance(record, Record)]
            rows = [[record.values[name] for name in columns] for record in good]
            frame = pl.DataFrame(rows, dict.fromkeys(columns, pl.String), orient="row")
            lines = [record.line for record in good]
            yield Chunk(frame, lines.copy, [record for record in some if isinstance(record, Unparsable)])


@dataclass(frozen=True)
class _Lines:
    """The lines of a block's rows; where quoted line breaks hide them, that at which the block begins."""

    block: Block
    bad: list[Unparsable]
    rows: int
    skipped: bool = False

    def __call__(self) -> list[int]:
        broken = {fault.line for fault in self.bad}
        lines = list(enumerate(self.block.data.split(b"\n"), self.block.first_line))[self.skipped :]
        kept = [number for number, line in lines if line.strip() and number not in broken]
        return kept if len(kept) == self.rows else [self.block.first_line] * self.rows
