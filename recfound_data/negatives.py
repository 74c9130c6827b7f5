"""Negatives that are hard and true: as popular as the positive, from its corpus and domain, never one that is known.

Drawn, unless a recipe has them searched for (`mining`): every draw is a function of the sample's seed and a counter,
so it depends on no order, no shard and no worker. Arrays throughout, because this is the hottest loop of a build.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfound_data.identity import draw, drawn

_WINDOW = 100
_ROUNDS = ((1.3, _WINDOW), (4.0, 10 * _WINDOW), (40.0, 1 << 40))
"""Draws per wanted negative and half-width of the popularity window, round by round for what is still short."""
_WHOLE_DOMAIN = 4_096
"""A domain of at most so many items is searched whole, in drawn order, for what is short after the last round."""
_AT_ONCE = 1 << 22
"""Draws that are looked at together."""

Items = NDArray[np.uint32]


@dataclass(frozen=True)
class Ranking:
    """The items of a corpus by popularity inside their domain.

    Attributes:
        by_rank: items, domain after domain, the most popular first.
        rank: each item's place in `by_rank`.
        first: where each item's domain begins in `by_rank`.
        size: how many items its domain has.
        product: equal for duplicates of one product.
    """

    by_rank: Items
    rank: NDArray[np.int64]
    first: NDArray[np.int64]
    size: NDArray[np.int64]
    product: Items

    @classmethod
    def of(cls, statistics: pl.DataFrame, catalogue: pl.DataFrame) -> Ranking:
        """Return the ranking that `rank_items` stored."""
        rank, first, size = (statistics[name].to_numpy() for name in ("rank", "first", "size"))
        by_rank = np.empty(len(rank), np.uint32)
        by_rank[rank] = np.arange(len(rank), dtype=np.uint32)
        return cls(by_rank, rank, first, size, catalogue["product"].to_numpy())


def rank_items(catalogue: pl.DataFrame, statistics: pl.DataFrame | None) -> pl.DataFrame:
    """Return a row an item, in the catalogue's order: its statistics and its rank by popularity.

    Columns: `item`, `popularity`, `rated`, `rating_mean` (null where nobody rated it), `rank`, `first` and `size`; the
    last three as in `Ranking`.

    Args:
        catalogue: of the corpus.
        statistics: sums as `events.item_statistics` returns them, over all shards; None without events.
    """
    items = catalogue.select("item", "item_id", "domain")
    if statistics is None:
        none = {"popularity": pl.UInt32, "rated": pl.UInt32, "rating_sum": pl.Float64}
        items = items.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in none.items())
    else:
        items = items.join(statistics, on="item", how="left", maintain_order="left")
    items = items.with_columns(
        pl.col("popularity", "rated").fill_null(0), tie=draw(0, "rank", pl.col("item_id"))
    ).with_columns(rating_mean=pl.when(pl.col("rated") > 0).then(pl.col("rating_sum") / pl.col("rated")))
    ordered = items.sort(["domain", "popularity", "tie"], descending=[False, True, False])
    ordered = ordered.with_columns(rank=pl.int_range(pl.len(), dtype=pl.Int64)).with_columns(
        first=pl.col("rank").min().over("domain"), size=pl.len().over("domain").cast(pl.Int64)
    )
    return ordered.sort("item").select("item", "popularity", "rated", "rating_mean", "rank", "first", "size")


def known_products(owner: NDArray[np.integer], product: Items) -> NDArray[np.uint64]:
    """Return pairs of an owner and a product that it knows, each as one number, sorted."""
    return np.unique(paired(owner, product))


def draw_negatives(
    positive: Items,
    owner: NDArray[np.integer],
    seed: NDArray[np.uint64],
    known: NDArray[np.uint64],
    ranks: Ranking,
    count: int,
    preferred: Items | None = None,
) -> tuple[NDArray[np.intp], Items]:
    """Return the rows that have `count` negatives, and their negatives `[rows, count]`, nearest draws first.

    Args:
        positive: `[samples]` items.
        owner: `[samples]`; what an owner knows is never its negative.
        seed: `[samples]`; what the draws of a sample come from.
        known: as `known_products` returns it.
        ranks: of the corpus.
        count: negatives a sample.
        preferred: `[samples, width]` true negatives that are taken first, in this order; where a place holds the
            positive, nothing is.
    """
    found = np.zeros((len(positive), count), np.uint32)
    have = np.zeros(len(positive), np.int64)
    if preferred is not None:
        none = np.empty(0, np.uint64)
        for rows in chunks(np.arange(len(positive)), preferred.shape[1]):
            _take(rows, preferred[rows], positive, owner, none, ranks, found, have)
    first_draw = 0
    for per_negative, window in _ROUNDS:
        draws = int(per_negative * count) + 4
        for rows in chunks(np.flatnonzero(have < count), draws):
            low = np.maximum(ranks.rank[positive[rows]] - window, ranks.first[positive[rows]])
            last = ranks.first[positive[rows]] + ranks.size[positive[rows]] - 1
            span = (np.minimum(ranks.rank[positive[rows]] + window, last) - low + 1).astype(np.uint64)
            at = drawn(seed[rows], draws, first_draw) % span[:, None]
            candidates = ranks.by_rank[low[:, None] + at.astype(np.int64)]
            _take(rows, candidates, positive, owner, known, ranks, found, have)
        first_draw += draws
    for row in np.flatnonzero((have < count) & (ranks.size[positive] <= _WHOLE_DOMAIN)):
        # Few: what a small domain has left is taken in drawn order.
        begin, size = ranks.first[positive[row]], int(ranks.size[positive[row]])
        order = np.argsort(drawn(seed[row : row + 1], size, first_draw)[0], kind="stable")
        candidates = ranks.by_rank[begin + order][None, :]
        _take(np.array([row]), candidates, positive, owner, known, ranks, found, have)
    enough = np.flatnonzero(have == count)
    return enough, found[enough]


def chunks(rows: NDArray[np.intp], width: int) -> list[NDArray[np.intp]]:
    """Return rows in runs short enough that `width` numbers of each fit into memory together."""
    return [part for part in np.array_split(rows, max(1, len(rows) * width // _AT_ONCE)) if len(part)]


def _take(
    rows: NDArray[np.intp],
    candidates: Items,
    positive: Items,
    owner: NDArray[np.integer],
    known: NDArray[np.uint64],
    ranks: Ranking,
    found: Items,
    have: NDArray[np.int64],
) -> None:
    """Put the true negatives among `candidates` after those found, in the order drawn."""
    count = found.shape[1]
    earlier = np.where(np.arange(count)[None, :] < have[rows][:, None], found[rows].astype(np.int64), -1)
    products = ranks.product[candidates].astype(np.int64)
    taken = np.where(earlier >= 0, ranks.product[np.maximum(earlier, 0)].astype(np.int64), -1)
    true = products != ranks.product[positive[rows]].astype(np.int64)[:, None]
    true &= ~among(paired(owner[rows][:, None], products.astype(np.uint64)), known)
    # A duplicate of a known item is as known as the item itself: products decide, not ids.
    for place in range(count):
        if (have[rows] > place).any():
            true &= products != taken[:, place : place + 1]
    for place in range(1, candidates.shape[1]):
        same = (products[:, :place] == products[:, place : place + 1]) & true[:, :place]
        true[:, place] &= ~same.any(axis=1)
    place = have[rows][:, None] + np.cumsum(true, axis=1) - 1
    fits = true & (place < count)
    row, column = np.nonzero(fits)
    found[rows[row], place[row, column]] = candidates[row, column]
    have[rows] += fits.sum(axis=1)


def paired(owner: NDArray[np.integer], product: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Return two numbers of 32 bits each as one."""
    return (owner.astype(np.uint64) << np.uint64(32)) | product.astype(np.uint64)


def among(pairs: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return for each pair whether it is known; `known` is sorted."""
    if not len(known):
        return np.zeros(pairs.shape, np.bool_)
    place = np.minimum(np.searchsorted(known, pairs), len(known) - 1)
    return known[place] == pairs
