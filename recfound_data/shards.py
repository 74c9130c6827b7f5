"""Tables cut into shards: rows come in any order, are written as sorted runs, and are read back a range at a time.

A shard is a range of group hashes. A user's, product's or dialogue's rows are in one shard whatever the number of
shards, and shard after shard is the order of groups, so that number changes no byte of a dataset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

from recfound_data.identity import stable_id
from recfound_data.layout import write_parquet
from recfound_data.tables import GROUPS, TABLES

_BUCKETS = 1 << 16
_RUN_BYTES = 192 << 20
_ROW_GROUP = 4096
"""Rows in a row group: small, so that a range of a sorted run is read without the rest of it."""


@dataclass(frozen=True)
class Range:
    """The groups whose first four hexadecimal digits are at least `low` and less than `high`."""

    low: int
    high: int


ALL = Range(0, _BUCKETS)


def ranges(rows: int, rows_per_shard: int) -> list[Range]:
    """Return ranges that cut `rows` rows into shards of about `rows_per_shard`."""
    count = min(max(1, -(-rows // rows_per_shard)), _BUCKETS)
    borders = [_BUCKETS * number // count for number in range(count + 1)]
    return [Range(low, high) for low, high in pairwise(borders)]


def bucket(group: pl.Expr) -> pl.Expr:
    """Return the number that a group's first four hexadecimal digits are."""
    return group.str.slice(0, 4).str.to_integer(base=16).cast(pl.UInt16)


class RunWriter:
    """Writes the tables of one corpus as runs, `<folder>/<table>-<number>.parquet`, holding one run in memory."""

    def __init__(self, folder: Path, corpus: str) -> None:
        self._folder, self._corpus = folder, corpus
        self._waiting: dict[str, list[pl.DataFrame]] = {}
        self._runs: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.splits: dict[str, set[str]] = {}

    def add(self, table: str, frame: pl.DataFrame) -> None:
        """Take rows of a table; columns that they lack are null."""
        if frame.is_empty():
            return
        schema: dict[str, Any] = TABLES[table]
        frame = frame.select(
            pl.col(name).cast(dtype) if name in frame.columns else pl.lit(None, dtype).alias(name)
            for name, dtype in schema.items()
        )
        if table in GROUPS:
            frame = frame.with_columns(group=self._group(table)).with_columns(bucket=bucket(pl.col("group")))
        if "split" in schema:
            self.splits.setdefault(table, set()).update(frame["split"].drop_nulls().unique().to_list())
        self.rows[table] += len(frame)
        waiting = self._waiting.setdefault(table, [])
        waiting.append(frame)
        if sum(part.estimated_size() for part in waiting) >= _RUN_BYTES:
            self._write(table)

    def close(self) -> None:
        """Write what is still held."""
        for table in list(self._waiting):
            self._write(table)

    def _group(self, table: str) -> pl.Expr:
        if "user_id" in TABLES[table]:
            return pl.col("user_id")  # a hash already
        return stable_id(self._corpus, GROUPS[table]().fill_null(""))

    def _write(self, table: str) -> None:
        frames = self._waiting.pop(table, [])
        if not frames:
            return
        run = pl.concat(frames)
        if table in GROUPS:
            run = run.sort("bucket", maintain_order=True)
        path = self._folder / f"{table}-{self._runs[table]:06d}.parquet"
        write_parquet(run, path, compression="lz4", row_group_size=_ROW_GROUP)
        self._runs[table] += 1


def runs(folders: Sequence[Path], table: str) -> list[Path]:
    """Return the runs of a table in all folders that its readers wrote, in order."""
    return [path for folder in folders for path in sorted(folder.glob(f"{table}-*.parquet"))]


def read_shard(folders: Sequence[Path], table: str, within: Range = ALL) -> pl.DataFrame | None:
    """Return a table's rows within a range of groups, or None where nobody wrote the table."""
    paths = runs(folders, table)
    if not paths:
        return None
    rows = pl.scan_parquet(paths)
    if table in GROUPS:
        if within != ALL:
            rows = rows.filter(pl.col("bucket").is_between(within.low, within.high, closed="left"))
        rows = rows.drop("bucket")
    return rows.collect()
