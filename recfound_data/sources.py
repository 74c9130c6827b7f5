"""Raw files, local or at any fsspec URL, plain or compressed, as blocks of whole lines or Parquet batches."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recfound_data.errors import RecfoundError
from recfound_data.files import METER, decompressed, expand, form, opened, said

BLOCK_BYTES = 16 << 20
_LONGEST_RECORD = 4
"""In blocks: a quote that is still open after as many is taken for a stray one, and no line is longer."""
_MOST_LINES = 1 << 20
"""Of a block: short lines become many rows, whose columns take far more memory than the lines."""
_HOPELESS_LINES = 1_000
"""So many lines at the beginning of a file, none of which can be parsed, are the wrong file and not bad luck."""
_SHOWN_NAMES, _SHOWN_CHARS = 30, 60
"""Of columns in a message."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TEXT_BYTES = b"\t\r\n" + bytes(range(0x20, 0x100))
"""What a line of text may hold in any encoding that continues ASCII; compressed data hold others too."""
_RIGHT_FILE = "is it the right file?"
_POINTER = b"version https://git-lfs.github.com/spec/"
"""How the stand-in begins that Git LFS leaves for a file that was not fetched, whatever its name."""


@dataclass(frozen=True)
class Block:
    """Whole lines of one file: where it is from, the number of its first line (from 1), and its bytes."""

    path: str
    first_line: int
    data: bytes


@dataclass(frozen=True)
class Unparsable:
    """A line that its reader could not parse."""

    path: str
    line: int
    why: str


def line_blocks(pattern: str, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """Yield every file behind `pattern`, decompressed, in blocks of about `block_bytes` that end with a line.

    A block of a `.csv` file never ends within a quoted value. A byte order mark is left out. While the caller works on
    a block, the next one is read in a thread.

    Raises:
        RecfoundError: a file is missing, its compression is truncated or damaged, or a line is longer than four blocks.
    """
    with closing(_blocks(pattern, block_bytes)) as blocks, ThreadPoolExecutor(1, "read-ahead") as thread:
        coming = thread.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = thread.submit(next, blocks, None)
            yield block


def _blocks(pattern: str, block_bytes: int) -> Generator[Block, None, None]:
    for path in expand(pattern):
        quoted = form(path) == "csv"
        line, rest, read, place = 1, b"", 0, 0
        try:
            with opened(path) as raw, decompressed(raw, path) as stream:
                while chunk := stream.read(block_bytes):
                    place = METER.follow(raw, place)
                    if not read and chunk.startswith(_POINTER):
                        raise _not_fetched(path)
                    data = rest + (chunk if read else chunk.removeprefix(_BYTE_ORDER_MARK))
                    read += len(chunk)
                    cut = data.rfind(b"\n") + 1
                    if quoted and len(data) < _LONGEST_RECORD * block_bytes:
                        cut = _unquoted(data, cut)
                    for block in _short(Block(path, line, data[:cut]), quoted):
                        yield block
                        line += block.data.count(b"\n")
                    rest = data[cut:]
                    if len(rest) > _LONGEST_RECORD * max(block_bytes, BLOCK_BYTES):
                        raise RecfoundError(f"{path}: line {line}: is longer than {len(rest) >> 20} MiB; {_RIGHT_FILE}")
        except RecfoundError:
            raise
        except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, pa.ArrowInvalid) as error:
            if isinstance(error, gzip.BadGzipFile) and _is_pointer(path):
                raise _not_fetched(path) from None
            raise RecfoundError(
                f"{path}: truncated or damaged after {read:,} bytes ({said(error)}); download it again"
            ) from None
        except Exception as error:  # as in `files`
            raise RecfoundError(f"{path}: cannot be read after {read:,} bytes: {said(error)}") from None
        if rest:
            yield Block(path, line, rest)


def _short(block: Block, quoted: bool) -> Iterator[Block]:
    """Yield a block as blocks of about `_MOST_LINES` lines or less, cut outside of quotes where it is `quoted`."""
    line, data, start = block.first_line, block.data, 0
    if data.count(b"\n") > _MOST_LINES:
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))[_MOST_LINES - 1 :: _MOST_LINES] + 1
        for end in ends.tolist():
            part = data[start:end]
            if quoted:
                part = part[: _unquoted(part, len(part))]
            if part:
                yield Block(block.path, line, part)
                start, line = start + len(part), line + part.count(b"\n")
        data = data[start:]
    if data:
        yield Block(block.path, line, data)


def _is_pointer(path: str) -> bool:
    with opened(path) as raw:
        return bool(raw.read(len(_POINTER)) == _POINTER)


