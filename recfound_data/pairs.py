"""Pairs of related items: what metadata states, what the same users liked, what was judged for the same query.

A pair is unordered, of two products of one domain, and belongs to one group whatever it is related by, so that no task
can have it in another split than its sibling.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfound_data.catalogue import global_id
from recfound_data.identity import draw, stable_id

LIKED_TOGETHER = "liked together"
JUDGED_SIMILAR, JUDGED_TOGETHER = "judged similar", "judged together"
_RECENT = 50
"""Liked items of one user that are paired with each other, the latest ones."""
_MIN_USERS = 3
_NEIGHBOURS = 5
_PAIRS_PER_QUERY = 10
_EXACT, _SUBSTITUTE, _COMPLEMENT = 3, 2, 1


def co_liked(events: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return how many of a shard's users liked two items both, and how many liked each, in the training period.

    Frames: `pair` (the smaller item in the upper 32 bits), `users`, sorted; and `item`, `users`, sorted.
    """
    liked = events.filter(pl.col("liked") & (pl.col("period") == "train")).select("user", "item")
    recent = liked.filter(pl.int_range(pl.len()).reverse().over("user") < _RECENT)
    user, item = recent["user"].to_numpy(), recent["item"].to_numpy().astype(np.uint64)
    found: list[NDArray[np.uint64]] = []
    for apart in range(1, _RECENT):
        same = user[apart:] == user[:-apart]
        if not same.any():
            break
        one, other = item[apart:][same], item[:-apart][same]
        found.append((np.minimum(one, other) << np.uint64(32)) | np.maximum(one, other))
    pairs, users = np.unique(np.concatenate(found) if found else np.empty(0, np.uint64), return_counts=True)
    sizes = recent.group_by("item").agg(users=pl.len().cast(pl.Int64)).sort("item")
    return pl.DataFrame({"pair": pairs, "users": users.astype(np.int64)}), sizes


