"""What an export says of itself: `export_report.json`, its card, and what the functions return."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCardData

from recfound_data.card import render
from recfound_data.errors import RecfoundError
from recfound_model.adapter_files import AdapterReader
from recfound_model.evaluation.models import REPORT_FILE
from recfound_model.exporting.parity import Parity, Written
from recfound_model.exporting.weights import BaseModel
from recfound_model.folders import fetch
from recfound_model.provenance import Training
from recfound_model.templates import task_prompts

# The first transformers whose decoders read `is_causal` from their configuration; older ones ignore it in silence.
MINIMUM_TRANSFORMERS = "5.2.0"
# Where a kind of model does so later: GPT-NeoX was tried, and is wrong without an error in 5.2 to 5.4.
LATER_TRANSFORMERS = {"gpt_neox": "5.5.0"}
# The first sentence-transformers that loads what is written here and encodes it as the native adapter does.
MINIMUM_SENTENCE_TRANSFORMERS = "6.0.0"
LIBRARIES = ("peft", "safetensors", "sentence-transformers", "tokenizers", "torch", "transformers")


@dataclass(frozen=True)
class ExportReport:
    """What one call wrote: the folders, and task -> how far it is from the native adapter."""

    paths: tuple[Path, ...]
    parity: dict[str, Parity]


def write_report(
    export: Written,
    parity: dict[str, Parity],
    adapter: AdapterReader,
    base: BaseModel,
    max_length: int,
    training: Training | None,
) -> None:
    """Write what a folder was made of, how it was checked, and its card; the same inputs give the same bytes."""
    embedder = export.kind == "embedding"
    config = json.loads((next(iter(export.weights.values())) / "config.json").read_text(encoding="utf-8"))
    report: dict[str, Any] = {
        "tasks": list(export.weights),
        "kind": export.kind,
        "layout": export.layout,
        "base_model": base.name,
        "base_revision": base.revision,
        "adapter_sha256": adapter.sha256(),
        "dtype": str(export.dtype).removeprefix("torch."),
        "max_length": max_length if embedder else None,
        "minimum_transformers": LATER_TRANSFORMERS.get(config["model_type"], MINIMUM_TRANSFORMERS)
        if embedder
        else None,
        "minimum_sentence_transformers": MINIMUM_SENTENCE_TRANSFORMERS if embedder else None,
        "training": None if training is None else training.to_json(),
        "parity": {task: dataclasses.asdict(figures) for task, figures in parity.items()},
        "versions": {library: version(library) for library in LIBRARIES},
    }
    (export.folder / REPORT_FILE).write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (export.folder / "README.md").write_text(_card(export, report, adapter, base, config), encoding="utf-8")


def _least_transformers(config: dict[str, Any]) -> str:
    return LATER_TRANSFORMERS.get(config["model_type"], MINIMUM_TRANSFORMERS)


def _card(
    export: Written, report: dict[str, Any], adapter: AdapterReader, base: BaseModel, config: dict[str, Any]
) -> str:
    """The README: front matter for the Hub, then the card from the template in `cards/`."""
    embedder = export.kind == "embedding"
    licence = base_licence(base)
    header = ModelCardData(
        # The Hub takes ids of repositories only.
        base_model=None if base.is_local else base.source,
        base_model_relation=None if base.is_local else "adapter" if export.layout == "adapters" else "finetune",
        license=licence,
        library_name="sentence-transformers" if embedder else "transformers",
        pipeline_tag="sentence-similarity" if embedder else "text-generation",
        tags=["recommendation", "recfound", *(["sentence-transformers", "feature-extraction"] if embedder else [])],
    )
    body = render(
        "embedder.md" if embedder else "generator.md",
        report=report,
        layout=export.layout,
        tasks=report["tasks"],
        prompts={task: embedding_prompts(adapter, task) for task in report["tasks"]} if embedder else {},
        prompt_names=export.prompt_names,
        dimension=config.get("hidden_size"),
        licence=licence,
        code_text=code_text,
    )
    return f"---\n{header.to_yaml()}\n---\n\n{body}"


def embedding_prompts(adapter: AdapterReader, task: str) -> dict[str, str]:
    """The prompts `query` and `document` of an embedding task: the adapter's own, or the canonical ones."""
    return task_prompts(task) | adapter.config.prompts.get(task, {})


def code_text(text: str) -> str:
    """A text in one line of Markdown, as JSON writes it."""
    return f"`{json.dumps(text, ensure_ascii=False)}`"


def base_licence(base: BaseModel) -> str | None:
    """The licence that the base's own card names, such as "apache-2.0"; None where it names none."""
    try:
        text = fetch(base.source, "README.md", base.revision).read_text(encoding="utf-8")
        header = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
        found = yaml.safe_load(header[1]).get("license") if header else None
    except (RecfoundError, OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError):
        return None
    return found if isinstance(found, str) else None
