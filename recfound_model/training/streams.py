"""Samples in training order, a stream a task.

A stream's order is a function of the seed, the task and the epoch, so a cursor is all the state that it has.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import torch
from datasets import Dataset, load_dataset
from huggingface_hub.errors import HfHubHTTPError

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.samples import CATALOGUE_CONFIGS
from recfound_data.tasks import TASKS

_FAULTS = (FileNotFoundError, ValueError, ConnectionError, HfHubHTTPError, datasets.exceptions.DatasetsError)


def load_split(data: str, config: str, split: str, revision: str | None = None) -> Dataset:
    """Return a split of a dataset folder or of a dataset on the Hub.

    Raises:
        RecfoundError: there is no such dataset, configuration or split, or it cannot be reached.
    """
    try:
        datasets.disable_progress_bars()
        return load_dataset(data, config, split=split, revision=revision)
    except _FAULTS as error:
        first = str(error).strip().split("\n")[0]
        raise RecfoundError(f"{data}: {config}, {split}: cannot be loaded: {first}") from None


def split_names(data: str, config: str, revision: str | None = None) -> list[str]:
    """Return the splits that a configuration of a dataset has.

    Raises:
        RecfoundError: there is no such dataset or configuration, or it cannot be reached.
    """
    try:
        return list(datasets.get_dataset_split_names(data, config, revision=revision))
    except _FAULTS as error:
        first = str(error).strip().split("\n")[0]
        raise RecfoundError(f"{data}: {config}: cannot be read: {first}") from None


def task_names(data: str, revision: str | None = None) -> list[str]:
    """Return the tasks that a dataset has, in the catalogue's order first.

    Raises:
        RecfoundError: the dataset cannot be read or has no task.
    """
    if not Path(data).exists() and data.count("/") != 1:
        raise RecfoundError(f"{data}: no such dataset folder, and no name of a repository (org/name) either")
    try:
        names = datasets.get_dataset_config_names(data, revision=revision)
    except _FAULTS as error:
        raise RecfoundError(f"{data}: is no dataset that can be read: {str(error).strip().splitlines()[0]}") from None
    tasks = [name for name in names if name not in CATALOGUE_CONFIGS and name in TASKS]
    if not tasks:
        raise RecfoundError(f"{data}: has no task; its configurations are {', '.join(names)}")
    return sorted(tasks, key=list(TASKS).index)


def seed_of(*parts: int | str) -> int:
    """Return a seed that all parts have a say in: on the CPU, torch reads nothing but the lowest 32 bits of a seed."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:4], "big")


class Stream:
    """The training samples of one task, shuffled anew each epoch, without end."""

    def __init__(self, task: str, samples: Dataset, seed: int) -> None:
        self.task, self.samples, self.seed = task, samples, seed
        self.cursor = 0
        self._epoch, self._order = -1, torch.empty(0)

    def draw(self, count: int) -> list[dict[str, Any]]:
        """Return the next `count` samples."""
        places = []
        for cursor in range(self.cursor, self.cursor + count):
            epoch, place = divmod(cursor, len(self.samples))
            if epoch != self._epoch:
                generator = torch.Generator().manual_seed(seed_of(self.seed, self.task, epoch))
                self._epoch, self._order = epoch, torch.randperm(len(self.samples), generator=generator)
            places.append(int(self._order[place]))
        self.cursor += count
        columns = self.samples[places]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def known_positives(qrels: pl.DataFrame) -> dict[str, frozenset[str]]:
    """Return all items with a grade above zero of each query: never a negative of it, whatever the grade.

    Args:
        qrels: `query_id`, `item_id`, `grade`.
    """
    grouped = qrels.filter(pl.col("grade") > 0).group_by("query_id").agg("item_id")
    return {query: frozenset(items) for query, items in grouped.iter_rows()}


def chosen_tasks(wanted: list[str], available: list[str], data: str) -> list[str]:
    """Return the tasks to train on.

    Raises:
        UsageError: one is not in the dataset.
    """
    for task in wanted:
        if task not in available:
            raise UsageError(f"task {task!r} is not in {data}, which has {', '.join(available)}")
    return wanted or available