def _not_fetched(path: str) -> RecfoundError:
    return RecfoundError(f"{path}: is a pointer of Git LFS and not the file; fetch it with `git lfs pull`")


def _unquoted(data: bytes, cut: int) -> int:
    """Return the last place not behind `cut` at which a line ends outside of quotes; 0 where there is none."""
    quotes = data.count(b'"', 0, cut)
    while cut and quotes % 2:
        before = data.rfind(b"\n", 0, cut - 1) + 1
        quotes -= data.count(b'"', before, cut)
        cut = before
    return cut


def parquet_frames(
    pattern: str, columns: dict[str, Any], rows: int = 100_000, optional: Collection[str] = ()
) -> Iterator[pl.DataFrame]:
    """Yield the named columns of every Parquet file behind `pattern`, cast to `columns`' polars types.

    Args:
        pattern: path, glob or URL.
        columns: the columns wanted, with their polars types.
        rows: most rows of a frame.
        optional: columns that a file may lack; they are null then.

    Raises:
        RecfoundError: a file is missing, is no Parquet, or lacks a column.
    """
    for path in expand(pattern):
        try:
            with opened(path) as raw:
                file = pq.ParquetFile(raw)
                names = file.schema_arrow.names
                require([name for name in columns if name not in optional], names, path)
                present = [name for name in columns if name in names]
                for batch in file.iter_batches(batch_size=rows, columns=present):
                    frame = pl.DataFrame(batch.replace_schema_metadata(None))  # polars panics where they are no text
                    yield frame.select(
                        (pl.col(name) if name in present else pl.lit(None)).cast(dtype, strict=False).alias(name)
                        for name, dtype in columns.items()
                    )
        except RecfoundError:
            raise
        except (
            pa.ArrowException,
            pl.exceptions.PolarsError,
            pl.exceptions.PanicException,
            zipfile.BadZipFile,
        ) as error:
            if isinstance(error, pa.ArrowInvalid) and _is_pointer(path):
                raise _not_fetched(path) from None
            raise RecfoundError(f"{path}: is not a readable Parquet file ({said(error)}); download it again") from None
        except Exception as error:  # as in `files`
            raise RecfoundError(f"{path}: cannot be read: {said(error)}") from None


def require(columns: Iterable[str], names: list[str], place: str) -> None:
    """Raise RecfoundError if one of `columns` is not among `names`, those that stand at `place`."""
    missing = [name for name in columns if name not in names]
    if missing:
        raise RecfoundError(f"{place}: has no column {missing[0]!r}; it has {listed(names)}")


def listed(names: Iterable[str]) -> str:
    """Return the first names for a message, however many and whatever they are."""
    names = list(names)
    shown = ("".join(letter if letter.isprintable() else "?" for letter in name[:_SHOWN_CHARS]) for name in names)
    more = f" and {len(names) - _SHOWN_NAMES:,} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(itertools.islice(shown, _SHOWN_NAMES)) + more


def frames(
    pattern: str, schema: dict[str, Any], *, optional: Collection[str] = (), header: str = ""
) -> Iterator[tuple[pl.DataFrame, list[Unparsable]]]:
    """Yield the rows of Parquet (`.parquet`), CSV (`.csv`) or JSON lines (any other name) with the columns of `schema`.

    A value that is missing or of another type is null.

    Args:
        pattern: path, glob or URL.
        schema: the columns wanted, with their polars types.
        optional: columns that a Parquet or CSV file may lack.
        header: the columns of CSV files that have no header themselves; one that names them all has its own.

    Raises:
        RecfoundError: a file cannot be read or lacks a column.
    """
    for path in expand(pattern):
        match form(path):
            case "parquet":
                yield from ((frame, []) for frame in parquet_frames(path, schema, optional=optional))
            case "csv":
                first = b""
                for block in line_blocks(path):
                    first = first or _columns_line(block, header)
                    yield csv_frame(block, first, schema, needed=(), optional=optional)
            case _:
                yield from (json_lines(block, schema) for block in line_blocks(path))


def _columns_line(block: Block, header: str) -> bytes:
    """Return the line that names the columns of a CSV file: its first, or `header` where that has other words."""
    own = header_line(block)
    if not header or set(header.split(",")) <= {name.strip(b' "\r\n').decode("latin-1") for name in own.split(b",")}:
        return own
    return f"{header}\n".encode()


def header_line(block: Block) -> bytes:
    """Return the first line of a block, its end included."""
    return block.data[: block.data.find(b"\n") + 1] or block.data


