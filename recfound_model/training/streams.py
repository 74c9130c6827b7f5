"""Samples in training order, a stream a task.

A stream's order is a function of the seed, the task and the epoch, so a cursor is all the state that it has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import datasets
import polars as pl
import torch
from datasets import Dataset, load_dataset
from huggingface_hub.errors import HfHubHTTPError

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.layout import MANIFEST
from recfound_data.samples import CATALOGUE_CONFIGS
from recfound_data.tasks import TASKS
from recfound_data.tasks.catalogue import Kind
from recfound_model.training.own_tasks import completed, kind_of, paired

_FAULTS = (FileNotFoundError, ValueError, ConnectionError, HfHubHTTPError, datasets.exceptions.DatasetsError)


def load_split(data: str, config: str, split: str, revision: str | None = None) -> Dataset:
    """Return a split of a dataset folder or of a dataset on the Hub.

    Raises:
        RecfoundError: there is no such dataset, configuration or split, or it cannot be reached.
    """
    try:
        datasets.disable_progress_bars()
        return load_dataset(data, config, split=split, revision=revision, **_as_it_is(data, config))
    except _FAULTS as error:
        raise RecfoundError(f"{data}: {config}, {split}: cannot be loaded: {_first_line(error)}") from None


def load_samples(data: str, task: str, kind: Kind, split: str, revision: str | None = None) -> Dataset:
    """Return the samples of a task, with all columns that training reads, also where an own task leaves some out.

    Raises:
        RecfoundError: they cannot be loaded, or a column holds something else than it should.
    """
    samples = load_split(data, task, split, revision)
    return samples if task in TASKS else completed(samples, task, kind, data)


def split_names(data: str, config: str, revision: str | None = None) -> list[str]:
    """Return the splits that a configuration of a dataset has.

    Raises:
        RecfoundError: there is no such dataset or configuration, or it cannot be reached.
    """
    try:
        found = datasets.get_dataset_split_names(data, config, revision=revision, **_as_it_is(data, config))
    except _FAULTS as error:
        raise RecfoundError(f"{data}: {config}: cannot be read: {_first_line(error)}") from None
    return list(found)


def task_kinds(data: str, revision: str | None = None, wanted: Sequence[str] = ()) -> dict[str, Kind]:
    """Return the tasks of a dataset with their kinds: those of the catalogue in its order, then others by name.

    A configuration that is not in the catalogue is a task where its columns make it one (see `own_tasks`).

    Args:
        data: a dataset folder or repository.
        revision: of the repository.
        wanted: these tasks alone, in this order; all where none are named.

    Raises:
        UsageError: a wanted task is not in the dataset, or has no such columns.
        RecfoundError: the dataset cannot be read, or has no task.
    """
    names = _configurations(data, revision)
    tasks = [name for name in names if name not in CATALOGUE_CONFIGS]
    for task in wanted:
        if task not in names:
            raise UsageError(f"task {task!r} is not in {data}, which has {', '.join(tasks)}")
    columns = {name: _columns(data, name, revision) for name in sorted(wanted or tasks) if name not in TASKS}
    kinds = {name: spec.kind for name, spec in TASKS.items() if name in names}
    kinds |= {name: kind for name, held in columns.items() if (kind := kind_of(held)) is not None}
    for task in wanted:
        if task not in kinds:
            raise UsageError(
                f"{task!r} of {data} is no task: its training samples have {', '.join(columns[task]) or 'no columns'}; "
                "an embedding task has anchor and positive, a generative one prompt and completion"
            )
    if not kinds:
        raise RecfoundError(f"{data}: has no task; its configurations are {', '.join(names)}")
    return {task: kinds[task] for task in wanted or kinds}


def _configurations(data: str, revision: str | None) -> list[str]:
    if not Path(data).exists() and data.count("/") != 1:
        raise RecfoundError(f"{data}: no such dataset folder, and no name of a repository (org/name) either")
    try:
        return list(datasets.get_dataset_config_names(data, revision=revision))
    except _FAULTS as error:
        raise RecfoundError(f"{data}: is no dataset that can be read: {_first_line(error)}") from None


def _columns(data: str, config: str, revision: str | None) -> list[str]:
    """Return the columns of a configuration's training split, from its first row; none where it has no such split."""
    if "train" not in split_names(data, config, revision):
        return []
    try:
        rows = load_dataset(data, config, split="train", revision=revision, streaming=True, **_as_it_is(data, config))
        return list(rows.column_names or next(iter(rows), ()))
    except _FAULTS as error:
        raise RecfoundError(f"{data}: {config}, train: cannot be loaded: {_first_line(error)}") from None


def _as_it_is(data: str, config: str) -> dict[str, str]:
    """Return what makes `datasets` look at the files of a folder, where it would trust a copy of an earlier state.

    Its copy goes by the folder's name and card. The card of a built dataset names the content; a person's may not.
    """
    folder = Path(data)
    if not folder.is_dir() or ((folder / MANIFEST).exists() and (config in TASKS or config in CATALOGUE_CONFIGS)):
        return {}
    seen = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    state = "\n".join(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in seen)
    return {"description": hashlib.sha256(state.encode()).hexdigest()[:32]}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def seed_of(*parts: int | str) -> int:
    """Return a seed that all parts have a say in: on the CPU, torch reads nothing but the lowest 32 bits of a seed."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:4], "big")


class Samples(Protocol):
    """What a stream draws from: it has a length, and gives the rows at a list of places."""

    def __len__(self) -> int: ...

    def __getitem__(self, places: list[int], /) -> Any: ...


class Stream:
    """The training samples of one task, shuffled anew each epoch, without end."""

    def __init__(self, task: str, samples: Samples, seed: int) -> None:
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
            places.append((epoch, int(self._order[place])))
        self.cursor += count
        return self.rows(places)

    def rows(self, places: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
        """Return the samples at (epoch, place); here, a sample is the same in every epoch."""
        columns = self.samples[[place for _, place in places]]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def first_of_each(samples: Mapping[str, Samples], count: int, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Return the first samples of each task's stream, at most as many as it has: the same ones at each call."""
    return {task: Stream(task, rows, seed).draw(min(count, len(rows))) for task, rows in samples.items()}


def known_positives(qrels: pl.DataFrame) -> dict[str, frozenset[str]]:
    """Return all items with a grade above zero of each query: never a negative of it, whatever the grade.

    Args:
        qrels: `query_id`, `item_id`, `grade`.
    """
    grouped = qrels.filter(pl.col("grade") > 0).group_by("query_id").agg("item_id")
    return {query: frozenset(items) for query, items in grouped.iter_rows()}


def positive_counts(samples: Dataset) -> dict[str, int]:
    """Return how many samples each item is the positive of, by `positive_id`."""
    counts = samples.select_columns("positive_id").to_polars()["positive_id"].value_counts()
    return dict(counts.iter_rows())


def training_positives(
    data: str, samples: Mapping[str, Dataset], revision: str | None = None
) -> dict[str, frozenset[str]]:
    """Return all training positives of each anchor, by `anchor_id`: the dataset's judgements, and own tasks' pairs.

    Args:
        data: a dataset folder or repository.
        samples: the training samples of each embedding task, by task.
        revision: of the repository.

    Raises:
        RecfoundError: the judgements cannot be read.
    """
    found: dict[str, frozenset[str]] = {}
    if any(task in TASKS for task in samples):
        found = known_positives(load_split(data, "qrels", "train", revision).to_polars())
    for task, rows in samples.items():
        if task not in TASKS:
            for anchor, positives in paired(rows).items():
                found[anchor] = found.get(anchor, frozenset()) | positives
    return found
