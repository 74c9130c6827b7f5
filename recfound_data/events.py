"""Interactions in time order, and which period each belongs to.

An event is one user's first interaction with one item. Its `period` says what may be derived from it: `train` alone
feeds popularity, co-rated pairs and training targets; `validation` and `test` are held out, `outside` (the
k-core) feeds nothing.
"""

from __future__ import annotations

import polars as pl

from recfound_data.catalogue import global_id
from recfound_data.identity import stable_id
from recfound_data.recipe import DataRecipe
from recfound_data.tables import TABLES, CorpusTables

_VALIDATION_FROM, _TEST_FROM = 0.8, 0.9
"""Global time: the quantiles of all interaction times at which validation and test begin."""


def make_events(tables: CorpusTables, catalogue: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return all events of a corpus and the interactions left out by reason.

    Columns: `user_id`, `item_id`, `rating`, `timestamp`, `liked`, `position` (of a liked event among its user's liked
    ones, from 0 in time order; null when not liked), `count` (of them), `period`.
    """
    raw = tables.read("interactions").select(list(TABLES["interactions"]))
    # The same user in two corpora is two: a query id names one history.
    raw = raw.with_columns(
        item_id=global_id(tables.corpus, pl.col("item_id")), user_id=stable_id(tables.corpus, pl.col("user_id"))
    )
    once = raw.unique(maintain_order=True)
    order = ["user_id", "timestamp", "tie"]
    known = once.join(catalogue.select("item_id", "title_key"), on="item_id", how="inner", maintain_order="left")
    # Two offers of one product are one choice: titles decide what a repetition is.
    first = known.with_columns(tie=stable_id(pl.col("item_id"))).sort([*order, "rating"])
    first = first.unique(["user_id", "title_key"], keep="first", maintain_order=True).drop("title_key")
    core = _k_core(first, tables.recipe.history.k_core).select("user_id", "item_id", inside=pl.lit(True))
    kept = first.join(core, on=["user_id", "item_id"], how="left", maintain_order="left").with_columns(
        pl.col("inside").fill_null(False)
    )
    drops = {
        "interaction repeated exactly": len(raw) - len(once),
        "interaction with an item that has no metadata": len(once) - len(known),
        "interaction with a product again": len(known) - len(first),
        "interaction outside the k-core": len(first) - len(core),
    }
    liked = (pl.col("rating") >= tables.recipe.history.min_rating) & pl.col("inside")
    events = kept.with_columns(liked=liked).with_columns(
        position=pl.when("liked").then(pl.col("liked").cum_sum().over("user_id") - 1).cast(pl.Int32),
        count=pl.col("liked").sum().over("user_id").cast(pl.Int32),
    )
    # Outside the core an event feeds nothing; it stays, because its item is no true negative for its user.
    period = pl.when("inside").then(_period(events, tables.recipe)).otherwise(pl.lit("outside"))
    return events.with_columns(period=period).drop("tie", "inside"), drops


def _k_core(events: pl.DataFrame, k: int) -> pl.DataFrame:
    while k > 1:
        enough = (pl.len().over("user_id") >= k) & (pl.len().over("item_id") >= k)
        kept = events.filter(enough)
        if len(kept) == len(events):
            break
        events = kept
    return events


def _period(events: pl.DataFrame, recipe: DataRecipe) -> pl.Expr:
    if recipe.split == "global_time":
        validation, test = (events["timestamp"].quantile(at, "lower") for at in (_VALIDATION_FROM, _TEST_FROM))
        time = pl.col("timestamp")
        return (
            pl.when(time >= test)
            .then(pl.lit("test"))
            .when(time >= validation)
            .then(pl.lit("validation"))
            .otherwise(pl.lit("train"))
        )
    # A user too short to be tested is all training. What was not liked is held out with the liked event before it.
    tested = pl.col("count") >= recipe.history.min_history + 1
    reached = pl.col("position").forward_fill().over("user_id").fill_null(-1)
    return (
        pl.when(tested & (reached >= pl.col("count") - 1)).then(pl.lit("test"))
        .when(tested & (reached == pl.col("count") - 2)).then(pl.lit("validation"))
        .otherwise(pl.lit("train"))
    )  # fmt: skip


def targets(events: pl.DataFrame, recipe: DataRecipe) -> pl.DataFrame:
    """Return the liked events that are targets, with their `split`.

    In validation and test that is each user's first event of the period, so that its history ends before the period;
    in training the last `train_targets_per_user`. All have at least `min_history` liked events before them.
    """
    history = recipe.history
    liked = events.filter("liked").with_columns(
        from_start=pl.col("position").rank("ordinal").over("user_id", "period"),
        from_end=pl.col("position").rank("ordinal", descending=True).over("user_id", "period"),
    )
    held_out = (pl.col("period") != "train") & (pl.col("from_start") == 1)
    training = (pl.col("period") == "train") & (pl.col("from_end") <= history.train_targets_per_user)
    chosen = liked.filter((held_out | training) & (pl.col("position") >= history.min_history))
    return chosen.drop("from_start", "from_end").rename({"period": "split"})


def histories(events: pl.DataFrame, chosen: pl.DataFrame, max_history: int) -> pl.DataFrame:
    """Return `user_id`, `position` and `history` for each of `chosen`.

    A history holds the item ids of the liked events before that position, latest first, at most `max_history`.
    """
    keys = ["user_id", "position"]
    steps = chosen.select(keys).with_columns(
        before=pl.int_ranges(pl.max_horizontal(pl.col("position") - max_history, 0), pl.col("position"), dtype=pl.Int32)
    )
    earlier = events.filter("liked").select("user_id", pl.col("position").alias("before"), "item_id")
    rows = steps.explode("before").join(earlier, on=["user_id", "before"], how="inner")
    return (
        rows.sort([*keys, "before"], descending=[False, False, True])
        .group_by(keys, maintain_order=True)
        .agg(pl.col("item_id").alias("history"))
    )


def popularity(events: pl.DataFrame) -> pl.DataFrame:
    """Return `item_id` and `popularity`: how many training-period events each item has."""
    return (
        events.filter(pl.col("period") == "train").group_by("item_id").agg(pl.len().alias("popularity")).sort("item_id")
    )
