"""Checkpoints: an adapter folder that also holds what continuing needs, in safetensors and JSON, nothing pickled."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from recfound_data.errors import RecfoundError
from recfound_data.layout import replacing
from recfound_model.adapter_config import CONFIG_FILE
from recfound_model.adapter_files import open_adapter, write_adapter
from recfound_model.scheduling.scheduler import FixedShares
from recfound_model.tmole import TmoleModel
from recfound_model.training.streams import Stream

_OPTIMIZER, _STATE = "optimizer.safetensors", "training_state.json"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def save_checkpoint(
    run: Path,
    step: int,
    model: TmoleModel,
    optimizer: torch.optim.Optimizer,
    streams: dict[str, Stream],
    scheduler: FixedShares,
) -> Path:
    """Write `checkpoints/step-NNNNNN`, whole or not at all, and return it."""
    folder = run / "checkpoints" / f"step-{step:06d}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder, marker=CONFIG_FILE) as fresh:
        write_adapter(fresh, model.tmole_config, model.adapter_tensors())
        moments = {}
        for name, parameter in model.adapter_tensors().items():
            for key in _MOMENTS:
                if key in optimizer.state.get(parameter, {}):
                    moments[f"{key}:{name}"] = optimizer.state[parameter][key].detach().cpu().contiguous()
        save_file(moments, fresh / _OPTIMIZER)
        state = {
            "step": step,
            "cursors": {task: stream.cursor for task, stream in streams.items()},
            "scheduler": scheduler.state_dict(),
        }
        (fresh / _STATE).write_text(json.dumps(state, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return folder


def latest_checkpoint(run: Path) -> Path:
    """Return the run's last checkpoint.

    Raises:
        RecfoundError: the run has none.
    """
    found = sorted(path for path in (run / "checkpoints").glob("step-*") if re.fullmatch(r"step-\d+", path.name))
    if not found:
        raise RecfoundError(f"{run}: has no checkpoint to resume from; remove it and train without --resume")
    return found[-1]


def load_checkpoint(
    folder: Path,
    model: TmoleModel,
    optimizer: torch.optim.Optimizer,
    streams: dict[str, Stream],
    scheduler: FixedShares,
) -> int:
    """Put a checkpoint's state into model, optimizer, streams and scheduler, and return its step.

    Raises:
        RecfoundError: the checkpoint is damaged or belongs to another recipe.
    """
    with open_adapter(folder) as adapter:
        if adapter.config.initialization != model.tmole_config.initialization:
            raise RecfoundError(
                f"{folder}: was drawn otherwise than this recipe draws; resume with the run's own recipe"
            )
        model.load_adapter_tensors({key: adapter.tensor(key) for key in adapter.keys}, origin=str(folder))
    try:
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        moments = load_file(folder / _OPTIMIZER)
        cursors = {task: int(state["cursors"][task]) for task in streams}
        step = int(state["step"])
        scheduler.load_state_dict(state["scheduler"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise RecfoundError(f"{folder}: cannot be resumed from: {error!r}") from None
    for name, parameter in model.adapter_tensors().items():
        found = {key: moments[f"{key}:{name}"] for key in _MOMENTS if f"{key}:{name}" in moments}
        if found:
            optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in found.items()
            }
    for task, stream in streams.items():
        stream.cursor = cursors[task]
    return step
