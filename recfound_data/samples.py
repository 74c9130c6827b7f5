"""What a task gives: samples, and for embedding tasks the queries and judgements that a full ranking needs.

The columns and types here are the published ones (README of a dataset, `datasets.Features`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from recfound_data.identity import draw
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
TWINS = {"embedding": ("anchor", "positive"), "generative": ("prompt", "label")}
"""What makes two samples the same, whatever their ids: these columns."""
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
    """

    name: str
    recipe: DataRecipe
    tables: Mapping[str, pl.DataFrame]
    splits: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def official(self, table: str) -> frozenset[str]:
        """Return the splits that the corpus publishes for a table."""
        return self.splits.get(table, frozenset())


@dataclass(frozen=True)
class Built:
    """What one task made of one corpus; every frame has a column `split` besides its published ones."""

    samples: pl.DataFrame
    queries: pl.DataFrame | None = None
    qrels: pl.DataFrame | None = None
    drops: dict[str, int] = field(default_factory=dict)


def phrased(phrasings: tuple[str, ...], seed: int, sample: pl.Expr) -> pl.Expr:
    """Return one of the phrasings for each sample, drawn by its id."""
    at = draw(seed, "phrasing", sample) % len(phrasings)
    return at.replace_strict(dict(enumerate(phrasings)), return_dtype=pl.String)


def message(role: str, content: pl.Expr) -> pl.Expr:
    """Return a list of one chat message."""
    return pl.concat_list(pl.struct(role=pl.lit(role), content=content))


def looked_up(frame: pl.DataFrame, column: str, catalogue: pl.DataFrame, value: str) -> pl.Series:
    """Return `frame[column]`, a list of item ids, as a list of the items' `value` in the same order."""
    flat = frame.select(row=pl.int_range(pl.len()), item_id=pl.col(column)).explode("item_id")
    found = flat.join(catalogue.select("item_id", value), on="item_id", how="left", maintain_order="left")
    return found.group_by("row", maintain_order=True).agg(value)[value]


def embedding_rows(rows: pl.DataFrame, corpus: Corpus, task: str, phrasings: tuple[str, ...]) -> pl.DataFrame:
    """Return samples in the embedding schema, with `split`.

    Args:
        rows: `id`, `split`, `anchor`, `anchor_id`, `positive_id`, `negative_ids`.
        corpus: its catalogue gives the texts of positives and negatives.
        task: the task's name.
        phrasings: its instructions.
    """
    texts = corpus.catalogue.select(pl.col("item_id").alias("positive_id"), "domain", pl.col("text").alias("positive"))
    rows = rows.join(texts, on="positive_id", how="inner", maintain_order="left")
    negatives = looked_up(rows, "negative_ids", corpus.catalogue, "text")
    return rows.with_columns(
        task=pl.lit(task),
        corpus=pl.lit(corpus.name),
        instruction=phrased(phrasings, corpus.recipe.seed, pl.col("id")),
        negative=negatives.list.first(),
        more_negatives=negatives.list.slice(1),
    ).select(*EMBEDDING, "split")


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
