"""What the versions of a model are compared by: kind, base, tasks, texts, weights and scores.

| what changed | asks for |
|---|---|
| another kind or layout, another base or dimension, a task gone | major |
| a task more; other weights, prompts, maximum length or dtype: vectors and answers change, calls do not | minor |
| the card alone | patch |

Vectors of two releases with other weights cannot be compared: a catalogue that was encoded before is encoded again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from recfound_data.release import Difference, Level
from recfound_data.release.history import CARD, Read
from recfound_model.adapter_config import CONFIG_FILE, PEFT_TYPE
from recfound_model.evaluation.models import REPORT_FILE

WEIGHTS_LINE = "Weights: SHA-256 `{}` over the names and hashes of all safetensors files."
_WEIGHTS = re.compile(re.escape(WEIGHTS_LINE).replace(r"\{\}", "([0-9a-f]{64})"))
_NAME = re.compile(r'name, revision = "[^"]+", (?:None|"[^"]+")(?:  # or the path of this folder)?')
_FIXED = ("kind", "layout", "base", "base_revision", "dimension")
_MOVING = ("weights", "prompts", "max_length", "dtype")


@dataclass(frozen=True)
class ModelFacts:
    """What versions of a model are compared by; None where it does not say.

    Attributes:
        kind: adapter, lora, embedder, generator or model.
        layout: of an export.
        base: its repository or name.
        base_revision: of the repository.
        dimension: of its hidden states.
        tasks: their names.
        weights: digest of all of them.
        prompts: by task and side, or by name.
        max_length: tokens of a text.
        dtype: of the weights.
        scores: by task and metric, in words.
    """

    kind: str
    layout: str | None
    base: str | None
    base_revision: str | None
    dimension: int | None
    tasks: tuple[str, ...]
    weights: str | None
    prompts: Mapping[str, Any] | None
    max_length: int | None
    dtype: str | None
    scores: Mapping[tuple[str, str], str]


class ModelSubject:
    """An adapter, a LoRA, an export or a base; `recfound_data.release.Subject`."""

    def facts(self, read: Read) -> ModelFacts | None:
        """Return the facts from configuration, report and card; None where a file cannot be read."""
        try:
            adapter, report = _json(read, CONFIG_FILE), _json(read, REPORT_FILE)
            model, sentences = _json(read, "config.json"), _json(read, "config_sentence_transformers.json")
            card = (read(CARD) or b"").decode()
            tasks = report.get("tasks") or sorted(adapter.get("tasks") or {})
            weights = _WEIGHTS.search(card)
            return ModelFacts(
                kind=_kind(adapter, report, bool(sentences)),
                layout=report.get("layout"),
                base=report.get("base_model") or adapter.get("base_model_name_or_path"),
                base_revision=report.get("base_revision") or adapter.get("revision"),
                dimension=model.get("hidden_size"),
                tasks=tuple(tasks),
                weights=weights[1] if weights else None,
                prompts=sentences.get("prompts") or adapter.get("prompts"),
                max_length=report.get("max_length") or adapter.get("max_length"),
                dtype=report.get("dtype") or model.get("dtype"),
                scores=_scores(card),
            )
        except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
            return None

    def differences(self, before: ModelFacts, after: ModelFacts) -> list[Difference]:
        """Return in what two models differ, breaks first."""
        return sorted(_differences(before, after), key=lambda difference: -difference.level)

    def figures(self, before: ModelFacts | None, after: ModelFacts) -> str:
        """Return the table of scores, before and after."""
        known = before.scores if before is not None else {}
        if not (known or after.scores):
            return f"Tasks: {', '.join(after.tasks)}." if after.tasks else ""
        lines = ["| task | metric | before | now |", "|---|---|---|---|"]
        for task, metric in sorted({*known, *after.scores}):
            old, new = known.get((task, metric), ""), after.scores.get((task, metric), "")
            lines.append(f"| `{task}` | {metric} | {old} | {new} |")
        return "Test scores:\n\n" + "\n".join(lines)

    def card(self, text: str, repo_id: str, version: str) -> str:
        """Return the card whose example loads this release."""
        return _NAME.sub(f'name, revision = "{repo_id}", "{version}"', text)

    def usage(self, repo_id: str, version: str, facts: ModelFacts) -> str:
        """Return the line that loads the release."""
        at = f'"{repo_id}", revision="{version}"'
        return {
            "adapter": f"load_tmole(base, {at})",
            "lora": f"PeftModel.from_pretrained(base, {at})",
            "embedder": f"SentenceTransformer({at})",
        }.get(facts.kind, f"AutoModelForCausalLM.from_pretrained({at})")


def _differences(before: ModelFacts, after: ModelFacts) -> Iterator[Difference]:
    for name in _FIXED:
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            yield Difference(Level.MAJOR, f"{_words(name)}: {old or 'not stated'} → {new or 'not stated'}")
    for task in before.tasks:
        if task not in after.tasks:
            yield Difference(Level.MAJOR, f"task `{task}` removed")
    for task in after.tasks:
        if task not in before.tasks:
            yield Difference(Level.MINOR, f"task `{task}` added")
    for name in _MOVING:
        if getattr(before, name) != getattr(after, name):
            yield Difference(Level.MINOR, f"other {_words(name)}")


def _words(name: str) -> str:
    return {"max_length": "maximum length"}.get(name, name.replace("_", " "))


def _kind(adapter: dict[str, Any], report: dict[str, Any], sentences: bool) -> str:
    if adapter:
        return "adapter" if adapter.get("peft_type") == PEFT_TYPE else "lora"
    return "embedder" if sentences else "generator" if report else "model"


def _json(read: Read, path: str) -> dict[str, Any]:
    content = read(path)
    found = json.loads(content) if content else {}
    if not isinstance(found, dict):
        raise TypeError(path)
    return found


def _scores(card: str) -> dict[tuple[str, str], str]:
    """The scores in a card's table of its evaluation, by task and metric."""
    header = yaml.safe_load(card.split("---\n", 2)[1]) if card.startswith("---\n") else {}
    found = {}
    for index in header.get("model-index") or []:
        for result in index["results"]:
            for metric in result["metrics"]:
                found[result["dataset"]["config"], metric["type"]] = f"{metric['value']:.3f}"
    return found
