"""sequential_recommendation (SR): a history and twenty lettered options → the letter of the next item. Recall@1."""

from __future__ import annotations

import polars as pl

from recfound_data.cleaning import OPTION_CHARS, shorten
from recfound_data.events import popularity
from recfound_data.identity import draw, sample_id
from recfound_data.negatives import draw_negatives, ranked
from recfound_data.samples import GENERATIVE, LETTERS, Built, Corpus, looked_up, message, phrased
from recfound_data.tasks.user2item import target_rows

TASK = "sequential_recommendation"
DRIVEN_BY = "events"
READS = ("catalogue",)
PHRASINGS = (
    "Which option will this user choose next? Answer with its letter.",
    "Pick the item that continues the user's history. Reply with one letter.",
    "Below are a user's choices and twenty candidates. Give the letter of the most likely next choice.",
    "Recommend the next item for this user by naming the letter of one option.",
)


def build(corpus: Corpus) -> Built:
    """Return a sample for every target: nineteen popularity-matched negatives beside it, in drawn order."""
    assert corpus.events is not None, "NEEDS names the table that build() is given"
    recipe = corpus.recipe
    # The same targets as user2item, under ids of this task's own: what is held out in one is held out in the other.
    rows = target_rows(corpus).with_columns(
        id=sample_id(pl.col("user_id"), TASK, corpus.name, pl.col("positive_id"), pl.col("history").list.join(" "))
    )
    wanted = rows.select("id", "positive_id", owner="user_id")
    known = corpus.events.select("item_id", owner="user_id")
    items = ranked(corpus.catalogue, popularity(corpus.events))
    negatives = draw_negatives(wanted, known, items, len(LETTERS) - 1, recipe.seed)
    kept = rows.join(negatives, on="id", how="inner", maintain_order="left")
    kept = kept.join(_lettered(kept, recipe.seed), on="id", how="inner", maintain_order="left")
    titled = corpus.catalogue.with_columns(title=option_title(pl.col("title")))
    domains = corpus.catalogue.select("domain", positive_id="item_id")
    samples = kept.join(domains, on="positive_id", maintain_order="left").with_columns(
        history=looked_up(kept, "history", titled, "title"), options=looked_up(kept, "options", titled, "title")
    )
    samples = samples.with_columns(
        task=pl.lit(TASK),
        corpus=pl.lit(corpus.name),
        prompt=message("user", _prompt(recipe.seed)),
        completion=message("assistant", pl.col("label")),
        label_source=pl.lit("corpus"),
    )
    return Built(samples.select(*GENERATIVE, "split"), drops={"target without enough negatives": len(rows) - len(kept)})


def option_title(title: pl.Expr) -> pl.Expr:
    """Return a title as it stands in a history or an option."""
    return shorten(title, OPTION_CHARS)


def _lettered(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Return `id`, `options` (item ids in drawn order) and `label` (the positive's letter)."""
    options = rows.select("id", "positive_id", item_id=pl.concat_list("positive_id", "negative_ids")).explode("item_id")
    options = options.with_columns(order=draw(seed, "option", pl.col("id"), pl.col("item_id"))).sort(
        "id", "order", "item_id"
    )
    options = options.with_columns(place=pl.int_range(pl.len()).over("id"))
    right = pl.col("place").filter(pl.col("item_id") == pl.col("positive_id")).first()
    letters = dict(enumerate(LETTERS))
    lettered = options.group_by("id", maintain_order=True).agg(options="item_id", label=right)
    return lettered.with_columns(label=pl.col("label").replace_strict(letters, return_dtype=pl.String))


def _prompt(seed: int) -> pl.Expr:
    # A letter stands before its option, as people number choices; the answer is the letter alone.
    lines = [
        pl.format("{}. {}", pl.lit(letter), pl.col("options").list.get(place)) for place, letter in enumerate(LETTERS)
    ]
    history = pl.col("history").list.eval(pl.format("- {}", pl.element())).list.join("\n")
    return pl.format(
        "{}\n\nChosen so far, latest first:\n{}\n\nOptions:\n{}",
        phrased(PHRASINGS, seed, pl.col("id")),
        history,
        pl.concat_str(lines, separator="\n"),
    )
