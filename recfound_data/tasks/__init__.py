"""Tasks: each module turns the tables of a corpus into the samples of one task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from recfound_data.samples import Built, Corpus
from recfound_data.tasks import item2item, query2item, sequential_recommendation, user2item
from recfound_data.tasks.catalogue import TASKS, Kind, TaskSpec


@dataclass(frozen=True)
class TaskBuilder:
    """How one task is built.

    Attributes:
        driven_by: the table without which a corpus gives nothing; its groups are what shards are cut by.
        reads: other tables that the task takes where the corpus has them.
        build: makes the samples of one shard.
        phrasings: of the instruction, the first canonical.
    """

    driven_by: str
    reads: tuple[str, ...]
    build: Callable[[Corpus], Built]
    phrasings: tuple[str, ...]


_MODULES = (
    user2item,
    query2item,
    item2item,
    sequential_recommendation,
)
BUILDERS: dict[str, TaskBuilder] = {
    module.TASK: TaskBuilder(module.DRIVEN_BY, module.READS, module.build, module.PHRASINGS) for module in _MODULES
}

__all__ = ["BUILDERS", "TASKS", "Kind", "TaskBuilder", "TaskSpec"]
