"""From tables to plans: what each shard gives to a task, and which samples stay when all shards are seen.

A plan holds row numbers of the catalogue where a sample holds texts, so it is small; texts are looked up when the final
files are written, which is also the only time that they are compressed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfound_data.catalogue import read_mapped
from recfound_data.errors import RecfoundError
from recfound_data.identity import hash64, mixed
from recfound_data.layout import write_parquet
from recfound_data.mining import Index
from recfound_data.near_duplicates import without_near_duplicates
from recfound_data.preparation import CATALOGUE, RELATED, STATISTICS, read_events
from recfound_data.recipe import DataRecipe
from recfound_data.samples import SPLITS, Corpus
from recfound_data.shards import Range, bucket, read_shard
from recfound_data.tables import TABLES
from recfound_data.tasks import BUILDERS, TASKS, made
from recfound_data.units import Result, total

_MOST_REASONS = 5
_MOST_AT_ONCE = 4_000_000
"""Samples whose hashes are compared together."""


@dataclass(frozen=True)
class Prepared:
    """Where the prepared tables of one corpus lie.

    Attributes:
        name: of the corpus in the dataset.
        read: folders of its parts.
        catalogue: folder of its catalogue.
        first: folders of its first interactions, a shard each.
        events: folders of its events, a shard each, in the same order.
        statistics: folder of its item statistics.
        pairs: folder of its pairs, or None.
        splits: the splits that it publishes, by table.
        index: where its items can be searched, if the recipe mines negatives.
    """

    name: str
    read: tuple[Path, ...]
    catalogue: Path
    first: tuple[Path, ...]
    events: tuple[Path, ...]
    statistics: Path
    pairs: Path | None
    splits: dict[str, frozenset[str]]
    index: Index | None = None

    def mapped(self) -> dict[str, pl.DataFrame]:
        """Return the catalogue and item statistics, mapped."""
        return {
            "catalogue": read_mapped(self.catalogue / CATALOGUE),
            "item_stats": read_mapped(self.statistics / STATISTICS),
        }


@dataclass(frozen=True)
class Shard:
    """What part of a task's driving table a unit has: a range of groups, and its number."""

    number: int
    within: Range
    first_row: int = 0
    rows: int = 0


def shard_of(corpus: Prepared, task: str, shard: Shard, recipe: DataRecipe, driven_by: str) -> Corpus:
    """Return the tables of one shard that a task reads."""
    builder = BUILDERS[task]
    mapped = corpus.mapped()
    tables: dict[str, pl.DataFrame] = {}
    for table in (driven_by, *builder.reads, "catalogue"):
        frame: pl.DataFrame | None
        if table == "events":
            frame = read_events(corpus.events[shard.number], corpus.first[shard.number], "texts" in builder.reads)
        elif table == "pairs" and corpus.pairs is not None:
            rows = pl.scan_parquet(corpus.pairs / "pairs.parquet")
            place = bucket(pl.col("group"))
            frame = rows.filter(place.is_between(shard.within.low, shard.within.high, closed="left")).collect()
        elif table == "related" and corpus.pairs is not None:
            frame = read_mapped(corpus.pairs / RELATED)
        elif table in mapped:
            frame = mapped[table]
        elif table in TABLES:
            frame = read_shard(corpus.read, table, shard.within)
        else:
            frame = None
        if frame is not None:
            tables[table] = frame
    if driven_by == "catalogue":
        tables["catalogue"] = tables["catalogue"].slice(shard.first_row, shard.rows)
    return Corpus(corpus.name, recipe, tables, corpus.splits, corpus.index)


def write_plan(folder: Path, corpus: Prepared, task: str, shard: Shard, recipe: DataRecipe, driven_by: str) -> Result:
    """Make the plan of one task from one shard, sorted by id."""
    given = shard_of(corpus, task, shard, recipe, driven_by)
    built = made.build(given, task) if driven_by == "made" else BUILDERS[task].build(given)
    samples = _comparable(built.samples, task, own=driven_by != "made")
    if len(samples):
        write_parquet(samples.sort("id"), folder / "samples.parquet", compression="lz4", row_group_size=1 << 13)
    if built.qrels is not None and len(built.qrels):
        qrels = _with_query_hash(built.qrels.rename({"query_id": "query"}, strict=False))
        write_parquet(qrels, folder / "qrels.parquet", compression="lz4", row_group_size=1 << 16)
    named = samples["label_source"].unique() if "label_source" in samples.columns else pl.Series([], dtype=pl.String)
    models = sorted(set(named) - {"corpus", "composed"})
    return {"rows": len(samples), "drops": built.drops, "label_sources": models, "mined": built.mined}