def json_lines(block: Block, schema: dict[str, Any]) -> tuple[pl.DataFrame, list[Unparsable]]:
    """Return the objects of a block of JSON lines with the fields of `schema`, and the lines that are no objects.

    A field that is absent or of another type is null; what is asked for as text and is none is given as JSON. The whole
    block is parsed at once; only a block that holds a broken line is halved until that line stands alone, so it changes
    nothing about how the others are read.
    """

    def parse(data: bytes) -> pl.DataFrame | None:
        if not data.strip():
            return pl.DataFrame(schema=schema)
        try:
            # After an empty line: polars takes what begins like a compressed file for one.
            frame = pl.read_ndjson(io.BytesIO(b"\n" + data), schema=schema, ignore_errors=True)
        except pl.exceptions.PolarsError:
            return None
        # What is no object, such as a list, is read as one without fields.
        empty = frame.select(pl.all_horizontal(pl.all().is_null()).any()).item()
        return None if empty and any(line.strip()[:1] not in (b"", b"{") for line in data.split(b"\n")) else frame

    def fault(line: bytes) -> str:
        try:
            value = json.loads(line.strip().decode("utf-8"))
        except (ValueError, RecursionError) as error:
            return str(error)
        return "no readable JSON" if isinstance(value, dict) else f"expected an object, found {type(value).__name__}"

    frame = parse(block.data)
    if frame is not None:
        return frame, []
    if block.first_line == 1 and block.data.count(b"\n") > _HOPELESS_LINES:
        beginning = Block(block.path, 1, b"".join(io.BytesIO(block.data).readlines()[:_HOPELESS_LINES]))
        good, bad = _sift(beginning, parse, fault)
        if good.is_empty() and bad:
            raise RecfoundError(f"{block.path}: line 1: {bad[0].why[:200]}, and so in every line; {_RIGHT_FILE}")
    return _sift(block, parse, fault)


def _sift(
    block: Block, parse: Callable[[bytes], pl.DataFrame | None], fault: Callable[[bytes], str]
) -> tuple[pl.DataFrame, list[Unparsable]]:
    """Return the rows of a block and its broken lines: those that `parse` refuses (None) when they stand alone."""
    frame = parse(block.data)
    if frame is not None:
        return frame, []
    lines = io.BytesIO(block.data).readlines()
    if len(lines) == 1:
        empty = parse(b"")
        assert empty is not None, "no line is no broken line"
        return empty, [Unparsable(block.path, block.first_line, fault(block.data))]
    half = len(lines) // 2
    first, bad = _sift(Block(block.path, block.first_line, b"".join(lines[:half])), parse, fault)
    second, more = _sift(Block(block.path, block.first_line + half, b"".join(lines[half:])), parse, fault)
    return pl.concat([first, second]), bad + more


