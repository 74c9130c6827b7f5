"""From a corpus's files to what tasks read: catalogue, events in shards of users, item statistics, pairs of items.

Each function below is the work of one unit: it writes into `folder` and returns what is counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recfound_data.catalogue import make_catalogue, own_id, read_mapped, write_mapped
from recfound_data.errors import RecfoundError
from recfound_data.events import (
    TimeCuts,
    dated_events,
    first_interactions,
    item_statistics,
    k_core,
    time_cuts,
)
from recfound_data.files import METER, expand, size
from recfound_data.layout import write_parquet
from recfound_data.negatives import rank_items
from recfound_data.pairs import co_liked, judged, make_pairs, nearest, stated, summed_pairs
from recfound_data.people import UserKey
from recfound_data.progress import say
from recfound_data.recipe import DataRecipe
from recfound_data.shards import Range, RunWriter, read_shard, runs
from recfound_data.tables import Source
from recfound_data.units import Result, total

CATALOGUE, STATISTICS, RELATED = "catalogue.arrow", "item_stats.arrow", "related.arrow"
_SAY_SECONDS = 15.0
_ITEM_BITS = 32


@dataclass(frozen=True)
class Reading:
    """How the files of all corpora are read."""

    key: UserKey
    strict: bool
    texts: bool
    quiet: bool


def read_part(folder: Path, reader: Source, reading: Reading) -> Result:
    """Read one part of a corpus into sorted runs of its tables.

    Raises:
        RecfoundError: a file cannot be read, or a line cannot be parsed and the build is strict.
    """
    writer = RunWriter(folder, reader.label)
    drops: list[dict[str, int]] = []
    started = said = time.monotonic()
    already, whole = METER.bytes, sum(size(file) for path in reader.paths() for file in expand(path))
    for batch in reader.batches(reading.key.within(reader.label)):
        if batch.unparsable and reading.strict:
            first = batch.unparsable[0]
            raise RecfoundError(f"{first.path}: line {first.line}: cannot be parsed: {first.why}")
        drops.append(batch.drops)
        frame = batch.frame
        if batch.table == "interactions" and not reading.texts and "text" in frame.columns:
            frame = frame.drop("text")
        writer.add(batch.table, frame)
        now = time.monotonic()
        if now - said >= _SAY_SECONDS and not reading.quiet:
            said, rows, share = now, sum(writer.rows.values()), (METER.bytes - already) / max(whole, 1)
            left = f", {share:.0%}, {(now - started) * (1 - share) / share:,.0f} s left" if share else ""
            say(f"read {reader.label}: {rows:,} rows, {rows / (now - started):,.0f}/s{left}")
    writer.close()
    splits = {table: sorted(found) for table, found in writer.splits.items()}
    rows = sum(writer.rows.values())
    return {"rows": rows, "tables": dict(writer.rows), "splits": splits, "drops": total(drops)}


def write_catalogue(folder: Path, read: Sequence[Path], corpus: str, recipe: DataRecipe) -> Result:
    """Make the catalogue of a corpus; without items, an empty one."""
    catalogue, drops = make_catalogue(map(pl.read_parquet, runs(read, "items")), corpus, recipe)
    write_mapped(catalogue, folder / CATALOGUE)
    return {"rows": len(catalogue), "drops": drops}


def write_first(folder: Path, read: Sequence[Path], within: Range, catalogue: Path, corpus: str) -> Result:
    """Make the first interactions of one shard of users."""
    raw = read_shard(read, "interactions", within)
    assert raw is not None, "a corpus without interactions has no shard of them"
    items = read_mapped(catalogue).select("item", "product", "id_hash", "item_id")
    keys = items.select("item", "product", "id_hash", raw_id=own_id(corpus, pl.col("item_id")))
    events, texts, users, drops = first_interactions(raw, keys)
    write_parquet(events, folder / "first.parquet", compression="lz4")
    if texts.null_count() < len(texts):
        write_parquet(texts.to_frame("text"), folder / "texts.parquet", compression="lz4")
    write_parquet(users.to_frame("group"), folder / "users.parquet", compression="lz4")
    return {"rows": len(events), "drops": drops}


class _Times:
    """The times of all interactions, read a shard at a time, as often as they are gone through."""

    def __init__(self, first: Sequence[Path]) -> None:
        self._first = first

    def __iter__(self) -> Iterator[pl.Series]:
        for path in self._first:
            yield pl.read_parquet(path / "first.parquet", columns=["timestamp"])["timestamp"]


def settle(folder: Path, first: Sequence[Path], items: int, recipe: DataRecipe) -> Result:
    """Find what needs all users at once: the moments that split time, and the k-core."""
    result: Result = {"rows": 0, "drops": {}}
    cuts = time_cuts(_Times(first)) if recipe.split == "global_time" else None
    if cuts is not None:
        result |= {"validation": cuts.validation, "test": cuts.test}
    if recipe.history.k_core > 1:
        columns = [pl.read_parquet(path / "first.parquet", columns=["user", "item"]) for path in first]
        core = k_core([(c["user"].to_numpy(), c["item"].to_numpy()) for c in columns], items, recipe.history.k_core)
        for path, inside in zip(first, core, strict=True):
            np.save(folder / f"{path.name}.npy", inside)
        result["drops"] = {"interaction outside the k-core": int(sum(len(inside) - inside.sum() for inside in core))}
    return result


def write_events(folder: Path, first: Path, settled: Path, cuts: tuple[int, int] | None, recipe: DataRecipe) -> Result:
    """Make the events of one shard, and its share of what is summed over shards."""
    core = settled / f"{first.name}.npy"
    events = dated_events(
        pl.read_parquet(first / "first.parquet"),
        recipe,
        TimeCuts(*cuts) if cuts else None,
        np.load(core) if core.exists() else None,
    )
    write_parquet(events.with_columns(pl.col("period").cast(pl.String)), folder / "events.parquet", compression="lz4")
    write_parquet(item_statistics(events), folder / "statistics.parquet", compression="lz4")
    pairs, sizes = co_liked(events)
    write_parquet(pairs, folder / "co_liked.parquet", compression="lz4", row_group_size=1 << 16)
    write_parquet(sizes, folder / "likers.parquet", compression="lz4")
    return {"rows": len(events), "pairs": len(pairs), "drops": {}}


def write_co_liked(folder: Path, events: Sequence[Path], low: int, high: int) -> Result:
    """Sum the co-liked pairs whose smaller item is in a range, over all shards."""
    inside = pl.col("pair").is_between(low << _ITEM_BITS, high << _ITEM_BITS, closed="left")
    parts = [pl.scan_parquet(path / "co_liked.parquet").filter(inside).collect() for path in events]
    pairs = summed_pairs(parts)
    write_parquet(pairs, folder / "co_liked.parquet", compression="lz4")
    return {"rows": len(pairs), "drops": {}}


def write_statistics(folder: Path, catalogue: Path, events: Sequence[Path]) -> Result:
    """Sum item statistics over shards and rank the catalogue by popularity."""
    summed = None
    if events:
        parts = pl.concat(pl.read_parquet(path / "statistics.parquet") for path in events)
        summed = parts.group_by("item").agg(pl.col("popularity", "rated", "rating_sum").sum()).sort("item")
    ranked = rank_items(read_mapped(catalogue), summed)
    write_mapped(ranked, folder / STATISTICS)
    return {"rows": len(ranked), "drops": {}}


def write_judged(folder: Path, read: Sequence[Path], within: Range, catalogue: Path, corpus: str, seed: int) -> Result:
    """Make the pairs that one shard of judged queries relates."""
    judgements = read_shard(read, "judgements", within)
    assert judgements is not None, "a corpus without judgements has no shard of them"
    pairs = judged(judgements, read_mapped(catalogue), corpus, seed)
    write_parquet(pairs, folder / "judged.parquet", compression="lz4")
    return {"rows": len(pairs), "drops": {}}


@dataclass(frozen=True)
class PairSources:
    """Where the pairs of a corpus come from."""

    read: tuple[Path, ...]
    events: tuple[Path, ...]
    co_liked: tuple[Path, ...]
    judged: tuple[Path, ...]


def write_pairs(folder: Path, sources: PairSources, catalogue: Path, corpus: str, recipe: DataRecipe) -> Result:
    """Bring all relations of a corpus together as pairs, and as what each item is related to."""
    items = read_mapped(catalogue)
    found = [pl.DataFrame(schema={"item": pl.UInt32, "other": pl.UInt32, "relation": pl.String})]
    unknown = 0
    relations = read_shard(sources.read, "relations")
    if relations is not None:
        known, unknown = stated(relations, items, corpus)
        found.append(known)
    if sources.co_liked:
        pairs = pl.concat(pl.read_parquet(path / "co_liked.parquet") for path in sources.co_liked)
        likers = pl.concat(pl.read_parquet(path / "likers.parquet") for path in sources.events)
        near = nearest(pairs, likers.group_by("item").agg(pl.col("users").sum()).sort("item"))
        found.append(near.with_columns(relation=pl.lit("liked together")))
    found += [pl.read_parquet(path / "judged.parquet") for path in sources.judged]
    made, drops = make_pairs(pl.concat(found), items, recipe.pairs_per_item, recipe.seed)
    write_parquet(made, folder / "pairs.parquet", compression="lz4", row_group_size=1 << 14)
    related = pl.concat([made.select(item="left", other="right"), made.select(item="right", other="left")])
    write_mapped(related, folder / RELATED)
    return {"rows": len(made), "drops": drops | {"relation to an item that has no metadata": unknown}}


def read_events(events: Path, first: Path, texts: bool) -> pl.DataFrame:
    """Return a shard's events with `group`, and `text` where asked for."""
    users = pl.read_parquet(first / "users.parquet")["group"]
    frame = pl.read_parquet(events / "events.parquet")
    frame = frame.with_columns(group=users.gather(frame["user"]))
    if texts:
        path = first / "texts.parquet"
        missing = pl.lit(None, pl.String).alias("text")
        frame = frame.with_columns(pl.read_parquet(path)["text"] if path.exists() else missing)
    return frame


def counts_of(results: Sequence[Result]) -> dict[str, Any]:
    """Return rows by table and official splits over the parts of a corpus."""
    splits: dict[str, set[str]] = {}
    for result in results:
        for table, found in result["splits"].items():
            splits.setdefault(table, set()).update(found)
    return {"tables": total(result["tables"] for result in results), "splits": splits}


def require_rows(label: str, tables: dict[str, int], drops: dict[str, int]) -> None:
    """Raise unless a corpus has rows that a task can be made of.

    Raises:
        RecfoundError: it has none, or no item for those it has.
    """
    alone = ("items", "questions", "dialogues", "attributes", "matches", "made")
    if not any(tables.get(name) for name in alone):
        missing = "no item that can be used" if tables else "nothing that can be used"
        dropped = "".join(f"; {count:,} times {why}" for why, count in drops.items())
        raise RecfoundError(f"corpus {label!r} is empty: its files hold {missing}{dropped}")
