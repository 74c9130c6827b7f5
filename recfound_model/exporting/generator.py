"""Generative tasks as transformers models, in two layouts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from recfound_data.errors import UsageError
from recfound_model.adapter_config import CONFIG_FILE
from recfound_model.adapter_files import AdapterReader, open_adapter
from recfound_model.collapsing import collapse
from recfound_model.exporting.gate import tasks_of, together, write_checked
from recfound_model.exporting.parity import LayoutName, Written
from recfound_model.exporting.report import ExportReport
from recfound_model.exporting.weights import BaseModel, base_of, merged_base


def export_generator(
    adapter_dir: str | Path,
    out: str | Path,
    task: str | Sequence[str] | None = None,
    base_model: str | Path | None = None,
    dtype: str | torch.dtype | None = None,
    layout: LayoutName = "merged",
    data: str | None = None,
) -> ExportReport:
    """Writes generative tasks for `AutoModelForCausalLM.from_pretrained(...)`, compared with the native adapter first.

    With each model the base's tokenizer, with its chat template or the one that stood in for it in training, and the
    base's generation configuration.

    - `merged`: one model a task. A single task is written to `out` itself, several to `out/<task>`.
    - `adapters`: the base, unchanged, and a LoRA folder a task in it, for `load_adapter` or `PeftModel`.

    Args:
        adapter_dir: the adapter's folder, or the id of its repository on the Hub.
        out: the folder to write.
        task: one of the adapter's generative tasks, or several; all of them if not given.
        base_model: folder or repository of the base, if not where the adapter's configuration says.
        dtype: of the written weights, such as "bfloat16"; the base's own if not given. Sums are made in float32.
        layout: how the tasks share a model.
        data: dataset folder or repository with held-out prompts of the tasks; if not given, the dataset of the run that
            the adapter lies in, where it is at hand, or else texts that come with this package.

    Raises:
        UnknownTaskError: the adapter does not have a task.
        UsageError: a task is not a generative task, no base is known, or there is no such dtype or layout.
        RecfoundError: adapter and base do not fit, a file is missing or damaged, `out` is in the way, or what was
            written does not give what the adapter gives; nothing is left at `out` then.
    """
    if layout not in ("merged", "adapters"):
        raise UsageError(f"there is no layout {layout!r} for a generator: use merged or adapters")
    with open_adapter(adapter_dir) as adapter:
        tasks = tasks_of(adapter, task, "generative")
        base = base_of(adapter, base_model, dtype)
        places: dict[Path, Sequence[str]] = {Path(out): tasks}
        if layout == "adapters":
            together(tasks)
        elif not isinstance(task, str):
            places = {Path(out) / name: [name] for name in tasks}

        def write(folder: Path, place: Path, these: Sequence[str]) -> Written:
            if layout == "adapters":
                return _adapters(adapter_dir, base, folder, place, these)
            return _merged(adapter, base, folder, place, these[0])

        return write_checked(adapter_dir, adapter, base, data, places, write)


def _merged(adapter: AdapterReader, base: BaseModel, folder: Path, place: Path, task: str) -> Written:
    model, tokenizer = merged_base(adapter, task, base)
    _save(model, tokenizer, folder)
    return Written(folder, place, "generative", "merged", {task: folder}, model.dtype)


def _adapters(adapter_dir: str | Path, base: BaseModel, folder: Path, place: Path, tasks: Sequence[str]) -> Written:
    model, tokenizer = base.load()
    model = model.to(base.dtype or model.dtype)
    _save(model, tokenizer, folder)
    for task in tasks:
        collapse(adapter_dir, task, folder / task)
        file = folder / task / CONFIG_FILE
        config = json.loads(file.read_text(encoding="utf-8")) | {"base_model_name_or_path": base.name}
        file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return Written(folder, place, "generative", "adapters", dict.fromkeys(tasks, folder), model.dtype)


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """The model, and the tokenizer with padding on the left: batched generation continues at the right edge."""
    # What its own files did not name when it was loaded, a tokenizer does not write, whatever its attribute says.
    tokenizer.init_kwargs["padding_side"] = "left"
    tokenizer.padding_side = "left"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
