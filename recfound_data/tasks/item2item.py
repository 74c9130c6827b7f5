"""item2item (I2I): an item → one bought, viewed or liked together with it, never itself. Ranked by NDCG@20."""

from __future__ import annotations

import numpy as np
import polars as pl

from recfound_data.identity import sample_id, seeds_of
from recfound_data.mining import Queries, mine
from recfound_data.negatives import Ranking, draw_negatives, known_products
from recfound_data.pairs import LIKED_TOGETHER
from recfound_data.samples import Built, Corpus, embedding_rows, group_split, lists

TASK = "item2item"
DRIVEN_BY = "pairs"
READS = ("catalogue", "item_stats", "related")
PHRASINGS = (
    "Find an item that people choose together with this one.",
    "Retrieve a related item, one that goes along with the item shown.",
    "Which other item would somebody who chose this one also choose? Retrieve it.",
    "Match this item with another that is bought, viewed or liked by the same people.",
)
_RELATIONS = ["bought together", "viewed together", LIKED_TOGETHER]


def build(corpus: Corpus) -> Built:
    """Return a plan of a sample for each drawn direction of every related pair; a pair is in one split."""
    recipe, catalogue = corpus.recipe, corpus.tables["catalogue"]
    pairs = corpus.tables["pairs"].filter(pl.col("relations").list.set_intersection(_RELATIONS).list.len() > 0)
    pairs = pairs.with_columns(split=group_split(pl.col("group"), recipe, "pair"))
    there = pairs.select("group", "split", "from_left", "from_right", anchor="left", positive="right")
    back = pairs.select(
        "group", "split", from_left="from_right", from_right="from_left", anchor="right", positive="left"
    )
    both = pl.concat([there, back]).sort("group", maintain_order=True)
    both = both.with_columns(query=catalogue["item_id"].gather(both["anchor"]))
    ids = catalogue["item_id"].gather(both["positive"])
    both = both.with_columns(id=sample_id(pl.col("group"), TASK, corpus.name, pl.col("query"), pl.lit(ids)))
    rows = both.filter("from_left").sort("id")
    seeds = seeds_of(rows["id"], recipe.seed)
    related, product = corpus.tables["related"], catalogue["product"].to_numpy()
    # What an item is related to, and what it is itself, is no negative of it.
    owner = np.concatenate([related["item"].to_numpy(), rows["anchor"].to_numpy()])
    known = known_products(owner, product[np.concatenate([related["other"].to_numpy(), rows["anchor"].to_numpy()])])
    ranks = Ranking.of(corpus.tables["item_stats"], catalogue)
    anchor, positive = rows["anchor"].to_numpy(), rows["positive"].to_numpy()
    index, found = corpus.mined(TASK), None
    if index is not None:
        # An anchor is searched for by its title: a whole text would be mostly words that say little.
        queries = Queries(catalogue["title"], catalogue["item"].to_numpy())
        found = mine(index, ranks, queries, anchor, (positive, anchor), known, recipe.negatives)
    preferred = found.candidates if found else None
    kept, drawn = draw_negatives(positive, anchor, seeds, known, ranks, recipe.negatives, preferred)
    texts = catalogue["text_hash"].to_numpy()
    twins = texts[anchor] * np.uint64(3) + texts[positive]
    plan = rows.with_columns(twin=pl.Series(twins)).select("id", "split", "query", "anchor", "positive", "twin")[kept]
    plan = plan.with_columns(negatives=lists(drawn.ravel(), np.full(len(kept), recipe.negatives, np.int64)))
    qrels = both.select("split", "query", item="positive", grade=pl.lit(1, pl.Int8))
    mined = found.counts(kept, drawn) if found else {}
    return Built(plan, qrels, {"pair without enough negatives": len(rows) - len(kept)}, mined)


def render(plan: pl.DataFrame, corpus: Corpus) -> pl.DataFrame:
    """Return the samples of a plan."""
    return embedding_rows(plan, corpus, TASK, PHRASINGS, anchors(plan, corpus))


def anchors(plan: pl.DataFrame, corpus: Corpus) -> pl.Series:
    """Return the text of each anchor's item."""
    return corpus.tables["catalogue"]["text"].gather(plan["anchor"])