def decoded(data: bytes) -> str:
    """Return `data` as text: UTF-8, and each line that is none as Latin-1."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "\n".join(_decoded_line(line) for line in data.split(b"\n"))


def _decoded_line(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def text_lines(block: Block) -> pl.DataFrame:
    """Return the non-empty lines of a block, `number` and `line`; a line that is no UTF-8 is read as Latin-1."""
    lines = pl.DataFrame({"line": decoded(block.data).split("\n")}).with_row_index("number", offset=block.first_line)
    return lines.with_columns(pl.col("line").str.strip_suffix("\r")).filter(pl.col("line") != "")


def csv_frame(
    block: Block,
    header: bytes,
    schema: dict[str, Any],
    *,
    needed: Collection[str] | None = None,
    optional: Collection[str] = (),
    separator: str = ",",
) -> tuple[pl.DataFrame, list[Unparsable]]:
    """Return the rows of a block of CSV with the columns of `schema`, and the lines at which a broken row begins.

    A row is broken if it has more values than the header, or lacks one that is needed. Lines that are no UTF-8 are read
    as Latin-1, an empty value is null, and blank lines are left out.

    Args:
        block: lines of the file; its first block still holds the header.
        header: the file's first line, or what it would be in a file that has none.
        schema: the columns wanted, with their polars types; they may stand in any order, among others.
        needed: the columns of which no row may lack a value, or have one of another type; None stands for all.
        optional: columns that the file may lack; they are null then.
        separator: between values.

    Raises:
        RecfoundError: the header is no text or lacks a column.
    """
    names = _header_names(header, block.path, separator)
    require([name for name in schema if name not in optional], names, f"{block.path}: line 1")
    needed = list(schema) if needed is None else list(needed)
    if block.first_line == 1 and block.data.startswith(header):
        block = Block(block.path, 2, block.data[len(header) :])
    text, columns = decoded(block.data), dict.fromkeys(names, pl.String)

    def typed(raw: pl.DataFrame) -> pl.DataFrame:
        found = [name for name in schema if name in names]
        values = raw.select(pl.col(found).str.strip_chars().replace("", None))
        return values.select(
            (pl.col(name) if name in names else pl.lit(None)).cast(dtype, strict=False).alias(name)
            for name, dtype in schema.items()
        )

    if not text.strip():
        return pl.DataFrame(schema=schema), []
    try:
        raw = pl.read_csv(io.BytesIO(text.encode()), has_header=False, schema=columns, separator=separator)
        frame = typed(raw)
        blank = raw.select(pl.all_horizontal(pl.all().is_null()).any()).item()
        whole = len(raw) == text.count("\n") + (not text.endswith("\n"))
        if whole and not blank and not any(frame[name].null_count() for name in needed):
            return frame, []
    except (pl.exceptions.PolarsError, OSError):  # OSError: what begins like a compressed file is taken for one
        pass  # a broken row: the slower way finds it, and tells blank lines and quoted ones from lost ones
    rows, begins, bad = [], list[int](), list[Unparsable]()
    lines = io.StringIO(text, newline="\n")

    def fits(row: list[str]) -> bool:
        values = typed(pl.DataFrame([row], schema=columns, orient="row"))
        return not any(values[name].null_count() for name in needed)

    for line, row in csv_records(lines, block.first_line, len(names), pad=True, fits=fits, delimiter=separator):
        if isinstance(row, str):
            bad.append(Unparsable(block.path, line, row))
        else:
            rows.append(row)
            begins.append(line)
    frame = typed(pl.DataFrame(rows, schema=columns, orient="row"))
    lacks = frame.select(lacks=pl.any_horizontal(pl.lit(False), pl.col(needed).is_null()))["lacks"]
    lacking = pl.Series(begins, dtype=pl.Int64).filter(lacks)
    bad += [Unparsable(block.path, line, "a value is missing or of the wrong type") for line in lacking]
    return frame.filter(~lacks), sorted(bad, key=lambda found: found.line)


def _header_names(header: bytes, path: str, separator: str = ",") -> list[str]:
    binary = header.translate(None, _TEXT_BYTES)
    try:
        # As in `decoded`, a line that is no UTF-8 is Latin-1; one with control characters is no text at all.
        text = header.decode("utf-8-sig") if binary else decoded(header).removeprefix("\ufeff")
        names = [name.strip() for name in next(csv.reader([text], delimiter=separator), [])]
    except (UnicodeDecodeError, csv.Error) as error:
        raise RecfoundError(
            f"{path}: line 1: is no text ({error}); the name of a compressed file ends in .gz or .zst"
        ) from None
    return [name if name not in names[:place] else f"{name} ({place})" for place, name in enumerate(names)]


def _closed(lines: list[str], style: dict[str, Any]) -> bool:
    """Return whether every quote that opens a value in `lines` is closed where the value ends."""
    try:
        return bool(list(csv.reader(lines, strict=True, **style)))
    except csv.Error:
        return False


def csv_records(
    lines: Iterable[str],
    first_line: int,
    width: int,
    *,
    pad: bool = False,
    fits: Callable[[list[str]], bool] = lambda _: True,
    **style: Any,
) -> Iterator[tuple[int, list[str] | str]]:
    """Yield for each record of delimited text its first line's number and its `width` values, or why it is broken.

    A broken record is its first line alone: a quote that is never closed does not swallow the lines after it.

    Args:
        lines: of the text, with their ends.
        first_line: the number of the first of them.
        width: how many values a record has.
        pad: a line with fewer values lacks its last ones and is not broken.
        fits: whether the values of a record of several lines can be what they should; if not, and if text follows a
            closing quote too, a stray quote opened a value.
        style: as `csv.reader` takes it.
    """
    csv.field_size_limit(_LONGEST_RECORD * BLOCK_BYTES)
    source, again = iter(lines), deque[str]()
    taken: list[str] = []

    def feed() -> Iterator[str]:
        while again:
            taken.append(again.popleft())
            yield taken[-1]
        for line in source:
            taken.append(line)
            yield line

    reader = csv.reader(feed(), **style)
    while True:
        taken.clear()
        why, row = "", list[str]()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            why = str(error)
        blank = len(taken) == 1 and not taken[0].strip(" \r\n")
        if pad and len(taken) == 1 and not why:
            row += [""] * (width - len(row))
        if len(row) == width and not blank and (len(taken) == 1 or fits(row) or _closed(taken, style)):
            yield first_line, row
        elif not blank:
            stray = "a quote is opened and not closed in its value"
            yield first_line, why or (f"expected {width} values, found {len(row)}" if len(row) != width else stray)
            again.extendleft(reversed(taken[1:]))
            del taken[1:]
            reader = csv.reader(feed(), **style)
        first_line += len(taken)
