"""Raw files, local or at any fsspec URL, plain or compressed, as blocks of whole lines or Parquet batches."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import fsspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recfound_data.errors import RecfoundError

BLOCK_BYTES = 16 << 20


@dataclass(frozen=True)
class Block:
    """Whole lines of one file: where it is from, the number of its first line (from 1), and its bytes."""

    path: str
    first_line: int
    data: bytes


def expand(pattern: str) -> list[str]:
    """Return the files that a path, glob or URL names, sorted.

    Raises:
        RecfoundError: there is none.
    """
    try:
        system, path = fsspec.core.url_to_fs(pattern)
        if system.isfile(path):
            return [pattern]
        # Of `zip://*.csv::archive.zip` only the part before `::` is found again in the names that match.
        inner, link, archive = pattern.partition("::")
        url, chain = "://" in pattern, link + archive if "://" in inner else ""
        found = sorted(system.glob(path)) if any(mark in path for mark in "*?[") else []
        files = [system.unstrip_protocol(name) + chain if url else name for name in found if system.isfile(name)]
    except (OSError, ValueError, ImportError) as error:
        raise RecfoundError(f"{pattern}: cannot be opened: {error}") from None
    if not files:
        raise RecfoundError(f"{pattern}: no such file; check the path in the recipe")
    return files


def line_blocks(pattern: str, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """Yield every file behind `pattern`, decompressed, in blocks of about `block_bytes` that end with a line.

    Raises:
        RecfoundError: a file is missing, or its compression is truncated or damaged.
    """
    for path in expand(pattern):
        line, rest, read = 1, b"", 0
        try:
            with fsspec.open(path, "rb") as raw, _decompressed(raw, path) as stream:
                while chunk := stream.read(block_bytes):
                    read += len(chunk)
                    cut = chunk.rfind(b"\n") + 1
                    if not cut:
                        rest += chunk
                        continue
                    data, rest = rest + chunk[:cut], chunk[cut:]
                    yield Block(path, line, data)
                    line += data.count(b"\n")
        except (EOFError, gzip.BadGzipFile, zlib.error, pa.ArrowInvalid) as error:
            raise RecfoundError(
                f"{path}: truncated or damaged after {read:,} bytes ({error}); download it again"
            ) from None
        except OSError as error:
            raise RecfoundError(f"{path}: cannot be read after {read:,} bytes: {error}") from None
        if rest:
            yield Block(path, line, rest)


def _decompressed(raw: Any, path: str) -> Any:
    if path.endswith(".gz"):
        return gzip.GzipFile(fileobj=raw)
    if path.endswith((".zst", ".zstd")):
        return pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")
    return raw


def parquet_frames(pattern: str, columns: dict[str, Any], rows: int = 100_000) -> Iterator[pl.DataFrame]:
    """Yield the named columns of every Parquet file behind `pattern`, cast to `columns`' polars types.

    Raises:
        RecfoundError: a file is missing, is no Parquet, or lacks a column.
    """
    for path in expand(pattern):
        try:
            with fsspec.open(path, "rb") as raw:
                file = pq.ParquetFile(raw)
                missing = [name for name in columns if name not in file.schema_arrow.names]
                if missing:
                    raise RecfoundError(
                        f"{path}: has no column {missing[0]!r}; it has {', '.join(file.schema_arrow.names)}"
                    )
                for batch in file.iter_batches(batch_size=rows, columns=list(columns)):
                    frame = pl.DataFrame(batch)
                    yield frame.select(pl.col(name).cast(dtype, strict=False) for name, dtype in columns.items())
        except (pa.ArrowException, pl.exceptions.PolarsError) as error:
            why = " ".join(str(error).split())
            raise RecfoundError(f"{path}: is not a readable Parquet file ({why}); download it again") from None
        except OSError as error:
            raise RecfoundError(f"{path}: cannot be read: {error}") from None


@dataclass(frozen=True)
class Unparsable:
    """A line that its reader could not parse."""

    path: str
    line: int
    why: str


def json_lines(block: Block, schema: dict[str, Any]) -> tuple[pl.DataFrame, list[Unparsable]]:
    """Return the objects of a block of JSON lines with the fields of `schema`, and the lines that are no objects.

    A field that is absent or of another type is null. The whole block is parsed at once; only a block that holds a
    broken line is halved until that line stands alone, so it changes nothing about how the others are read.
    """

    def parse(data: bytes) -> pl.DataFrame | None:
        if not data.strip():
            return pl.DataFrame(schema=schema)
        try:
            frame = pl.read_ndjson(io.BytesIO(data), schema=schema, ignore_errors=True)
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


def text_lines(block: Block, encodings: tuple[str, ...] = ("utf-8", "latin-1")) -> pl.DataFrame:
    """Return the non-empty lines of a block, `number` and `line`, decoded with the first encoding that fits."""
    text = _decode(block.data, encodings)
    lines = pl.DataFrame({"line": text.split("\n")}).with_row_index("number", offset=block.first_line)
    return lines.with_columns(pl.col("line").str.strip_suffix("\r")).filter(pl.col("line") != "")


def _decode(data: bytes, encodings: tuple[str, ...]) -> str:
    for encoding in encodings[:-1]:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode(encodings[-1])


def csv_frame(block: Block, header: bytes, schema: dict[str, Any]) -> tuple[pl.DataFrame, list[Unparsable]]:
    """Return the rows of a block of CSV with the columns of `schema`, and the lines in which a needed value is missing.

    Args:
        block: lines of the file; its first block still holds the header.
        header: the file's first line.
        schema: the columns wanted, with their polars types; they may stand in any order, among others.

    Raises:
        RecfoundError: the header is no text or lacks a column.
    """
    try:
        names = next(iter(_csv_rows(header.decode("utf-8-sig"))), [])
    except UnicodeDecodeError as error:
        raise RecfoundError(
            f"{block.path}: line 1: is no text ({error}); the name of a compressed file ends in .gz or .zst"
        ) from None
    missing = [name for name in schema if name not in names]
    if missing:
        raise RecfoundError(f"{block.path}: line 1: has no column {missing[0]!r}; it has {', '.join(names)}")

    def parse(data: bytes) -> pl.DataFrame | None:
        if not data.strip():
            return pl.DataFrame(schema=schema)
        try:
            raw = pl.read_csv(
                io.BytesIO(data),
                has_header=False,
                schema=dict.fromkeys(names, pl.String),
                encoding="utf8-lossy",
                truncate_ragged_lines=True,
            )
        except pl.exceptions.PolarsError:
            return None
        frame = raw.select(pl.col(name).str.strip_chars().cast(dtype, strict=False) for name, dtype in schema.items())
        return None if sum(frame.null_count().row(0)) else frame

    if block.first_line == 1:
        block = Block(block.path, 2, block.data[len(header) :])
    return _sift(block, parse, lambda _: "a value is missing or of the wrong type")


def _csv_rows(text: str) -> Iterator[list[str]]:
    import csv

    yield from csv.reader(text.splitlines())
