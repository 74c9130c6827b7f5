"""Tasks: each module turns the tables of a corpus into the samples of one task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from recfound_data.samples import Built, Corpus
from recfound_data.tasks import item2item, query2item, sequential_recommendation, user2item
from recfound_data.tasks.catalogue import TASKS, Kind, TaskSpec


@dataclass(frozen=True)
class TaskBuilder:
    """How one task is built: the table it needs, the function, and its instruction's phrasings, the first canonical."""

    needs: str
    build: Callable[[Corpus], Built]
    phrasings: tuple[str, ...]


BUILDERS: dict[str, TaskBuilder] = {
    module.TASK: TaskBuilder(module.NEEDS, module.build, module.PHRASINGS)
    for module in (user2item, query2item, item2item, sequential_recommendation)
}

__all__ = ["BUILDERS", "TASKS", "Kind", "TaskBuilder", "TaskSpec"]
