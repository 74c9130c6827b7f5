"""What kind of model a folder holds, and whether it may be released."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from recfound_data.errors import RecfoundError
from recfound_model.adapter_config import CONFIG_FILE, PEFT_TYPE
from recfound_model.evaluation.models import REPORT_FILE
from recfound_model.provenance import Training, read_training

Kind = Literal["adapter", "lora", "embedder", "generator", "model"]
_MARKS = (CONFIG_FILE, "modules.json", "config.json")
_PICKLED = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth")
_STATE = "training_state.json"


@dataclass(frozen=True)
class ModelFolder:
    """A folder that can be released.

    Attributes:
        path: of the folder.
        kind: a native adapter, a standard LoRA, an exported embedder or generator, or any other model (a base).
        config: `adapter_config.json` of an adapter or LoRA, else empty.
        report: `export_report.json` of an export, else empty.
        training: what it was trained on, where it says so.
    """

    path: Path
    kind: Kind
    config: dict[str, Any]
    report: dict[str, Any]
    training: Training | None

    @property
    def base(self) -> tuple[str | None, str | None]:
        """The base that the folder names, and its revision."""
        if self.kind in ("adapter", "lora"):
            return self.config.get("base_model_name_or_path"), self.config.get("revision")
        return self.report.get("base_model"), self.report.get("base_revision")


def open_folder(path: str | Path) -> ModelFolder:
    """Return what a folder holds.

    Raises:
        RecfoundError: it is no model, holds several, a checkpoint, or pickled weights, or a file of it is damaged.
    """
    folder = Path(path)
    if not any((folder / mark).is_file() for mark in _MARKS):
        inside = sorted(entry.name for entry in folder.glob("*") if any((entry / mark).is_file() for mark in _MARKS))
        if inside:
            raise RecfoundError(
                f"{folder}: holds {len(inside)} models, and a repository holds one: push each by itself "
                f"({folder / inside[0]}, ...), or export them with --layout router or adapters"
            )
        raise RecfoundError(f"{folder}: is no model folder: it has none of {', '.join(_MARKS)}")
    if (folder / _STATE).is_file():
        raise RecfoundError(
            f"{folder}: is a checkpoint, with the optimizer's state; make an adapter of it with "
            f"`recfound model merge {folder} --method passthrough --out ADAPTER` and push that"
        )
    pickled = sorted(file.name for file in folder.rglob("*") if file.suffix in _PICKLED)
    if pickled:
        raise RecfoundError(f"{folder}: holds {pickled[0]}, which may be pickled code; save the weights as safetensors")
    config, report = _json(folder / CONFIG_FILE), _json(folder / REPORT_FILE)
    training = Training.of_json(report["training"]) if report.get("training") else read_training(folder)
    return ModelFolder(folder, _kind(folder, config, report), config, report, training)


def _kind(folder: Path, config: dict[str, Any], report: dict[str, Any]) -> Kind:
    if config:
        return "adapter" if config.get("peft_type") == PEFT_TYPE else "lora"
    if (folder / "modules.json").is_file():
        return "embedder"
    return "generator" if report else "model"


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecfoundError(f"{file} is not valid JSON ({error}): the file is damaged") from error
    if not isinstance(found, dict):
        raise RecfoundError(f"{file} holds no JSON object: the file is damaged")
    return found
