"""item2item (I2I): an item → one bought, viewed or liked together with it, never itself. Ranked by NDCG@20."""

from __future__ import annotations

import polars as pl

from recfound_data.events import popularity
from recfound_data.identity import sample_id, stable_id
from recfound_data.negatives import draw_negatives, ranked
from recfound_data.samples import Built, Corpus, embedding_rows, group_split

TASK = "item2item"
DRIVEN_BY = "pairs"
READS = ("catalogue",)
PHRASINGS = (
    "Find an item that people choose together with this one.",
    "Retrieve a related item, one that goes along with the item shown.",
    "Which other item would somebody who chose this one also choose? Retrieve it.",
    "Match this item with another that is bought, viewed or liked by the same people.",
)
_RECENT = 50
_NEIGHBOURS = 5
_MIN_USERS = 3


def build(corpus: Corpus) -> Built:
    """Return a sample for both directions of every related pair; a pair is in one split."""
    recipe = corpus.recipe
    directed = [frame for frame in (corpus.relations, _co_liked(corpus)) if frame is not None]
    if not directed:
        return Built(pl.DataFrame(), drops={})
    stated = pl.concat([frame.select("item_id", "other_id") for frame in directed])
    pairs, drops = _pairs(stated, corpus.catalogue)
    pairs = pairs.with_columns(split=group_split(pl.col("group"), recipe, TASK))
    both = pl.concat([pairs, pairs.select(item_id="other_id", other_id="item_id", group="group", split="split")]).sort(
        "item_id", "other_id"
    )
    anchors = corpus.catalogue.select("item_id", anchor="text")
    rows = both.join(anchors, on="item_id", how="inner", maintain_order="left").select(
        "split",
        "anchor",
        anchor_id="item_id",
        positive_id="other_id",
        id=sample_id(pl.col("group"), TASK, corpus.name, pl.col("item_id"), pl.col("other_id")),
    )
    known = pl.concat(
        [
            both.select("other_id", owner="item_id"),
            both.select(other_id="item_id", owner="item_id").unique(maintain_order=True),
        ]
    )
    items = ranked(corpus.catalogue, None if corpus.events is None else popularity(corpus.events))
    wanted = rows.select("id", "positive_id", owner="anchor_id")
    negatives = draw_negatives(wanted, known.select("owner", item_id="other_id"), items, recipe.negatives, recipe.seed)
    kept = rows.join(negatives, on="id", how="inner", maintain_order="left")
    samples = embedding_rows(kept, corpus, TASK, PHRASINGS)
    queries = samples.select("split", query_id="anchor_id", task="task", text="anchor").unique(
        ["split", "query_id"], keep="first", maintain_order=True
    )
    qrels = both.select("split", query_id="item_id", item_id="other_id", grade=pl.lit(1, pl.Int8))
    drops["pair without enough negatives"] = len(rows) - len(kept)
    return Built(samples, queries, qrels, drops)


def _pairs(stated: pl.DataFrame, catalogue: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return unordered pairs of two different products of the catalogue, `item_id` < `other_id`, and their `group`."""
    keys = catalogue.select("item_id", "title_key", "domain")
    known = stated.join(keys, on="item_id", how="inner").join(
        keys, left_on="other_id", right_on="item_id", how="inner", suffix="_other"
    )
    different = known.filter(
        (pl.col("item_id") != pl.col("other_id"))
        & (pl.col("title_key") != pl.col("title_key_other"))
        & (pl.col("domain") == pl.col("domain_other"))
    )
    # Two offers of one product are one end of a pair: the pair of titles is what must not be in two splits.
    low, high = pl.min_horizontal("item_id", "other_id"), pl.max_horizontal("item_id", "other_id")
    ends = [pl.min_horizontal("title_key", "title_key_other"), pl.max_horizontal("title_key", "title_key_other")]
    grouped = different.select(item_id=low, other_id=high, group=stable_id(TASK, pl.col("domain"), *ends))
    pairs = grouped.sort("item_id", "other_id").unique("group", keep="first", maintain_order=True)
    drops = {
        "relation to an item that has no metadata": len(stated) - len(known),
        "relation of an item to itself or its duplicate": len(known) - len(different),
        "relation stated again": len(different) - len(pairs),
    }
    return pairs, drops


def _co_liked(corpus: Corpus) -> pl.DataFrame | None:
    """Return each item's nearest neighbours by cosine of their training-period likers, three of them shared."""
    if corpus.events is None:
        return None
    liked = corpus.events.filter(pl.col("liked") & (pl.col("period") == "train"))
    recent = liked.filter(pl.col("position").rank("ordinal", descending=True).over("user_id") <= _RECENT).select(
        "user_id", "item_id"
    )
    together = recent.join(recent, on="user_id", suffix="_other").filter(pl.col("item_id") != pl.col("item_id_other"))
    counts = (
        together.group_by("item_id", other_id="item_id_other")
        .agg(together=pl.len())
        .filter(pl.col("together") >= _MIN_USERS)
    )
    size = recent.group_by("item_id").agg(users=pl.len())
    scored = counts.join(size, on="item_id").join(size, left_on="other_id", right_on="item_id", suffix="_other")
    scored = scored.with_columns(
        cosine=pl.col("together") / (pl.col("users") * pl.col("users_other")).cast(pl.Float64).sqrt()
    )
    scored = scored.sort(["item_id", "cosine", "other_id"], descending=[False, True, False])
    return scored.group_by("item_id", maintain_order=True).head(_NEIGHBOURS).select("item_id", "other_id")