def _comparable(samples: pl.DataFrame, task: str, own: bool) -> pl.DataFrame:
    """Return samples with `twin`, and `query_hash` where they have queries.

    Args:
        samples: published columns or a plan.
        task: its name.
        own: as in `content`.
    """
    if samples.is_empty():
        return samples
    embedding = TASKS[task].kind == "embedding"
    if "twin" not in samples.columns:
        samples = samples.with_columns(twin=hash64(content(task, own)))
    if embedding and "query" not in samples.columns:
        samples = samples.with_columns(query="anchor_id")
    return _with_query_hash(samples) if embedding else samples


def content(task: str, own: bool) -> pl.Expr:
    """Return what a sample asks about: anchor and positive, or the prompt.

    Args:
        task: the samples'.
        own: whether the prompts are this project's: an instruction, an empty line, then what is asked about. Twins are
            asked about the same, in whatever phrasing; were their labels two, nobody could tell which is right.
    """
    if TASKS[task].kind == "embedding":
        return pl.concat_str("anchor", "positive", separator="\x1f")
    said = pl.col("prompt").list.last().struct.field("content")
    return said.str.replace(r"(?s)^.*?\n\n", "") if own else said


def _with_query_hash(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(query_hash=hash64(pl.col("query")))


def choose(folder: Path, task: str, plans: Sequence[Path], recipe: DataRecipe, sketches: Sequence[Path] = ()) -> Result:
    """Decide which samples of a task stay, which of them give its queries, and which judgements belong to these.

    Of two samples that read the same, the one held out stays: test before validation before training. So it does of two
    in different splits that read almost the same, where there are `sketches`, a folder a plan. Writes a mask for each
    plan that has one, and returns the rows that they leave by plan, kind and split.
    """
    if not plans:
        return {"rows": 0, "drops": {}, "counts": {}}
    columns = [_read(path, "samples.parquet", ["twin", "split"]) for path in plans]
    splits = [_split_numbers(frame) for frame in columns]
    twins = [_values(frame, "twin") for frame in columns]
    kept, within, across = _without_twins(twins, splits)
    near: dict[str, int] = {}
    if recipe.near_duplicates is not None and sketches:
        near = without_near_duplicates(sketches, splits, kept, recipe.near_duplicates)
    limited = _limit(twins, splits, kept, recipe.limits.get(task, {}), recipe.seed)
    result: Result = {
        "rows": int(sum(mask.sum() for mask in kept)),
        "drops": total(
            [
                {
                    "sample repeated in its split": within,
                    "sample that is held out in another split": across,
                    "sample beyond the recipe's limit": limited,
                },
                near,
            ]
        ),
    }
    masks = {"samples": kept}
    if TASKS[task].kind == "embedding":
        masks |= _queries(plans, splits, kept)
    counts: dict[str, list[dict[str, int]]] = {}
    for kind, found in masks.items():
        counts[kind] = []
        for number, mask in enumerate(found):
            frame = columns[number] if kind != "qrels" else _read(plans[number], "qrels.parquet", ["split"])
            counts[kind].append(_count(_split_numbers(frame), mask))
            np.save(folder / f"{kind}-{number:06d}.npy", mask)
    return result | {"counts": counts}


def _read(plan: Path, name: str, columns: Sequence[str]) -> pl.DataFrame | None:
    path = plan / name
    return pl.read_parquet(path, columns=list(columns)) if path.exists() else None


def _values(frame: pl.DataFrame | None, column: str) -> NDArray[np.uint64]:
    return np.empty(0, np.uint64) if frame is None else frame[column].to_numpy()


def _split_numbers(frame: pl.DataFrame | None) -> NDArray[np.uint8]:
    if frame is None:
        return np.empty(0, np.uint8)
    numbers = {split: number for number, split in enumerate(SPLITS)}
    return frame["split"].replace_strict(numbers, default=len(SPLITS), return_dtype=pl.UInt8).to_numpy()


def _count(splits: NDArray[np.uint8], mask: NDArray[np.bool_]) -> dict[str, int]:
    counts = np.bincount(splits[mask], minlength=len(SPLITS))
    return {split: int(counts[number]) for number, split in enumerate(SPLITS) if counts[number]}


def _bands(rows: int) -> Iterable[tuple[int, int]]:
    """Return ranges of 64-bit hashes that have few enough rows each to be compared at once."""
    parts = -(-max(rows, 1) // _MOST_AT_ONCE)
    borders = [(1 << 64) * number // parts for number in range(parts + 1)]
    return [(low, high - 1) for low, high in pairwise(borders)]


def _first_of_each(
    keys: Sequence[NDArray[np.uint64]], order: Sequence[NDArray[np.uint8]], chosen: Sequence[NDArray[np.bool_]]
) -> Iterable[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]]:
    """Yield, band by band, rows sorted by key and order: part, row, whether first of its key, and its key's number."""
    for low, high in _bands(sum(len(key) for key in keys)):
        parts, rows, values, orders = [], [], [], []
        for number, key in enumerate(keys):
            inside = np.flatnonzero((key >= np.uint64(low)) & (key <= np.uint64(high)) & chosen[number])
            parts.append(np.full(len(inside), number, np.int64))
            rows.append(inside)
            values.append(key[inside])
            orders.append(order[number][inside])
        part, row, value = np.concatenate(parts), np.concatenate(rows), np.concatenate(values)
        placed = np.lexsort((row, part, np.concatenate(orders), value))
        first = np.ones(len(placed), np.bool_)
        first[1:] = value[placed][1:] != value[placed][:-1]
        yield part[placed], row[placed], first, np.cumsum(first) - 1


def _without_twins(
    twins: Sequence[NDArray[np.uint64]], splits: Sequence[NDArray[np.uint8]]
) -> tuple[list[NDArray[np.bool_]], int, int]:
    kept = [np.ones(len(twin), np.bool_) for twin in twins]
    within = across = 0
    held_out_first = [(len(SPLITS) - split).astype(np.uint8) for split in splits]
    for part, row, first, number in _first_of_each(twins, held_out_first, [np.ones(len(t), np.bool_) for t in twins]):
        for again_part in np.unique(part[~first]):
            again = ~first & (part == again_part)
            kept[again_part][row[again]] = False
        repeated = int((~first).sum())
        if repeated:
            all_splits = np.concatenate(splits)
            base = np.concatenate(([0], np.cumsum([len(split) for split in splits])))
            of_row = all_splits[base[part] + row]
            distinct = len(np.unique(number * len(SPLITS) + of_row)) - int(first.sum())
            across += distinct
            within += repeated - distinct
    return kept, within, across


def _limit(
    twins: Sequence[NDArray[np.uint64]],
    splits: Sequence[NDArray[np.uint8]],
    kept: Sequence[NDArray[np.bool_]],
    limits: Mapping[Literal["train", "validation", "test"], int],
    seed: int,
) -> int:
    """Leave at most `limits[split]` samples of each split, those whose draws are smallest; return how many went."""
    gone = 0
    salt = mixed(np.array([seed % (1 << 64)], np.uint64) + np.uint64(0x5BF0))
    for split, most in limits.items():
        number = SPLITS.index(split)
        drawn = [mixed(twin ^ salt) for twin in twins]
        chosen = [mask & (of == number) for mask, of in zip(kept, splits, strict=True)]
        values = np.concatenate([draw[mask] for draw, mask in zip(drawn, chosen, strict=True)])
        if len(values) <= most:
            continue
        limit = np.partition(values, most)[most]
        for mask, draw, of in zip(kept, drawn, chosen, strict=True):
            mask &= ~(of & (draw >= limit))
        gone += len(values) - most
    return gone


def _queries(
    plans: Sequence[Path], splits: Sequence[NDArray[np.uint8]], kept: Sequence[NDArray[np.bool_]]
) -> dict[str, list[NDArray[np.bool_]]]:
    """Return the first kept sample of each query and split, and the judgements of kept queries."""
    hashes = [_values(_read(path, "samples.parquet", ["query_hash"]), "query_hash") for path in plans]
    keys = [mixed(value + split) for value, split in zip(hashes, splits, strict=True)]
    asks = [np.zeros(len(key), np.bool_) for key in keys]
    for part, row, first, _ in _first_of_each(keys, splits, kept):
        for number in np.unique(part[first]):
            asks[number][row[first & (part == number)]] = True
    asked = np.unique(np.concatenate([value[mask] for value, mask in zip(hashes, kept, strict=True)]))
    judged = []
    for path in plans:
        value = _values(_read(path, "qrels.parquet", ["query_hash"]), "query_hash")
        place = np.minimum(np.searchsorted(asked, value), max(len(asked) - 1, 0))
        judged.append(asked[place] == value if len(asked) else np.zeros(len(value), np.bool_))
    return {"queries": asks, "qrels": judged}


def require_samples(task: str, chosen: Result, drops: Mapping[str, Mapping[str, int]]) -> None:
    """Raise unless a task has a sample; `drops` are those of the corpora and of the task, by where and reason.

    Raises:
        RecfoundError: it has none.
    """
    if chosen["rows"]:
        return
    largest = sorted(
        ((count, where, why) for where, part in drops.items() for why, count in part.items()), reverse=True
    )
    dropped = "".join(f"; {where}: {count:,} times {why}" for count, where, why in largest[:_MOST_REASONS])
    raise RecfoundError(
        f"task {task!r} has no sample: none of the recipe's corpora gives any; leave it out of the recipe, or see what "
        f"was dropped{dropped or ': nothing'}"
    )
