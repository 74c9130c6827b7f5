"""sequential_recommendation (SR): a history and twenty lettered options → the letter of the next item. Recall@1."""

from __future__ import annotations

import numpy as np
import polars as pl

from recfound_data.cleaning import OPTION_CHARS, shorten
from recfound_data.identity import drawn, seeds_of
from recfound_data.samples import LETTERS, Built, Corpus, gathered, generative_rows, lists, phrased
from recfound_data.tasks.user2item import target_plan

TASK = "sequential_recommendation"
DRIVEN_BY = "events"
READS = ("catalogue", "item_stats")
PHRASINGS = (
    "Which option will this user choose next? Answer with its letter.",
    "Pick the item that continues the user's history. Reply with one letter.",
    "Below are a user's choices and twenty candidates. Give the letter of the most likely next choice.",
    "Recommend the next item for this user by naming the letter of one option.",
)


def build(corpus: Corpus) -> Built:
    """Return a plan of a sample for every target: nineteen popularity-matched negatives beside it, in drawn order."""
    plan, lost = target_plan(corpus, TASK, len(LETTERS) - 1)
    negatives = plan["negatives"].list.explode().to_numpy().reshape(len(plan), len(LETTERS) - 1)
    options = np.column_stack([plan["positive"].to_numpy(), negatives])
    seeds = seeds_of(plan["id"], corpus.recipe.seed, " options")
    order = np.argsort(drawn(seeds, len(LETTERS)), axis=1, kind="stable")
    lettered = np.take_along_axis(options, order, axis=1)
    plan = plan.select("id", "split", "history", "twin", place=pl.Series(np.argmin(order, axis=1).astype(np.uint8)))
    shown = lists(lettered.ravel(), np.full(len(plan), len(LETTERS), np.int64))
    return Built(plan.with_columns(options=shown), drops={"target without enough negatives": lost})


def render(plan: pl.DataFrame, corpus: Corpus) -> pl.DataFrame:
    """Return the samples of a plan."""
    catalogue = corpus.tables["catalogue"]
    titles = catalogue.select(option_title(pl.col("title"))).to_series()
    rows = plan.select(
        "id",
        "split",
        domain=catalogue["domain"].gather(plan["options"].list.first()),
        history=gathered(titles, plan["history"]),
        options=gathered(titles, plan["options"]),
        label=pl.col("place").replace_strict(dict(enumerate(LETTERS)), return_dtype=pl.String),
    )
    return generative_rows(rows.with_columns(prompt=_prompt(corpus.recipe.seed)), corpus, TASK)


def option_title(title: pl.Expr) -> pl.Expr:
    """Return a title as it stands in a history or an option."""
    return shorten(title, OPTION_CHARS)


def _prompt(seed: int) -> pl.Expr:
    # A letter stands before its option, as people number choices; the answer is the letter alone.
    lines = [
        pl.format("{}. {}", pl.lit(letter), pl.col("options").list.get(place)) for place, letter in enumerate(LETTERS)
    ]
    history = pl.concat_str([pl.lit("- "), pl.col("history").list.join("\n- ")])
    return pl.format(
        "{}\n\nChosen so far, latest first:\n{}\n\nOptions:\n{}",
        phrased(PHRASINGS, seed, pl.col("id")),
        history,
        pl.concat_str(lines, separator="\n"),
    )
