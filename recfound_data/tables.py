"""The typed tables between corpora and tasks: readers write them, tasks read them, and neither knows the other.

One corpus is one folder with a folder a table; a table is any number of Parquet parts. Columns and their polars types
are fixed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

import polars as pl
from pydantic import Field

from recfound_data.cleaning import clean, title_key
from recfound_data.recipe import Strict
from recfound_data.sources import Unparsable

_FACTS = pl.List(pl.Struct({"name": pl.String, "value": pl.String}))
_TEXTS = pl.List(pl.Struct({"source": pl.String, "text": pl.String}))

TABLES: dict[str, dict[str, Any]] = {
    "interactions": {
        "user_id": pl.String,
        "item_id": pl.String,
        "rating": pl.Float32,
        "timestamp": pl.Int64,
        "text": pl.String,
    },
    "items": {
        "item_id": pl.String,
        "title": pl.String,
        "description": pl.String,
        "categories": pl.List(pl.String),
        "brand": pl.String,
        "domain": pl.String,
        "facts": _FACTS,
    },
    "users": {"user_id": pl.String, "facts": _FACTS},
    "relations": {"item_id": pl.String, "other_id": pl.String, "relation": pl.String},
    "judgements": {
        "query_id": pl.String,
        "query": pl.String,
        "item_id": pl.String,
        "grade": pl.Int8,
        "split": pl.String,
        "domain": pl.String,
    },
    "questions": {
        "question_id": pl.String,
        "item_id": pl.String,
        "title": pl.String,
        "question": pl.String,
        "evidence": pl.List(pl.String),
        "answers": pl.List(pl.String),
        "answerable": pl.Boolean,
        "split": pl.String,
        "domain": pl.String,
    },
    "dialogues": {
        "dialogue_id": pl.String,
        "turns": pl.List(pl.Struct({"speaker": pl.String, "text": pl.String, "rewrite": pl.String})),
        "split": pl.String,
        "domain": pl.String,
    },
    "attributes": {
        "product_id": pl.String,
        "texts": _TEXTS,
        "attributes": pl.List(pl.Struct({"attribute": pl.String, "value": pl.String, "source": pl.String})),
        "split": pl.String,
        "domain": pl.String,
    },
    "offers": {
        "offer_id": pl.String,
        "title": pl.String,
        "description": pl.String,
        "brand": pl.String,
        "price": pl.String,
        "domain": pl.String,
    },
    "matches": {"left_id": pl.String, "right_id": pl.String, "match": pl.Boolean, "split": pl.String},
    "made": {
        "task": pl.String,
        "sample_id": pl.String,
        "source": pl.String,
        "instruction": pl.String,
        "anchor": pl.String,
        "positive": pl.String,
        "negatives": pl.List(pl.String),
        "prompt": pl.String,
        "answer": pl.String,
        "split": pl.String,
    },
}
"""What readers write. Texts are raw; they are cleaned when samples are made of them. `split` is the corpus's own
(`train`, `validation`, `test`) or null.

- interactions: `user_id` is a keyed hash, `timestamp` in seconds (or any number that grows with time), `rating` null
  where a choice has none, `text` the review or null.
- items, users: `facts` are what else is known, as words to be read (`Year`, `1999`); nothing that names a person's
  address.
- relations: `relation` is one of `RELATIONS`.
- judgements: `grade` 3 exact, 2 substitute, 1 complement, 0 irrelevant.
- questions: one row a question; `evidence` are reviews or passages, the nearest first; `answers` the most helpful
  first; `answerable` says whether the evidence answers it, null where nobody said.
- dialogues: `rewrite` is the turn made self-contained, null where nobody rewrote it.
- attributes: one row an offer; `product_id` is equal for offers of one product; `value` is null where the offer has no
  such attribute; `source` names the text that holds the value.
- matches: pairs of offers; a corpus that lists only matches has no `match` false.
- made: finished samples of another project; `anchor`, `positive`, `negatives` or `prompt`, `answer`.
"""
RELATIONS = ("bought together", "viewed together", "similar")
GROUPS: dict[str, Callable[[], pl.Expr]] = {
    "interactions": lambda: pl.col("user_id"),
    "users": lambda: pl.col("user_id"),
    "judgements": lambda: pl.concat_str(
        pl.col("domain").fill_null(""), title_key(clean(pl.col("query"))), separator="\x1f"
    ),
    "questions": lambda: pl.col("item_id"),
    "dialogues": lambda: pl.col("dialogue_id"),
    "attributes": lambda: pl.col("product_id"),
    "made": lambda: pl.coalesce("anchor", "prompt"),
}
"""What rows of a table must stay together, in one shard and in one split; tables not named are never cut into shards.

A task finds it hashed, 16 hexadecimal digits, in the column `group`.
"""


@dataclass(frozen=True)
class Batch:
    """Some rows of one table, the rows dropped on the way by reason, and the lines that could not be parsed."""

    table: str
    frame: pl.DataFrame
    drops: dict[str, int] = field(default_factory=dict)
    unparsable: list[Unparsable] = field(default_factory=list)


@dataclass(frozen=True)
class Terms:
    """What a corpus's publisher says: official address, licence or terms, citation, whether it may be passed on."""

    title: str
    address: str
    licence: str
    citation: str
    redistributable: bool


class People(Protocol):
    """Turns a raw user id into one that cannot be turned back without the key."""

    def pseudonym(self, user: pl.Expr) -> pl.Expr:
        """Return the keyed hash of `user`: 16 hexadecimal digits."""
        ...


class Source(Strict):
    """What every corpus entry of a recipe has: its reader's name and the name it has in the dataset."""

    corpus: str
    name: str = Field(default="", pattern=r"^[A-Za-z0-9_.\-]*$")
    domain: str = ""

    path_fields: ClassVar[tuple[str, ...]]
    """The fields that hold paths, globs or URLs."""
    terms: ClassVar[Terms]

    @property
    def label(self) -> str:
        """The corpus's name in the dataset."""
        return self.name or self.corpus

    def paths(self) -> list[str]:
        """Return the paths, globs and URLs that the entry names."""
        return [path for field in self.path_fields if (path := getattr(self, field))]

    def resolved(self, resolve: Callable[[str], str]) -> Self:
        """Return this reader with every path that it holds replaced by what `resolve` makes of it."""
        return self.model_copy(
            update={field: resolve(path) for field in self.path_fields if (path := getattr(self, field))}
        )

    def batches(self, people: People) -> Iterator[Batch]:
        """Yield the rows of all tables that the files of `path_fields` give; an empty path gives none.

        Raises:
            RecfoundError: a file cannot be read.
        """
        raise NotImplementedError

    def parts(self) -> list[Self]:
        """Return readers that can work side by side, in order, and together give what this one gives."""
        return [self]
