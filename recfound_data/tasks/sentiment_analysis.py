"""sentiment_analysis (SA): a review → one of five sentiments, from very negative to very positive. Macro-F1.

The label is the reviewer's own number of stars, 1 to 5. A review has 10 words or more, is shown in at most
`_REVIEW_CHARS` characters, and is from the training period, whatever the split of its sample, so that no held-out
choice is told. Samples are split by user.

Nine reviews of ten in a shop have five stars. A sample of all of them would hardly hold the middle of the scale, so of
each user those with the rarest rating are taken: in most shops 2 stars are rarest, then 1, 3, 4 and 5.
"""

from __future__ import annotations

import polars as pl

from recfound_data.cleaning import OPTION_CHARS, clean, shorten
from recfound_data.identity import draw, sample_id
from recfound_data.prose import rating_scale
from recfound_data.samples import Built, Corpus, generative_rows, group_split, phrased

TASK = "sentiment_analysis"
DRIVEN_BY = "events"
READS = ("catalogue", "item_stats", "texts")
PHRASINGS = (
    "What does the writer of this review feel? Choose one of the five sentiments.",
    "Judge how satisfied the author of the review below is, and answer with one option.",
    "Classify the sentiment of this review. Reply with the option alone.",
    "Read the review and name the option that describes its tone best.",
    "Someone wrote this after trying the item. Which of the options is their overall opinion?",
)
LABELS = ("very negative", "negative", "neutral", "positive", "very positive")
"""For 1, 2, 3, 4 and 5 stars."""

_RAREST_FIRST = (2.0, 1.0, 3.0, 4.0, 5.0)
_REVIEW_CHARS = 1_000
_MIN_WORDS = 10
_LETTER = r"(?:[^\s<]|<[^a-zA-Z/\s])"
_GAP = r"(?:\s|<\s|</?[a-zA-Z][^<>]*>)"
_LONG_ENOUGH = rf"^{_GAP}*(?:{_LETTER}+{_GAP}+){{{_MIN_WORDS - 1}}}{_LETTER}"
"""Ten words with spaces or tags between them: stops at the tenth, so that a raw text is judged without cleaning it."""


def build(corpus: Corpus) -> Built:
    """Return a sample for the chosen reviews of every user; only these are cleaned."""
    events = corpus.tables["events"]
    reviews = events.filter(pl.col("text").is_not_null())
    trained = reviews.filter(pl.col("period") == "train")
    five_stars = rating_scale(corpus.tables.get("item_stats")) == len(LABELS)
    starred = trained.filter(pl.col("rating").is_in(_RAREST_FIRST) & five_stars)
    long = starred.filter(pl.col("text").str.contains(_LONG_ENOUGH))
    chosen = _chosen(long, corpus)
    cleaned = chosen.with_columns(text=shorten(clean(pl.col("text")), _REVIEW_CHARS))
    kept = cleaned.filter(pl.col("text").str.contains(_LONG_ENOUGH))
    drops = {
        "interaction without a review": len(events) - len(reviews),
        "review outside the training period": len(reviews) - len(trained),
        "review without a whole number of one to five stars": len(trained) - len(starred),
        "review of fewer than 10 words": len(starred) - len(long) + len(cleaned) - len(kept),
        "review beyond sentiment_per_user": len(long) - len(chosen),
    }
    return Built(generative_rows(_rows(kept, corpus), corpus, TASK), drops=drops)


def _chosen(reviews: pl.DataFrame, corpus: Corpus) -> pl.DataFrame:
    """Return at most `sentiment_per_user` reviews a user, those with the rarest ratings, drawn among equals."""
    rarity = pl.col("rating").replace_strict(_RAREST_FIRST, range(len(_RAREST_FIRST)), return_dtype=pl.UInt64)
    # One number to sort by: the rarity in the high bits, the draw in the others.
    drawn = draw(corpus.recipe.seed, TASK, pl.col("group"), pl.col("item"))
    order = reviews.select("group", row=pl.int_range(pl.len()), key=rarity * (1 << 61) + drawn // 8)
    first = order.sort("group", "key").group_by("group", maintain_order=True).head(corpus.recipe.sentiment_per_user)
    return reviews[first["row"]]


def _rows(reviews: pl.DataFrame, corpus: Corpus) -> pl.DataFrame:
    items = corpus.tables["catalogue"].select("item_id", "domain", "title")[reviews["item"]]
    rows = reviews.hstack(items.with_columns(title=shorten(clean(pl.col("title")), OPTION_CHARS)))
    label = pl.col("rating").replace_strict(dict(enumerate(LABELS, 1)), return_dtype=pl.String)
    rows = rows.select(
        "domain",
        "title",
        "text",
        label=label,
        id=sample_id(pl.col("group"), TASK, corpus.name, pl.col("item_id"), pl.col("text")),
        split=group_split(pl.col("group"), corpus.recipe, TASK),
        options=pl.lit(list(LABELS), pl.List(pl.String)),
    )
    prompt = pl.format(
        "{}\n\nOptions: {}\n\n{}Review: {}",
        phrased(PHRASINGS, corpus.recipe.seed, pl.col("id")),
        pl.lit(", ".join(LABELS)),
        pl.when(pl.col("title") == "").then(pl.lit("")).otherwise(pl.format("Item: {}\n", pl.col("title"))),
        pl.col("text"),
    )
    return rows.with_columns(prompt=prompt)
