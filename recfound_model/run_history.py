"""What a run's folder says of its training: the metrics of each step, and the gates of its newest adapter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, FiniteFloat, NonNegativeInt, ValidationError
from torch import Tensor

from recfound_data.errors import RecfoundError
from recfound_data.tasks.catalogue import TASKS
from recfound_model.adapter_config import CONFIG_FILE, KINDS
from recfound_model.adapter_files import AdapterReader, embedding_key, factor_key, open_adapter
from recfound_model.routing import gate_mask, gates, live_groups
from recfound_model.training.recipe import load_recipe
from recfound_model.training.record import METRICS, RECIPE
from recfound_model.training.spans import ITEM_SPANS

OTHER = "other"
"""The kind of a task that neither the adapter nor the catalogue has."""


class StepRecord(BaseModel):
    """What a line of `metrics.jsonl` says that is drawn: the step, and losses and numbers of samples by task."""

    step: NonNegativeInt
    losses: dict[str, FiniteFloat]
    samples: dict[str, NonNegativeInt]
    validation: dict[str, FiniteFloat] = {}
    probe: dict[str, FiniteFloat] = {}


@dataclass(frozen=True)
class AdapterGates:
    """The gates of an adapter.

    Attributes:
        source: the name of its folder.
        kinds: its tasks and their kinds, ordered by kind.
        experts: how many each group has.
        values: [layers, tasks, experts], 0 where a task must not use an expert.
    """

    source: str
    kinds: dict[str, str]
    experts: dict[str, int]
    values: Tensor


@dataclass(frozen=True)
class RunHistory:
    """A run as it is drawn.

    Attributes:
        steps: what was measured, a record a step.
        kinds: the kind of every task that is drawn, ordered by kind.
        warmup: the last step with the shares that the run began with; None where shares do not move.
        gates: of the newest adapter; None where the run has none.
    """

    steps: list[StepRecord]
    kinds: dict[str, str]
    warmup: int | None = None
    gates: AdapterGates | None = None

    def of_kind(self, kind: str) -> list[str]:
        """Return the tasks of a kind, in their order."""
        return [task for task in self.kinds if self.kinds[task] == kind]


def read_history(run: Path) -> RunHistory:
    """Return what is drawn of a run.

    Raises:
        RecfoundError: metrics or adapter are missing or damaged.
        UsageError: the run's recipe is damaged.
    """
    steps = read_metrics(run / METRICS)
    folder, found = _newest_adapter(run), None
    if folder is not None:
        with open_adapter(folder) as adapter:
            kinds = by_kind(adapter.config.kinds, adapter.config.kinds)
            found = AdapterGates(folder.name, kinds, adapter.config.experts, adapter_gates(adapter, list(kinds)))
    measured = [task for record in steps for part in (record.losses, record.validation, record.probe) for task in part]
    known = {task: spec.kind for task, spec in TASKS.items()} | (found.kinds if found else {})
    known[ITEM_SPANS] = "embedding"
    warmup = None
    if (run / RECIPE).exists():
        recipe = load_recipe(run / RECIPE)
        if recipe.scheduler.kind == "s2sched":
            warmup = math.ceil(recipe.scheduler.warmup * recipe.steps)
    return RunHistory(steps, by_kind(measured, known), warmup, found)


def read_metrics(path: Path) -> list[StepRecord]:
    """Return the steps in a `metrics.jsonl`; half a line at its end, of a run that is writing it, is no step yet.

    Raises:
        RecfoundError: the file is missing, has no step or a damaged line; the message names the line.
    """
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise RecfoundError(f"{path.parent}: is no training run: it has no {path.name}") from None
    except OSError as error:
        raise RecfoundError(f"{path}: cannot be read: {error.strerror or error}") from None
    records: list[StepRecord] = []
    for number, line in enumerate(lines, start=1):
        try:
            record = StepRecord.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise RecfoundError(f"{path}: line {number}: {f'{key}: ' if key else ''}{first['msg']}") from None
        if records and record.step <= records[-1].step:
            raise RecfoundError(f"{path}: line {number}: step {record.step} comes after step {records[-1].step}")
        records.append(record)
    if not any(record.losses and any(record.samples.values()) for record in records):
        raise RecfoundError(f"{path}: no step is finished yet: there is nothing to draw")
    return records


def adapter_gates(adapter: AdapterReader, tasks: Sequence[str]) -> Tensor:
    """The gates of tasks in every adapted linear, [layers, tasks, experts of all groups]; 0 where masked."""
    config = adapter.config
    groups = live_groups(KINDS, config.experts)
    z = torch.stack([adapter.tensor(embedding_key(task)) for task in tasks])
    mask = gate_mask([config.kind_of(task) for task in tasks], groups, config.experts)
    layers = []
    for module in adapter.modules:
        R, b = (torch.cat([adapter.tensor(factor_key(module, x, group)) for group in groups]) for x in ("R", "b"))
        layers.append(gates(R, b, z, mask))
    return torch.stack(layers)


def by_kind(tasks: Iterable[str], kinds: Mapping[str, str]) -> dict[str, str]:
    """Return each task's kind, by kind, the catalogue's tasks first and in its order."""
    rank = {name: place for place, name in enumerate((*KINDS, OTHER, *TASKS))}
    found = {task: kinds.get(task, OTHER) for task in tasks}
    order = sorted(found, key=lambda task: (rank[found[task]], rank.get(task, len(rank)), task))
    return {task: found[task] for task in order}


def _newest_adapter(run: Path) -> Path | None:
    if (run / "adapter").is_dir():
        return run / "adapter"
    found = [path.parent for path in run.glob(f"checkpoints/step-*/{CONFIG_FILE}")]
    return max(found, key=lambda folder: (len(folder.name), folder.name), default=None)
