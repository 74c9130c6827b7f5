"""Tasks: each module turns the tables of a corpus into the samples of one task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from recfound_data.samples import Built, Corpus
from recfound_data.tasks import (
    answer_generation,
    answerability_prediction,
    attribute_value_extraction,
    item2item,
    item_profile,
    product_matching,
    product_relation_prediction,
    query2item,
    query_rewriting,
    sentiment_analysis,
    sequential_recommendation,
    user2item,
    user_profile,
)
from recfound_data.tasks.catalogue import TASKS, Kind, TaskSpec


@dataclass(frozen=True)
class TaskBuilder:
    """How one task is built.

    Attributes:
        driven_by: the table without which a corpus gives nothing; its groups are what shards are cut by.
        reads: other tables that the task takes where the corpus has them.
        build: makes the samples of one shard, or a plan of them.
        phrasings: of the instruction, the first canonical.
        render: turns rows of a plan into samples; None where `build` makes them.
        anchors: the text of each row's anchor, of embedding tasks.
    """

    driven_by: str
    reads: tuple[str, ...]
    build: Callable[[Corpus], Built]
    phrasings: tuple[str, ...]
    render: Callable[[pl.DataFrame, Corpus], pl.DataFrame] | None
    anchors: Callable[[pl.DataFrame, Corpus], pl.Series] | None


_MODULES = (
    user2item,
    query2item,
    item2item,
    sequential_recommendation,
    product_relation_prediction,
    answer_generation,
    answerability_prediction,
    product_matching,
    query_rewriting,
    attribute_value_extraction,
    sentiment_analysis,
    user_profile,
    item_profile,
)
BUILDERS: dict[str, TaskBuilder] = {
    module.TASK: TaskBuilder(
        driven_by=module.DRIVEN_BY,
        reads=module.READS,
        build=module.build,
        phrasings=module.PHRASINGS,
        render=getattr(module, "render", None),
        anchors=getattr(module, "anchors", None),
    )
    for module in sorted(_MODULES, key=lambda module: list(TASKS).index(module.TASK))
}

__all__ = ["BUILDERS", "TASKS", "Kind", "TaskBuilder", "TaskSpec"]
