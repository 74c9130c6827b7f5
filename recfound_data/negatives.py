"""Negatives that are hard and true: as popular as the positive, from its corpus and domain, never one that is known.

Drawn, not searched: every draw is a hash of the sample and a counter, so it depends on no order and no worker.
"""

from __future__ import annotations

import polars as pl

from recfound_data.identity import draw

_WINDOW = 100
_ROUNDS = ((3, _WINDOW), (20, 10 * _WINDOW), (60, 10**9))
"""Draws per wanted negative and half-width of the popularity window, round by round for what is still short."""


def ranked(catalogue: pl.DataFrame, popularity: pl.DataFrame | None) -> pl.DataFrame:
    """Return `item_id`, `domain`, `title_key`, `rank` by popularity inside the domain, and the domain's `size`."""
    items = catalogue.select("item_id", "domain", "title_key")
    if popularity is None:
        items = items.with_columns(popularity=pl.lit(0))
    else:
        items = items.join(popularity, on="item_id", how="left").with_columns(pl.col("popularity").fill_null(0))
    items = items.with_columns(tie=draw(0, "rank", pl.col("item_id"))).sort(
        ["domain", "popularity", "tie"], descending=[False, True, False]
    )
    return items.select(
        "item_id",
        "domain",
        "title_key",
        rank=pl.int_range(pl.len(), dtype=pl.Int64).over("domain"),
        size=pl.len().over("domain").cast(pl.Int64),
    )


def draw_negatives(
    wanted: pl.DataFrame, known: pl.DataFrame, items: pl.DataFrame, count: int, seed: int
) -> pl.DataFrame:
    """Return `id` and `negative_ids`, `count` for each row of `wanted` that has so many; the others are absent.

    Args:
        wanted: `id` of the sample, `positive_id`, and `owner`, whose known items are never its negatives.
        known: pairs of `owner` and `item_id`.
        items: as `ranked` returns them.
        count: negatives a sample.
        seed: the recipe's.
    """
    positive = items.select(
        pl.col("item_id").alias("positive_id"), "domain", "rank", "size", pl.col("title_key").alias("positive_key")
    )
    base = wanted.select("id", "owner", "positive_id").join(positive, on="positive_id", how="inner")
    owner_keys = (
        known.join(items.select("item_id", "title_key"), on="item_id", how="inner")
        .select("owner", "title_key")
        .unique()
    )
    found = pl.DataFrame(schema={"id": pl.String, "item_id": pl.String, "title_key": pl.String})
    for number, (per_negative, window) in enumerate(_ROUNDS):
        have = found.group_by("id").agg(pl.len().alias("have"))
        short = base.join(have, on="id", how="left").filter(pl.col("have").fill_null(0) < count)
        if short.is_empty():
            break
        drawn = _candidates(short, items, count * per_negative, window, seed + number)
        # A duplicate of a known item is as known as the item itself: titles decide, not ids.
        true = drawn.filter(pl.col("title_key") != pl.col("positive_key")).join(
            owner_keys, on=["owner", "title_key"], how="anti", maintain_order="left"
        )
        found = pl.concat([found, true.select("id", "item_id", "title_key")])
        found = (
            found.unique(["id", "title_key"], keep="first", maintain_order=True)
            .group_by("id", maintain_order=True)
            .head(count)
        )
    grouped = found.group_by("id", maintain_order=True).agg(pl.col("item_id").alias("negative_ids"))
    return grouped.filter(pl.col("negative_ids").list.len() == count)


def _candidates(base: pl.DataFrame, items: pl.DataFrame, draws: int, window: int, seed: int) -> pl.DataFrame:
    """Return `draws` items for each row, at ranks within `window` of the positive's, in the order drawn."""
    low = pl.max_horizontal(pl.col("rank") - window, 0)
    high = pl.min_horizontal(pl.col("rank") + window, pl.col("size") - 1)
    rows = base.with_columns(low=low, span=high - low + 1).with_columns(
        draw=pl.int_ranges(0, pl.min_horizontal(pl.lit(draws), pl.col("span") * 2), dtype=pl.Int64)
    )
    rows = rows.explode("draw", empty_as_null=False, keep_nulls=False)
    at = pl.col("low") + (draw(seed, "negative", pl.col("id"), pl.col("draw")) % pl.col("span").cast(pl.UInt64)).cast(
        pl.Int64
    )
    picked = rows.select("id", "owner", "positive_key", "domain", rank=at)
    lookup = items.select("item_id", "domain", "title_key", "rank")
    return picked.join(lookup, on=["domain", "rank"], how="inner", maintain_order="left")
