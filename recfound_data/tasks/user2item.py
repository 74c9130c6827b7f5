"""user2item (U2I): what a user chose, latest first → the item chosen next. Ranked by MRR@20."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfound_data.events import Targets, find_targets
from recfound_data.identity import combined, mixed, sample_id, seeds_of
from recfound_data.negatives import Ranking, draw_negatives, known_products
from recfound_data.samples import SPLITS, Built, Corpus, embedding_rows, gathered, lists

TASK = "user2item"
DRIVEN_BY = "events"
READS = ("catalogue", "item_stats")
PHRASINGS = (
    "Find the item that a customer with these earlier choices, latest first, will choose next.",
    "These are a user's recent choices, the newest at the top. Retrieve the item that follows.",
    "Match this history of chosen items, most recent first, with the next one.",
    "From what this person picked so far, newest first, retrieve what they pick next.",
)


def build(corpus: Corpus) -> Built:
    """Return a plan of a sample for every target, with negatives as popular as it that its user never touched."""
    events = corpus.tables["events"]
    plan, lost = target_plan(corpus, TASK, corpus.recipe.negatives)
    plan = plan.with_columns(query=pl.col("id").str.slice(0, 16))
    asked = events.filter(pl.col("liked") & pl.col("group").is_in(plan["query"].unique().implode()))
    qrels = asked.select(split=pl.col("period").cast(pl.String), query="group", item="item", grade=pl.lit(1, pl.Int8))
    return Built(plan, qrels, {"target without enough negatives": lost})


def render(plan: pl.DataFrame, corpus: Corpus) -> pl.DataFrame:
    """Return the samples of a plan."""
    return embedding_rows(plan, corpus, TASK, PHRASINGS, anchors(plan, corpus))


def anchors(plan: pl.DataFrame, corpus: Corpus) -> pl.Series:
    """Return the titles of each history, a line each."""
    return gathered(corpus.tables["catalogue"]["title"], plan["history"]).list.join("\n")


def target_plan(corpus: Corpus, task: str, negatives: int) -> tuple[pl.DataFrame, int]:
    """Return `id`, `split`, `history`, `positive`, `negatives` and `twin` of each target, and how many found too few.

    user2item and sequential_recommendation have the same targets: what is held out in one is held out in the other.
    """
    events, catalogue, recipe = corpus.tables["events"], corpus.tables["catalogue"], corpus.recipe
    targets = find_targets(events, recipe.history)
    ids = catalogue.select("id_hash", "title_hash", "text_hash")
    asked, twins = _hashes(targets, ids)
    users = events.unique("user", keep="first", maintain_order=True)["group"]
    frame = pl.DataFrame({"group": users.gather(targets.user), "asked": asked, "split": targets.split})
    frame = frame.select("split", id=sample_id(pl.col("group"), task, corpus.name, pl.col("asked")))
    seeds = seeds_of(frame["id"], recipe.seed)
    known = known_products(events["user"].to_numpy(), events["product"].to_numpy())
    ranks = Ranking.of(corpus.tables["item_stats"], catalogue)
    rows, drawn = draw_negatives(targets.item, targets.user, seeds, known, ranks, negatives)
    plan = frame.with_columns(
        pl.col("split").replace_strict(dict(enumerate(SPLITS)), return_dtype=pl.String),
        history=lists(targets.history, targets.lengths),
        positive=pl.Series(targets.item),
        twin=pl.Series(twins),
    )[rows]
    every = lists(drawn.ravel(), np.full(len(rows), negatives, np.int64))
    return plan.with_columns(negatives=every), len(frame) - len(rows)


def _hashes(targets: Targets, items: pl.DataFrame) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return what names each target, from the ids of its items, and what its texts share with a twin's."""
    id_hash, title_hash, text_hash = (items[name].to_numpy() for name in ("id_hash", "title_hash", "text_hash"))
    asked = combined(id_hash[targets.history], targets.starts, targets.lengths)
    read = combined(title_hash[targets.history], targets.starts, targets.lengths)
    return mixed(asked + id_hash[targets.item]), mixed(read + text_hash[targets.item])
