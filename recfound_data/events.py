"""Interactions in time order, and which period each belongs to.

An event is one user's first interaction with one product. Its `period` says what may be derived from it: `train` alone
feeds popularity, co-liked pairs, profiles, reviews and training targets; `validation` and `test` are held out,
`outside` (the k-core) feeds nothing. All functions work on one shard of users.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfound_data.recipe import DataRecipe, HistorySettings

PERIODS = ("train", "validation", "test", "outside")
PERIOD = pl.Enum(list(PERIODS))
_VALIDATION_FROM, _TEST_FROM = 0.8, 0.9
"""Global time: the quantiles of all interaction times at which validation and test begin."""


@dataclass(frozen=True)
class TimeCuts:
    """The moments at which validation and test begin for everybody, under `global_time`."""

    validation: int
    test: int


def first_interactions(
    raw: pl.DataFrame, keys: pl.DataFrame
) -> tuple[pl.DataFrame, pl.Series, pl.Series, dict[str, int]]:
    """Return a shard's events, their texts, its users, and the interactions left out by reason.

    Args:
        raw: rows of the table `interactions`, with `group`.
        keys: `raw_id` (the corpus's own item id), `item`, `product` and `id_hash` of the catalogue.

    Returns:
        events: `user` (place among the users), `item`, `product`, `rating`, `timestamp`, in order of user and time.
        texts: the review of each event, or null.
        users: groups in order.
        drops: by reason.
    """
    known = raw.join(keys, left_on="item_id", right_on="raw_id", how="inner", maintain_order="left")
    ordered = known.sort("group", "timestamp", "id_hash", "rating", maintain_order=True, nulls_last=True)
    repeated = pl.all_horizontal(
        pl.col(name).eq_missing(pl.col(name).shift()) for name in ("group", "timestamp", "item", "rating")
    )
    once = ordered.filter(~repeated)
    # Two offers of one product are one choice: titles decide what a repetition is.
    first = once.unique(["group", "product"], keep="first", maintain_order=True)
    drops = {
        "interaction with an item that has no metadata": len(raw) - len(known),
        "interaction repeated exactly": len(known) - len(once),
        "interaction with a product again": len(once) - len(first),
    }
    begins = (pl.col("group") != pl.col("group").shift()).fill_null(True)
    events = first.select(
        (begins.cum_sum() - 1).cast(pl.UInt32).alias("user"), "item", "product", "rating", "timestamp"
    )
    return events, first["text"], first.filter(begins)["group"], drops


def dated_events(
    first: pl.DataFrame, recipe: DataRecipe, cuts: TimeCuts | None, core: NDArray[np.bool_] | None
) -> pl.DataFrame:
    """Return a shard's events with what their time makes of them, row by row.

    Adds `liked`, `position` (of a liked event among its user's liked ones, from 0 in time order; null when not liked),
    `count` (of them) and `period`.

    Args:
        first: as `first_interactions` returns them.
        recipe: says what is liked and how to split.
        cuts: under `global_time`.
        core: which events are inside the k-core; None where there is none. Outside it an event feeds nothing; it stays,
            because its item is no true negative for its user.
    """
    inside = pl.Series("inside", core) if core is not None else pl.lit(True).alias("inside")
    enough = (pl.col("rating") >= recipe.history.min_rating).fill_null(True)
    events = first.with_columns(inside).with_columns(liked=enough & pl.col("inside"))
    events = events.with_columns(
        position=pl.when("liked").then(pl.col("liked").cum_sum().over("user") - 1).cast(pl.Int32),
        count=pl.col("liked").sum().over("user").cast(pl.Int32),
    )
    period = pl.when("inside").then(_period(recipe.history, cuts)).otherwise(pl.lit("outside", PERIOD))
    return events.with_columns(period=period).drop("inside")


def _period(history: HistorySettings, cuts: TimeCuts | None) -> pl.Expr:
    train, validation, test = (pl.lit(name, PERIOD) for name in PERIODS[:3])
    if cuts is not None:
        time = pl.col("timestamp")
        later = pl.when(time >= cuts.test).then(test).when(time >= cuts.validation).then(validation)
        return later.otherwise(train)
    # A user too short to be tested is all training. What was not liked is held out with the liked event before it.
    tested = pl.col("count") >= history.min_history + 1
    reached = pl.col("position").forward_fill().over("user").fill_null(-1)
    last = pl.when(tested & (reached >= pl.col("count") - 1)).then(test)
    return last.when(tested & (reached == pl.col("count") - 2)).then(validation).otherwise(train)


def time_cuts(times: Iterable[pl.Series]) -> TimeCuts | None:
    """Return the moments at which validation and test begin, quantiles of all interaction times; None without any.

    `times` is gone through once and then again for each moment, and nothing of it is kept but counts: the first pass
    finds the stretch of time, the other the moment in it. Memory does not grow with the interactions.
    """
    width = 1 << 16
    counts = pl.concat([(time.rename("time") // width).value_counts() for time in times])
    coarse = counts.group_by("time").agg(pl.col("count").sum()).sort("time")
    total = int(coarse["count"].sum())
    if not total:
        return None
    reached = coarse["count"].cum_sum()
    found = []
    for share in (_VALIDATION_FROM, _TEST_FROM):
        rank = int(share * (total - 1))  # the "lower" quantile
        place = int((reached <= rank).sum())
        stretch, before = int(coarse["time"][place]), int(reached[place - 1]) if place else 0
        inside = pl.concat([time.filter(time // width == stretch) for time in times]).sort()
        found.append(int(inside[rank - before]))
    return TimeCuts(*found)


def k_core(
    shards: Sequence[tuple[NDArray[np.uint32], NDArray[np.uint32]]], items: int, k: int
) -> list[NDArray[np.bool_]]:
    """Return which events are in the k-core: every user and every item has `k` of them.

    Args:
        shards: users and items of each shard's events; no user is in two shards.
        items: items in the catalogue.
        k: the fewest events of a user, and of an item.
    """
    inside = [np.ones(len(users), dtype=np.bool_) for users, _ in shards]
    while True:
        counts = np.zeros(items, np.int64)
        for (_, item), kept in zip(shards, inside, strict=True):
            counts += np.bincount(item[kept], minlength=items)
        enough = counts >= k
        removed = 0
        for number, (users, item) in enumerate(shards):
            kept = inside[number] & enough[item]
            per_user = np.bincount(users[kept], minlength=int(users.max()) + 1 if len(users) else 0)
            kept &= per_user[users] >= k
            removed += int(inside[number].sum() - kept.sum())
            inside[number] = kept
        if not removed:
            return inside


@dataclass(frozen=True)
class Targets:
    """The events that samples ask for, in order of user and time, as arrays of equal length.

    Attributes:
        user: place among the shard's users.
        item: row of the catalogue.
        split: 0 train, 1 validation, 2 test.
        history: rows of the catalogue of the liked events before each target, latest first, target after target.
        starts: where each target's history begins in `history`.
        lengths: how long it is.
    """

    user: NDArray[np.uint32]
    item: NDArray[np.uint32]
    split: NDArray[np.uint8]
    history: NDArray[np.uint32]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]


def find_targets(events: pl.DataFrame, settings: HistorySettings) -> Targets:
    """Return a shard's targets: each user's first liked event of a held-out period, the latest ones of training."""
    liked = events.filter("liked")
    chosen = liked.select(
        "user",
        "item",
        "position",
        split=pl.col("period").cast(PERIOD).to_physical().cast(pl.UInt8),
        from_start=pl.int_range(pl.len()).over("user", "period"),
        size=pl.len().over("user", "period"),
    ).with_row_index("row")
    held_out = (pl.col("split") > 0) & (pl.col("from_start") == 0)
    latest = pl.col("size") - pl.col("from_start") <= settings.train_targets_per_user
    wanted = (held_out | ((pl.col("split") == 0) & latest)) & (pl.col("position") >= settings.min_history)
    chosen = chosen.filter(wanted)
    row = chosen["row"].to_numpy().astype(np.int64)
    lengths = np.minimum(chosen["position"].to_numpy(), settings.max_history).astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    # A liked event's position counts its user's liked rows before it, so a history is the rows just above.
    back = np.arange(int(lengths.sum()), dtype=np.int64) - np.repeat(starts, lengths)
    return Targets(
        user=chosen["user"].to_numpy(),
        item=chosen["item"].to_numpy(),
        split=chosen["split"].to_numpy(),
        history=liked["item"].to_numpy()[np.repeat(row, lengths) - 1 - back],
        starts=starts,
        lengths=lengths,
    )


def item_statistics(events: pl.DataFrame) -> pl.DataFrame:
    """Return `item`, `popularity` (events), `rated` and `rating_sum` over a shard's training period."""
    return (
        events.filter(pl.col("period") == "train")
        .group_by("item")
        .agg(
            popularity=pl.len(),
            rated=pl.col("rating").count(),
            rating_sum=pl.col("rating").cast(pl.Float64).sum(),
        )
        .sort("item")
    )
