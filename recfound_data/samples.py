"""What a task gives: samples, and for embedding tasks the queries and judgements that a full ranking needs.

The columns and types here are the published ones (README of a dataset, `datasets.Features`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from recfound_data.identity import draw
from recfound_data.mining import Index
from recfound_data.recipe import DataRecipe

SCHEMA_VERSION = "1.0"
SPLITS = ("train", "validation", "test")
LETTERS = "ABCDEFGHIJKLMNOPQRST"

_MESSAGES = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
_STRINGS = pl.List(pl.String)
EMBEDDING: dict[str, Any] = {
    "id": pl.String, "task": pl.String, "corpus": pl.String, "domain": pl.String, "instruction": pl.String,
    "anchor": pl.String, "positive": pl.String, "negative": pl.String, "more_negatives": _STRINGS,
    "anchor_id": pl.String, "positive_id": pl.String, "negative_ids": _STRINGS,
}  # fmt: skip
GENERATIVE: dict[str, Any] = {
    "id": pl.String, "task": pl.String, "corpus": pl.String, "domain": pl.String, "prompt": _MESSAGES,
    "completion": _MESSAGES, "options": _STRINGS, "label": pl.String, "label_source": pl.String,
}  # fmt: skip
ITEMS: dict[str, Any] = {
    "item_id": pl.String, "corpus": pl.String, "domain": pl.String, "title": pl.String, "text": pl.String,
    "categories": _STRINGS, "brand": pl.String,
}  # fmt: skip
QUERIES: dict[str, Any] = {"query_id": pl.String, "task": pl.String, "text": pl.String}
QRELS: dict[str, Any] = {"query_id": pl.String, "item_id": pl.String, "grade": pl.Int8}
CATALOGUE_CONFIGS = ("items", "queries", "qrels")


@dataclass(frozen=True)
class Corpus:
    """One shard of one corpus, or all of it: what a task makes samples of.

    Attributes:
        name: the corpus's name in the dataset.
        recipe: of the build.
        tables: frames by name; only those that the corpus has and the task reads. Rows of tables with a group (see
            `tables.GROUPS`) have it, hashed, in the column `group`; all rows of a group are in one shard.
        splits: the splits that the corpus itself publishes, by table, over all shards.
        index: where its items can be searched, if a recipe mines negatives.
    """

    name: str
    recipe: DataRecipe
    tables: Mapping[str, pl.DataFrame]
    splits: Mapping[str, frozenset[str]] = field(default_factory=dict)
    index: Index | None = None

    def mined(self, task: str) -> Index | None:
        """Return where a task's negatives are searched for, or None where they are drawn."""
        return self.index if self.index is not None and task in self.index.settings.tasks else None

    def official(self, table: str) -> frozenset[str]:
        """Return the splits that the corpus publishes for a table."""
        return self.splits.get(table, frozenset())


@dataclass(frozen=True)
class Built:
    """What one task made of one shard.

    Attributes:
        samples: published columns, or a plan that the task's `render` turns into them; `id` and `split` in any case.
            `query`, the query's id, for embedding tasks. In a plan also `twin`: 64 bits that are equal for samples that
            ask and answer the same.
        qrels: `split`, `query`, `item_id` or `item` (row of the catalogue), `grade`.
        drops: what was left out, by reason.
        mined: what a search for negatives found, as `Mined.counts` returns it.
    """

    samples: pl.DataFrame
    qrels: pl.DataFrame | None = None
    drops: dict[str, int] = field(default_factory=dict)
    mined: dict[str, int] = field(default_factory=dict)


def phrased(phrasings: tuple[str, ...], seed: int, sample: pl.Expr) -> pl.Expr:
    """Return one of the phrasings for each sample, drawn by its id."""
    at = draw(seed, "phrasing", sample) % len(phrasings)
    return at.replace_strict(dict(enumerate(phrasings)), return_dtype=pl.String)


def message(role: str, content: pl.Expr) -> pl.Expr:
    """Return a list of one chat message."""
    return pl.concat_list(pl.struct(role=pl.lit(role), content=content))


