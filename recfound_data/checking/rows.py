"""The rows of one configuration, read again from its files: some thousands at a time, and single ones to be shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recfound_data.checking.findings import Findings
from recfound_data.errors import RecfoundError
from recfound_data.layout import schema_of
from recfound_data.progress import Progress
from recfound_data.samples import SPLITS

_STEP = 16_384
_STEP_BYTES = 64 * 2**20
"""Rows and uncompressed bytes read at a time; a build writes row groups of as many rows."""
_PART = re.compile(
    r"(?P<folder>items|data/(?P<config>[^/]+))/(?P<name>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.parquet"
)


@dataclass(frozen=True)
class Part:
    """One file: where it lies, its split, how many rows it has and the number of the first."""

    path: Path
    split: str
    first: int
    rows: int
    step: int


@dataclass(frozen=True)
class Batch:
    """Some rows that follow each other in one file."""

    frame: pl.DataFrame
    split: str
    first: int


@dataclass
class Rows:
    """All rows of a configuration, numbered through its files in the order of their names, training first."""

    folder: Path
    config: str
    parts: list[Part] = field(default_factory=list)
    progress: Progress | None = None

    def __len__(self) -> int:
        return sum(part.rows for part in self.parts)

    def add(self, path: Path, split: str) -> None:
        """Append a file."""
        metadata = pq.ParquetFile(path).metadata
        size = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
        step = max(256, min(_STEP, int(_STEP_BYTES * metadata.num_rows / max(size, 1))))
        self.parts.append(Part(path, split, len(self), metadata.num_rows, step))

    def batches(self, columns: Sequence[str] | None = None, splits: Sequence[str] = SPLITS) -> Iterator[Batch]:
        """Yield the rows of some splits, of all columns or of these."""
        for part in self.parts:
            if part.split in splits:
                scan = pl.scan_parquet(part.path, glob=False)
                scan = scan.select(columns) if columns else scan
                for at in range(0, part.rows, part.step):
                    try:
                        frame = scan.slice(at, part.step).collect()
                    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
                        raise RecfoundError(f"{part.path}: cannot be read: {str(error)[:200]}; build again") from None
                    yield Batch(frame, part.split, part.first + at)
                    if self.progress is not None and columns is None:
                        self.progress.advance(len(frame))

    def at(self, numbers: Sequence[int] | NDArray[np.int64], columns: Sequence[str]) -> pl.DataFrame:
        """Return the rows of these numbers, in this order, with their `split`."""
        found = []
        for number in numbers:
            part = next(part for part in self.parts if part.first <= number < part.first + part.rows)
            row = pl.scan_parquet(part.path, glob=False).select(columns).slice(int(number) - part.first, 1).collect()
            found.append(row.with_columns(split=pl.lit(part.split)))
        return pl.concat(found)

    def splits(self) -> NDArray[np.uint8]:
        """Return each row's split as its place in `SPLITS`."""
        parts = [np.full(part.rows, SPLITS.index(part.split), np.uint8) for part in self.parts]
        return np.concatenate(parts) if parts else np.empty(0, np.uint8)


def show(
    findings: Findings, rule: str, rows: Rows, positions: NDArray[np.int64], *columns: str, where: str = ""
) -> None:
    """Report the rows at these positions as faulty and show the first of them; `split` may be among `columns`."""
    if len(positions):
        faulty = rows.at(positions[:3], [column for column in columns if column != "split"])
        findings.rows(rule, where or rows.config, faulty, *columns, count=len(positions))


def open_rows(folder: Path, manifest: dict[str, Any], findings: Findings) -> dict[str, Rows] | None:
    """Return the rows of every known configuration, from the files that the manifest lists.

    Names, numbering and columns of the files are checked on the way; None where a file has other columns than it must.
    """
    found: dict[str, Rows] = {}
    for config in manifest["configs"]:
        if _known(config):
            found[config] = Rows(folder, config)
        else:
            findings.add("configuration unknown", config, examples=["this package knows no such configuration"])
    numbers: dict[tuple[str, str, str], list[int]] = {}
    named = []
    for name in manifest["files"]:
        if not name.endswith(".parquet"):
            continue
        match = _PART.fullmatch(name)
        config = match and (match["config"] or "items")
        if match is None or (config != "items" and match["name"] not in SPLITS):
            findings.add("file outside the layout", name)
        elif config not in manifest["configs"]:
            findings.add("file of no configuration", name)
        else:
            numbers.setdefault((match["folder"], match["name"], match["total"]), []).append(int(match["number"]))
            if config in found:
                named.append((0 if config == "items" else SPLITS.index(match["name"]), name, config))
    for (where, part, total), listed in numbers.items():
        if sorted(listed) != list(range(int(total))):
            findings.add("files are not numbered through", f"{where}/{part}-*-of-{total}.parquet", len(listed))
    fit = [_columns_fit(folder / name, name, config, findings) for _, name, config in sorted(named)]
    if not all(fit):
        return None
    for place, name, config in sorted(named):
        found[config].add(folder / name, SPLITS[place])
    return found


def _known(config: str) -> bool:
    try:
        schema_of(config)
    except KeyError:
        return False
    return True


def _columns_fit(path: Path, name: str, config: str, findings: Findings) -> bool:
    try:
        found = dict(pl.read_parquet_schema(path))
        pq.ParquetFile(path)
    except (pl.exceptions.PolarsError, OSError, pa.ArrowException) as error:
        findings.add("file unreadable", name, examples=[str(error)[:200]])
        return False
    expected = schema_of(config)
    if found != expected:
        findings.add("columns", name, examples=[f"found {found}", f"expected {expected}"])
    return found == expected
