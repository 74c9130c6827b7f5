"""From plans to the files of a dataset: each file is a unit of work, written once, a few thousand rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recfound_data.layout import schema_of, sha256
from recfound_data.near_duplicates import SKETCH, sketch
from recfound_data.planning import Prepared, content
from recfound_data.recipe import DataRecipe
from recfound_data.samples import Corpus
from recfound_data.tasks import BUILDERS
from recfound_data.units import Result

_ROWS_AT_ONCE = 4_096
"""Rows that are rendered together and make one row group: a few megabytes of text."""
_REPEATED = ("task", "corpus", "domain", "instruction", "label", "label_source", "query_id")
"""Columns in which a dictionary saves space."""


@dataclass(frozen=True)
class Slice:
    """Some consecutive rows of one plan, among those that a mask leaves of one split."""

    plan: Path
    mask: Path | None
    task: str
    corpus: Prepared
    start: int
    stop: int


@dataclass(frozen=True)
class FilePlan:
    """One file of the dataset: its path there, its configuration and split, and the rows it holds, in order."""

    path: str
    config: str
    split: str
    slices: tuple[Slice, ...]


def file_plans(config: str, split: str, parts: Sequence[tuple[Slice, int]], rows_per_file: int) -> list[FilePlan]:
    """Cut the rows of a split, given as plans with their numbers of rows, into files of `rows_per_file`."""
    rows = sum(count for _, count in parts)
    files = -(-rows // rows_per_file)
    made = []
    for number in range(files):
        low, high = number * rows_per_file, min((number + 1) * rows_per_file, rows)
        slices, before = [], 0
        for part, count in parts:
            start, stop = max(low - before, 0), min(high - before, count)
            if start < stop:
                slices.append(Slice(part.plan, part.mask, part.task, part.corpus, start, stop))
            before += count
        name = f"{split}-{number:05d}-of-{files:05d}.parquet"
        made.append(FilePlan(f"data/{config}/{name}", config, split, tuple(slices)))
    return made


def write_file(folder: Path, plan: FilePlan, recipe: DataRecipe) -> Result:
    """Write one file of a configuration."""
    return write_rows(folder / Path(plan.path).name, plan.config, _rendered(plan, recipe))


def write_items(folder: Path, corpus: Prepared, name: str, first: int, rows: int) -> Result:
    """Write one file of the catalogue."""
    items = corpus.mapped()["catalogue"].slice(first, rows).select(list(schema_of("items")))
    return write_rows(folder / name, "items", items.iter_slices(_ROWS_AT_ONCE))


def write_sketch(folder: Path, plan: Path, task: str, corpus: Prepared, recipe: DataRecipe, own: bool) -> Result:
    """Write the minima of the texts of a plan's samples; `own` as in `planning.content`."""
    path, rows = plan / "samples.parquet", 0
    if path.exists():
        given = Corpus(corpus.name, recipe, corpus.mapped())
        parts = []
        for frame in pl.read_parquet(path).iter_slices(_ROWS_AT_ONCE):
            samples = _render(task, frame, task, given)
            parts.append(sketch(samples.select(content(task, own)).to_series().to_list()))
            rows += len(frame)
        np.save(folder / SKETCH, np.concatenate(parts))
    return {"rows": rows, "drops": {}}


def write_rows(path: Path, config: str, frames: Iterator[pl.DataFrame]) -> Result:
    """Write frames as the row groups of one Parquet file."""
    schema = _schema(config)
    dictionary = [name for name in _REPEATED if name in schema.names]
    rows = 0
    with pq.ParquetWriter(
        path, schema, compression="zstd", compression_level=3, use_dictionary=dictionary, write_statistics=["id"]
    ) as writer:
        for table in _row_groups(frames, schema):
            writer.write_table(table, row_group_size=_ROWS_AT_ONCE)
            rows += len(table)
    return {"rows": rows, "bytes": path.stat().st_size, "sha256": sha256(path)}


def _row_groups(frames: Iterator[pl.DataFrame], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of all frames `_ROWS_AT_ONCE` at a time: where a plan ends shows in no file."""
    waiting = schema.empty_table()
    for frame in frames:
        table = frame.select(schema.names).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema)
        waiting = pa.concat_tables([waiting, table])
        while len(waiting) >= _ROWS_AT_ONCE:
            yield waiting.slice(0, _ROWS_AT_ONCE).combine_chunks()
            waiting = waiting.slice(_ROWS_AT_ONCE)
    if len(waiting):
        yield waiting.combine_chunks()


def _schema(config: str) -> pa.Schema:
    empty: Any = pl.DataFrame(schema=schema_of(config)).to_arrow(compat_level=pl.CompatLevel.oldest())
    return empty.schema


def _rendered(plan: FilePlan, recipe: DataRecipe) -> Iterator[pl.DataFrame]:
    for part in plan.slices:
        corpus = Corpus(part.corpus.name, recipe, part.corpus.mapped())
        name = "qrels.parquet" if plan.config == "qrels" else "samples.parquet"
        rows = _chosen(part.plan / name, part.mask, plan.split, part.start, part.stop)
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            yield _render(plan.config, _take(part.plan / name, rows[first : first + _ROWS_AT_ONCE]), part.task, corpus)


def _chosen(path: Path, mask: Path | None, split: str, start: int, stop: int) -> Any:
    of_split = (pl.read_parquet(path, columns=["split"])["split"] == split).to_numpy()
    if mask is not None:
        of_split &= np.load(mask)
    return np.flatnonzero(of_split)[start:stop]


def _take(path: Path, rows: Any) -> pl.DataFrame:
    """Return rows of a plan; `rows` ascend, so only the stretch that they span is read."""
    low, high = int(rows[0]), int(rows[-1]) + 1
    return pl.scan_parquet(path).slice(low, high - low).collect()[rows - low]


def _render(config: str, rows: pl.DataFrame, task: str, corpus: Corpus) -> pl.DataFrame:
    builder = BUILDERS[task]
    if config == "qrels":
        if "item" in rows.columns:
            rows = rows.with_columns(item_id=corpus.tables["catalogue"]["item_id"].gather(rows["item"]))
        return rows.select(query_id="query", item_id="item_id", grade="grade")
    finished = "negative_ids" in rows.columns or "completion" in rows.columns
    if config == "queries":
        assert finished or builder.anchors is not None, "embedding tasks know their anchors"
        text = rows["anchor"] if finished or builder.anchors is None else builder.anchors(rows, corpus)
        return rows.select(query_id="query", task=pl.lit(task), text=text)
    if finished:
        return rows
    assert builder.render is not None, "a task that plans renders"
    return builder.render(rows, corpus)
