"""The typed tables between corpora and tasks: readers write them, tasks read them, and neither knows the other.

One corpus is one folder with a folder a table; a table is any number of Parquet parts. Columns and their polars types
are fixed here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import polars as pl
from pydantic import Field

from recfound_data.recipe import DataRecipe, Strict
from recfound_data.sources import Unparsable

TABLES: dict[str, dict[str, Any]] = {
    "interactions": {"user_id": pl.String, "item_id": pl.String, "rating": pl.Float32, "timestamp": pl.Int64},
    "items": {
        "item_id": pl.String,
        "title": pl.String,
        "description": pl.String,
        "categories": pl.List(pl.String),
        "brand": pl.String,
        "domain": pl.String,
    },
    "relations": {"item_id": pl.String, "other_id": pl.String, "relation": pl.String},
    "judgements": {
        "query_id": pl.String,
        "query": pl.String,
        "item_id": pl.String,
        "grade": pl.Int8,
        "split": pl.String,
        "domain": pl.String,
    },
}
"""interactions: `user_id` is a keyed hash, `timestamp` in seconds. items: raw text, cleaned when the catalogue is made.
judgements: `grade` 3 exact, 2 substitute, 1 complement, 0 irrelevant; `split` is the corpus's own, or
null.
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


class Source(Strict):
    """What every corpus entry of a recipe has: its reader's name and the name it has in the dataset."""

    corpus: str
    name: str = Field(default="", pattern=r"^[A-Za-z0-9_.\-]*$")
    domain: str = ""

    @property
    def label(self) -> str:
        """The corpus's name in the dataset."""
        return self.name or self.corpus


class People(Protocol):
    """Turns a raw user id into one that cannot be turned back without the key."""

    def pseudonym(self, user: pl.Expr) -> pl.Expr:
        """Return the keyed hash of `user`: 16 hexadecimal digits."""
        ...


@dataclass(frozen=True)
class CorpusTables:
    """The tables of one corpus on disk, its name in the dataset, and the recipe that is being built."""

    folder: Path
    corpus: str
    recipe: DataRecipe

    def has(self, table: str) -> bool:
        """Return whether the corpus has rows of `table`."""
        return any((self.folder / table).glob("*.parquet"))

    def read(self, table: str) -> pl.DataFrame:
        """Return a whole table."""
        return pl.read_parquet(sorted((self.folder / table).glob("*.parquet")))
