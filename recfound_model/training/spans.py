"""Auxiliary pairs: a few words of an item's description, and the item's title as what they should find.

A source of embedding samples beside the tasks. It has a name, losses and a share of its own, and its texts take the
route of `query2item`. A small base learns words from it that the tasks of a small corpus do not teach.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from random import Random
from typing import Any

import polars as pl

from recfound_data.errors import UsageError
from recfound_data.identity import hash64
from recfound_model.training.streams import Stream, load_split, seed_of

ITEM_SPANS = "item_spans"
ROUTED_AS = "query2item"
PHRASINGS = (
    "Find the item that these words describe.",
    "Given a few words of a description, retrieve the name of the item.",
    "Which item is described with these words?",
    "Retrieve the title that belongs to this piece of a description.",
)
SHORTEST, LONGEST = 3, 12
"""Words of a span."""

_MADE_OF = ("By: ", "Categories: ")
"""How the lines of an item's text begin that are no description: many items share them."""


class SpanStream(Stream):
    """Pairs of a span of an item's description and the item's title: one an item and epoch, each epoch other words.

    Args:
        items: what `describing` returns.
        seed: of the order and of the spans.
    """

    def __init__(self, items: pl.DataFrame, seed: int) -> None:
        super().__init__(ITEM_SPANS, items, seed)

    def rows(self, places: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
        """Return the samples at (epoch, place)."""
        items = self.samples[[place for _, place in places]].iter_rows(named=True)
        return [self._sample(item, epoch) for (epoch, _), item in zip(places, items, strict=True)]

    def _sample(self, item: dict[str, Any], epoch: int) -> dict[str, Any]:
        draw = Random(seed_of(self.seed, ITEM_SPANS, epoch, item["item_id"]))  # noqa: S311  (no secret)
        words = item["description"].split(" ")
        first, last = span_of(words, item["telling"], item["key"], draw)
        return {
            "id": f"{item['item_id']}, words {first} to {last - 1}",
            "instruction": draw.choice(PHRASINGS),
            "anchor": " ".join(words[first:last]),
            "positive": item["title"],
            "negative": None,
            "more_negatives": [],
            "anchor_id": item["item_id"],
            "positive_id": item["item_id"],
            "negative_ids": [],
        }


def item_spans(data: str, seed: int, tasks: Collection[str], revision: str | None = None) -> SpanStream:
    """Return the spans of a dataset's catalogue.

    Args:
        data: a dataset folder or repository.
        seed: of the order and of the spans.
        tasks: those that are trained on.
        revision: of the repository.

    Raises:
        UsageError: `query2item`, whose route the spans take, is not trained, or no item has a description.
        RecfoundError: the catalogue cannot be read.
    """
    if ROUTED_AS not in tasks:
        raise UsageError(
            f"{ITEM_SPANS}: spans take the route of {ROUTED_AS}, and it is not trained; train it, or set 0"
        )
    items = describing(load_split(data, "items", "train", revision).to_polars())
    if items.is_empty():
        raise UsageError(f"{ITEM_SPANS}: no item of {data} has a description of its own; set 0")
    return SpanStream(items, seed)


def describing(items: pl.DataFrame) -> pl.DataFrame:
    """Return the items that have words of their own, with the places of these words.

    Three words in a row are an item's own if no item of another title has them in its description, punctuation and case
    aside, and if they do not hold the title. A span with such words in it describes no other item of the corpus.

    Args:
        items: the catalogue: `item_id`, `corpus`, `title`, `text`.

    Returns:
        `item_id`, `title`, `description`, `key` (the title, squashed) and `telling`: numbers of the words that begin
        three of the item's own; in the order of `items`.
    """
    lines = pl.col("text").str.strip_prefix(pl.col("title")).str.split("\n")
    prose = pl.element().filter(~pl.any_horizontal(pl.element().str.starts_with(begin) for begin in _MADE_OF))
    described = items.select(
        "item_id",
        "corpus",
        "title",
        description=lines.list.slice(1).list.eval(prose).list.join(" ").str.replace_all(r"\s+", " ").str.strip_chars(),
        key=_squashed(pl.col("title")),
    ).filter(pl.col("description") != "")
    # A corpus at a time: the table of words is the largest thing here.
    found = [_telling(part) for part in described.partition_by("corpus", maintain_order=True)]
    places = pl.concat(found) if found else pl.DataFrame(schema={"item_id": pl.String, "telling": pl.List(pl.UInt32)})
    return described.join(places, on="item_id", maintain_order="left").drop("corpus")


def span_of(words: Sequence[str], telling: Sequence[int], key: str, draw: Random) -> tuple[int, int]:
    """Return where a span begins and ends: some of the item's own words, and words beside them.

    Args:
        words: of the description.
        telling: numbers of the words that begin `SHORTEST` of the item's own.
        key: the squashed title, which no span holds.
        draw: where the choice comes from.
    """
    at = draw.choice(telling)
    length = draw.randint(SHORTEST, min(LONGEST, len(words)))
    first = draw.randint(max(0, at + SHORTEST - length), min(at, len(words) - length))
    span = "".join(word.lower() for word in words[first : first + length])
    if key in "".join(filter(str.isalnum, span)):
        return at, at + SHORTEST
    return first, first + length


def _telling(items: pl.DataFrame) -> pl.DataFrame:
    """Return `item_id` and `telling` of the items of one corpus that have words of their own."""
    words = items.select("item_id", "key", word=pl.col("description").str.split(" ")).with_columns(
        at=pl.int_ranges(pl.col("word").list.len(), dtype=pl.UInt32)
    )
    words = words.explode("word", "at").with_columns(word=_squashed(pl.col("word")))
    three = pl.concat_str([pl.col("word").shift(-ahead) for ahead in range(SHORTEST)])
    whole = pl.col("item_id") == pl.col("item_id").shift(1 - SHORTEST)
    threes = words.with_columns(three=three).filter(whole)
    of_three = threes.select("item_id", "key", "at", "three", same=hash64(pl.col("three")))
    own = pl.col("key").min().over("same") == pl.col("key").max().over("same")
    kept = of_three.filter(own, pl.col("three") != "", ~pl.col("three").str.contains(pl.col("key"), literal=True))
    return kept.group_by("item_id", maintain_order=True).agg(telling="at")


def _squashed(text: pl.Expr) -> pl.Expr:
    """Return letters and digits alone, in lower case."""
    return text.str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}]+", "")
