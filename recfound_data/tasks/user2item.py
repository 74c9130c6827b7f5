"""user2item (U2I): what a user chose, latest first → the item chosen next. Ranked by MRR@20."""

from __future__ import annotations

import polars as pl

from recfound_data.events import histories, popularity, targets
from recfound_data.identity import sample_id
from recfound_data.negatives import draw_negatives, ranked
from recfound_data.samples import Built, Corpus, embedding_rows, looked_up

TASK = "user2item"
DRIVEN_BY = "events"
READS = ("catalogue",)
PHRASINGS = (
    "Find the item that a customer with these earlier choices, latest first, will choose next.",
    "These are a user's recent choices, the newest at the top. Retrieve the item that follows.",
    "Match this history of chosen items, most recent first, with the next one.",
    "From what this person picked so far, newest first, retrieve what they pick next.",
)


def build(corpus: Corpus) -> Built:
    """Return a sample for every target, with negatives as popular as it that its user never touched."""
    events, recipe = _events(corpus), corpus.recipe
    rows = target_rows(corpus)
    wanted = rows.select("id", "positive_id", owner="user_id")
    known = events.select("item_id", owner="user_id")
    negatives = draw_negatives(
        wanted, known, ranked(corpus.catalogue, popularity(events)), recipe.negatives, recipe.seed
    )
    kept = rows.join(negatives, on="id", how="inner", maintain_order="left")
    samples = embedding_rows(kept.with_columns(anchor_id=pl.col("user_id")), corpus, TASK, PHRASINGS)
    queries = samples.select("split", query_id="anchor_id", task="task", text="anchor").unique(
        ["split", "query_id"], keep="last", maintain_order=True
    )
    liked = events.filter("liked").join(
        queries.select(user_id="query_id").unique(), on="user_id", how="semi", maintain_order="left"
    )
    qrels = liked.select(split="period", query_id="user_id", item_id="item_id", grade=pl.lit(1, pl.Int8))
    return Built(samples, queries, qrels, {"target without enough negatives": len(rows) - len(kept)})


def target_rows(corpus: Corpus) -> pl.DataFrame:
    """Return targets: `id`, `split`, `user_id`, `position`, `positive_id`, `history` (item ids), `anchor` (titles)."""
    events = _events(corpus)
    chosen = targets(events, corpus.recipe).select("user_id", "position", "split", positive_id="item_id")
    rows = chosen.join(
        histories(events, chosen, corpus.recipe.history.max_history), on=["user_id", "position"], how="inner"
    )
    rows = rows.sort("user_id", "position")
    titles = looked_up(rows, "history", corpus.catalogue, "title")
    return rows.with_columns(
        anchor=titles.list.join("\n"),
        id=sample_id(pl.col("user_id"), TASK, corpus.name, pl.col("positive_id"), pl.col("history").list.join(" ")),
    )


def _events(corpus: Corpus) -> pl.DataFrame:
    assert corpus.events is not None, "NEEDS names the table that build() is given"
    return corpus.events
