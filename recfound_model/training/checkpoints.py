"""Checkpoints: an adapter folder that also holds what continuing needs, in safetensors and JSON, nothing pickled."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from recfound_data.errors import RecfoundError
from recfound_data.layout import replacing
from recfound_model.adapter_config import CONFIG_FILE
from recfound_model.adapter_files import open_adapter, save_tensors, write_adapter
from recfound_model.provenance import Training
from recfound_model.scheduling.scheduler import FixedShares
from recfound_model.tmole import TmoleModel
from recfound_model.training.sharding import gathered, laid_out_as
from recfound_model.training.streams import Stream

_OPTIMIZER, _STATE = "optimizer.safetensors", "training_state.json"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class Standing:
    """How a run did on its validation samples so far.

    Attributes:
        first: the first losses, by task.
        best: the step with the lowest mean of losses relative to the first ones.
        score: that mean.
    """

    first: dict[str, float] = field(default_factory=dict)
    best: int | None = None
    score: float = math.inf

    def take(self, step: int, losses: dict[str, float]) -> bool:
        """Take the losses measured after a step, and return whether it is the best so far."""
        self.first = self.first or losses
        score = sum(loss / max(self.first[task], 1e-12) for task, loss in losses.items()) / len(losses)
        if score >= self.score:
            return False
        self.best, self.score = step, score
        return True


@dataclass(frozen=True)
class TrainingState:
    """All that a run continues from, besides its recipe and the base."""

    model: TmoleModel
    optimizer: torch.optim.Optimizer
    streams: dict[str, Stream]
    scheduler: FixedShares
    standing: Standing
    training: Training


def checkpoint_folder(run: Path, step: int) -> Path:
    """Return where a run's checkpoint of a step is."""
    return run / "checkpoints" / f"step-{step:06d}"


def save_checkpoint(run: Path, step: int, state: TrainingState, write: bool) -> None:
    """Write `checkpoints/step-NNNNNN`, whole or not at all; all processes call it, since each may hold a part.

    Args:
        run: the run's folder.
        step: that was taken last.
        state: what is written; the files are the same whether it is sharded or not.
        write: true on the main process.

    Raises:
        RecfoundError: the disk is full or cannot be written; earlier checkpoints are as they were.
    """
    parameters = state.model.adapter_tensors()
    tensors = gathered(parameters, write)
    moments = gathered(
        {
            f"{key}:{name}": state.optimizer.state[parameter][key]
            for name, parameter in parameters.items()
            for key in _MOMENTS
            if key in state.optimizer.state.get(parameter, {})
        },
        write,
    )
    if not write:
        return
    folder = checkpoint_folder(run, step)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder, marker=CONFIG_FILE) as fresh:
        write_adapter(fresh, state.model.tmole_config, tensors, state.training)
        save_tensors(moments, fresh / _OPTIMIZER)
        written: dict[str, Any] = {
            "step": step,
            "cursors": {task: stream.cursor for task, stream in state.streams.items()},
            "scheduler": state.scheduler.state_dict(),
            "validation": {"first": state.standing.first, "best": state.standing.best},
        }
        if state.standing.best is not None:  # infinity is no JSON
            written["validation"]["score"] = state.standing.score
        (fresh / _STATE).write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def prune_checkpoints(run: Path, keep: int, best: int | None) -> None:
    """Remove a run's checkpoints but for the first, the last `keep`, and that of the best step."""
    found = _checkpoints(run)
    stay = {checkpoint_folder(run, step).name for step in (0, best) if step is not None}
    for path in found[:-keep]:
        if path.name not in stay:
            shutil.rmtree(path)


def remove_partial_checkpoints(run: Path) -> None:
    """Remove what a process that was killed while it wrote a checkpoint left behind."""
    for path in (run / "checkpoints").glob(".step-*"):
        shutil.rmtree(path)


def _checkpoints(run: Path) -> list[Path]:
    """Return a run's checkpoints, by step."""
    return sorted(path for path in (run / "checkpoints").glob("step-*") if re.fullmatch(r"step-\d+", path.name))


def latest_checkpoint(run: Path) -> Path:
    """Return the run's last checkpoint.

    Raises:
        RecfoundError: the run has none.
    """
    found = _checkpoints(run)
    if not found:
        raise RecfoundError(f"{run}: has no checkpoint to resume from; remove it and train without --resume")
    return found[-1]


def load_checkpoint(folder: Path, state: TrainingState) -> int:
    """Put a checkpoint into a state, and return its step.

    Raises:
        RecfoundError: the checkpoint is damaged or belongs to another recipe.
    """
    model, optimizer = state.model, state.optimizer
    parameters = model.adapter_tensors()
    with open_adapter(folder) as adapter:
        if adapter.config.initialization != model.tmole_config.initialization:
            raise RecfoundError(
                f"{folder}: was drawn otherwise than this recipe draws; resume with the run's own recipe"
            )
        tensors = {key: laid_out_as(parameters.get(key), adapter.tensor(key)) for key in adapter.keys}
        model.load_adapter_tensors(tensors, origin=str(folder))
    try:
        written = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        moments = load_file(folder / _OPTIMIZER)
        for task, stream in state.streams.items():
            stream.cursor = int(written["cursors"][task])
        state.scheduler.load_state_dict(written["scheduler"])
        validation = written["validation"]
        state.standing.first, state.standing.best = validation["first"], validation["best"]
        state.standing.score = validation.get("score", math.inf)
        step = int(written["step"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise RecfoundError(f"{folder}: cannot be resumed from: {error!r}") from None
    for name, parameter in parameters.items():
        found = {key: moments[f"{key}:{name}"] for key in _MOMENTS if f"{key}:{name}" in moments}
        if found:
            optimizer.state[parameter] = {
                key: value if key == "step" else laid_out_as(parameter, value.to(parameter.device))
                for key, value in found.items()
            }
    return step