def gathered(values: pl.Series, rows: pl.Series) -> pl.Series:
    """Return `values` at each list of row numbers in `rows`, as lists in the same order."""
    flat = values.gather(pl.Series(rows.to_arrow().flatten()))
    return _lists(flat.to_arrow(), rows.list.len().to_numpy().astype(np.int64))


def lists(values: NDArray[Any], lengths: NDArray[np.int64]) -> pl.Series:
    """Return runs of `values` as lists: the first `lengths[0]`, the next `lengths[1]`, and so on."""
    return _lists(pa.array(values), lengths)


def _lists(values: pa.Array, lengths: NDArray[np.int64]) -> pl.Series:
    offsets = pa.array(np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths))))
    made = pl.from_arrow(pa.LargeListArray.from_arrays(offsets, values))
    assert isinstance(made, pl.Series), "an array is no table"
    return made


def embedding_rows(
    plan: pl.DataFrame, corpus: Corpus, task: str, phrasings: tuple[str, ...], anchors: pl.Series
) -> pl.DataFrame:
    """Return samples in the embedding schema.

    Args:
        plan: `id`, `query` (its id), `positive` and `negatives` (rows of the catalogue).
        corpus: its catalogue gives the texts of positives and negatives.
        task: the task's name.
        phrasings: its instructions.
        anchors: the text of each anchor.
    """
    catalogue = corpus.tables["catalogue"]
    positives = catalogue.select("domain", "text", "item_id")[plan["positive"]]
    negatives = gathered(catalogue["text"], plan["negatives"])
    return plan.select(
        "id",
        task=pl.lit(task),
        corpus=pl.lit(corpus.name),
        domain=positives["domain"],
        instruction=phrased(phrasings, corpus.recipe.seed, pl.col("id")),
        anchor=anchors,
        positive=positives["text"],
        negative=negatives.list.first(),
        more_negatives=negatives.list.slice(1),
        anchor_id=pl.col("query"),
        positive_id=positives["item_id"],
        negative_ids=gathered(catalogue["item_id"], plan["negatives"]),
    ).select(list(EMBEDDING))


def generative_rows(rows: pl.DataFrame, corpus: Corpus, task: str) -> pl.DataFrame:
    """Return samples in the generative schema, with `split`.

    Args:
        rows: `id`, `split`, `domain`, `prompt` (what the user says), `label` (what the assistant answers); `options`
            and `label_source` where they are not empty and `corpus`.
        corpus: gives the name.
        task: the task's name.
    """
    given = set(rows.columns)
    return rows.with_columns(
        task=pl.lit(task),
        corpus=pl.lit(corpus.name),
        prompt=message("user", pl.col("prompt")),
        completion=message("assistant", pl.col("label")),
        options=pl.col("options") if "options" in given else pl.lit([], _STRINGS),
        label_source=pl.col("label_source") if "label_source" in given else pl.lit("corpus"),
    ).select(*GENERATIVE, "split")


def official_split(corpus: Corpus, table: str, salt: str) -> pl.Expr:
    """Return the split of each row of `table` by its group: the corpus's own where it publishes one, drawn elsewhere.

    A group that the corpus has in several splits is all test, or else validation. A split that the corpus publishes is
    not added to by drawing.
    """
    own = pl.col("split").fill_null("")
    drawn = group_split(pl.col("group"), corpus.recipe, salt)
    published = [split for split in ("validation", "test") if split in corpus.official(table)]
    return (
        pl.when((own == "test").any().over("group")).then(pl.lit("test"))
        .when((own == "validation").any().over("group")).then(pl.lit("validation"))
        .when(drawn.is_in(published)).then(pl.lit("train"))
        .otherwise(drawn)
    )  # fmt: skip


def group_split(group: pl.Expr, recipe: DataRecipe, salt: str) -> pl.Expr:
    """Return the split of a group where the corpus has none: drawn by the group, shares from the recipe."""
    from recfound_data.identity import share

    drawn = share(recipe.seed, salt, group)
    return (
        pl.when(drawn < recipe.test_share).then(pl.lit("test"))
        .when(drawn < recipe.test_share + recipe.validation_share).then(pl.lit("validation"))
        .otherwise(pl.lit("train"))
    )  # fmt: skip
