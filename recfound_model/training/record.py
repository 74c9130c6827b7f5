"""What a run writes as it goes: its recipe, `metrics.jsonl`, and what trackers are sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from recfound_data.errors import UsageError
from recfound_model.training.recipe import TrainRecipe

METRICS = "metrics.jsonl"
RECIPE = "recipe.yaml"

Record = dict[str, Any]
"""The metrics of a step: what `metrics.jsonl` holds in a line."""


def require_trackers(names: list[str]) -> None:
    """Refuse trackers whose package is not there: accelerate would leave them out without a word.

    Raises:
        UsageError: one is not installed.
    """
    available = {str(getattr(tracker, "value", tracker)) for tracker in get_available_trackers()}
    for name in names:
        if name not in available:
            raise UsageError(f"trackers: {name} is not installed; install it with: pip install {name}")


def write_recipe(run: Path, recipe: TrainRecipe) -> None:
    """Write the whole recipe, defaults included, into a run's folder, which is made where it is not there."""
    run.mkdir(parents=True, exist_ok=True)
    written = recipe.model_dump(mode="json")
    (run / RECIPE).write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")


def cut_back(run: Path, step: int) -> None:
    """Keep the metrics of the first `step` steps; the last line may be half a one where the run was killed."""
    metrics = run / METRICS
    lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True) if metrics.exists() else []
    metrics.write_text("".join(lines[:step]), encoding="utf-8")


class RunRecord:
    """The open record of a run; made on the main process alone."""

    def __init__(self, metrics: IO[str], accelerator: Accelerator) -> None:
        self._metrics, self._accelerator = metrics, accelerator

    def append(self, record: Record) -> None:
        """Write a step's metrics, so that they are there whatever happens next."""
        self._metrics.write(json.dumps(record) + "\n")
        self._metrics.flush()
        if self._accelerator.trackers:
            self._accelerator.log(dict(_flat(record)), step=record["step"])


@contextmanager
def recording(run: Path, recipe: TrainRecipe, accelerator: Accelerator) -> Iterator[RunRecord]:
    """Open a run's record to append to, its trackers too."""
    if recipe.trackers:
        settings = {key: value for key, value in _flat(recipe.model_dump(mode="json")) if value is not None}
        plain = {key: value if isinstance(value, (int, float)) else str(value) for key, value in settings.items()}
        accelerator.init_trackers(run.name, config=plain, init_kwargs={"wandb": {"dir": str(run)}})
    with (run / METRICS).open("a", encoding="utf-8") as metrics:
        yield RunRecord(metrics, accelerator)


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (name, value) with nested names joined by a slash, as trackers group them."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value