def summed_pairs(parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Return `pair` and `users` summed over shards, those that enough users like; one range of pairs at a time."""
    return (
        pl.concat(parts).group_by("pair").agg(pl.col("users").sum()).filter(pl.col("users") >= _MIN_USERS).sort("pair")
    )


def nearest(pairs: pl.DataFrame, sizes: pl.DataFrame) -> pl.DataFrame:
    """Return each item's nearest neighbours by cosine of their likers: `item`, `other`.

    Args:
        pairs: `pair` and `users`, as `summed_pairs` returns them.
        sizes: `item` and `users`, over all shards.
    """
    ends = pairs.select(
        "users",
        item=(pl.col("pair") // (1 << 32)).cast(pl.UInt32),
        other=(pl.col("pair") % (1 << 32)).cast(pl.UInt32),
    )
    both = pl.concat([ends, ends.select("users", item="other", other="item")])
    scored = both.join(sizes.rename({"users": "of_item"}), on="item").join(
        sizes.select(other="item", of_other="users"), on="other"
    )
    scored = scored.with_columns(
        cosine=pl.col("users") / (pl.col("of_item") * pl.col("of_other")).cast(pl.Float64).sqrt()
    ).sort(["item", "cosine", "other"], descending=[False, True, False])
    return scored.group_by("item", maintain_order=True).head(_NEIGHBOURS).select("item", "other")


def stated(relations: pl.DataFrame, catalogue: pl.DataFrame, corpus: str) -> tuple[pl.DataFrame, int]:
    """Return relations between known items, `item`, `other`, `relation`, and how many name one without metadata."""
    keys = catalogue.select("item_id", "item")
    named = relations.select(
        pl.col("relation"), item_id=global_id(corpus, pl.col("item_id")), other_id=global_id(corpus, pl.col("other_id"))
    )
    known = named.join(keys, on="item_id").join(keys.select(other_id="item_id", other="item"), on="other_id")
    return known.select("item", "other", "relation"), len(relations) - len(known)


def judged(judgements: pl.DataFrame, catalogue: pl.DataFrame, corpus: str, seed: int) -> pl.DataFrame:
    """Return pairs that one query relates, at most ten of a kind a query: `item`, `other`, `relation`.

    An exact answer and a substitute are similar, an exact answer and a complement go together.
    """
    items = catalogue.select("item_id", "item")
    rows = judgements.select("group", "grade", item_id=global_id(corpus, pl.col("item_id"))).join(items, on="item_id")
    rows = rows.select("group", "item", pl.col("grade").max().over("group", "item")).unique()
    exact = rows.filter(pl.col("grade") == _EXACT).select("group", "item")
    found = []
    for grade, relation in ((_SUBSTITUTE, JUDGED_SIMILAR), (_COMPLEMENT, JUDGED_TOGETHER)):
        others = rows.filter(pl.col("grade") == grade).select("group", other="item")
        pairs = exact.join(others, on="group").with_columns(
            order=draw(seed, "judged pair", pl.col("group"), pl.col("item"), pl.col("other"))
        )
        few = (
            pairs.sort("group", "order", "item", "other").group_by("group", maintain_order=True).head(_PAIRS_PER_QUERY)
        )
        found.append(few.select("item", "other", relation=pl.lit(relation)))
    return pl.concat(found)


def make_pairs(
    related: pl.DataFrame, catalogue: pl.DataFrame, per_item: int, seed: int
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the pairs of a corpus, sorted by `group`, and the relations left out by reason.

    Columns: `group`; `left` and `right` (items, in the order of their titles' keys); `relations` (sorted names);
    `from_left` and `from_right`, whether the pair is among the `per_item` that are drawn for that end.

    Args:
        related: `item`, `other` and `relation`, in any direction, repeated or not.
        catalogue: of the corpus.
        per_item: pairs drawn for each item.
        seed: the recipe's.
    """
    columns = catalogue.select("item", "product", "domain", "id_hash")
    rows = related.join(columns, on="item", how="left", maintain_order="left").join(
        columns.select(other="item", other_product="product", other_domain="domain"),
        on="other",
        how="left",
        maintain_order="left",
    )
    different = rows.filter(
        (pl.col("product") != pl.col("other_product")) & (pl.col("domain") == pl.col("other_domain"))
    )
    # Two offers of one product are one end of a pair: the pair of products is what must not be in two splits.
    swapped = pl.col("product") > pl.col("other_product")
    ends = different.select(
        "relation",
        "domain",
        left=pl.when(swapped).then("other").otherwise("item"),
        right=pl.when(swapped).then("item").otherwise("other"),
        low=pl.min_horizontal("product", "other_product"),
        high=pl.max_horizontal("product", "other_product"),
    )
    pairs = (
        ends.sort("low", "high", "domain", "left", "right", "relation")
        .group_by("low", "high", "domain", maintain_order=True)
        .agg(pl.col("left").first(), pl.col("right").first(), relations=pl.col("relation").unique().sort())
    )
    title = catalogue["title_key"]
    pairs = pairs.with_columns(one=title.gather(pairs["left"]), two=title.gather(pairs["right"])).with_columns(
        group=stable_id("pair", pl.col("domain"), pl.col("one"), pl.col("two"))
    )
    # An item is the left of some pairs and the right of others: what is drawn for it is drawn among all of them.
    ends = pl.concat([pairs.select("group", item=side) for side in ("left", "right")])
    ends = ends.with_columns(name=catalogue["id_hash"].gather(ends["item"]))
    ends = ends.with_columns(number=draw(seed, "pair of item", pl.col("group"), pl.col("name")))
    few = ends.select(pl.col("number").rank("ordinal").over("item") <= per_item).to_series()
    pairs = pairs.with_columns(from_left=few.head(len(pairs)), from_right=few.tail(len(pairs)))
    drops = {
        "relation of an item to itself, its duplicate or another domain": len(rows) - len(different),
        "relation stated again": len(different) - len(different.select("item", "other", "relation").unique()),
    }
    return pairs.sort("group").select("group", "left", "right", "relations", "from_left", "from_right"), drops
