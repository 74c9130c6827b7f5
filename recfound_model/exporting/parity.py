"""The parity gate: an export is finished when stock libraries, in a fresh process, gave what the native adapter gives.

Per task, and switching between tasks where a folder holds several:

- the token ids of every text are the native ones, special tokens and prompt included;
- every vector's cosine to the native one, or every prompt's greedy tokens and logits, are within a bound: computed in
  float32, and also in the dtype of the weights where that is another one;
- every written weight is the native sum of base and update, rounded once to its dtype. Rounding to bfloat16 changes
  outputs by more than a small update with a wrong scale does; it cannot hide one here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM

from recfound_data.errors import RecfoundError
from recfound_data.tasks.catalogue import Kind
from recfound_model.adapter_files import TENSOR_FILE
from recfound_model.exporting import stock_process
from recfound_model.exporting.distances import agreement, cosines, deviation, logit_difference
from recfound_model.exporting.held_out import HeldOut
from recfound_model.exporting.reference import (
    NEW_TOKENS,
    SIDES,
    EmbeddingReference,
    GenerationReference,
    NativeModel,
    Reference,
)

LayoutName = Literal["merged", "router", "adapters"]
Computed = Literal["float32", "own"]


@dataclass(frozen=True)
class Bounds:
    """What is let through: the least cosine, and the largest difference of a logit in standard deviations of them."""

    cosine: float
    logits: float


FLOAT32 = Bounds(cosine=0.9999, logits=1e-3)
"""Weights in float32, computed in float32."""
ROUNDED = Bounds(cosine=0.999, logits=0.2)
"""Weights rounded to bfloat16 or float16, computed in float32."""
LOW_PRECISION = Bounds(cosine=0.995, logits=0.8)
"""Weights rounded to bfloat16 or float16, computed in that dtype."""


def bounds_of(dtype: torch.dtype, computed: Computed) -> Bounds:
    """The bounds for weights of a dtype."""
    if dtype == torch.float32:
        return FLOAT32
    return ROUNDED if computed == "float32" else LOW_PRECISION


@dataclass(frozen=True)
class Written:
    """An exported folder before it takes its place.

    Attributes:
        folder: where it lies now.
        place: where it will lie, for messages.
        kind: of its tasks.
        layout: how they are in it.
        weights: task -> the folder of the transformers model that it uses.
        dtype: of the weights.
        prompt_names: task -> side -> the name of its prompt, in an embedder with adapters.
    """

    folder: Path
    place: Path
    kind: Kind
    layout: LayoutName
    weights: dict[str, Path]
    dtype: torch.dtype
    prompt_names: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Parity:
    """How far one task of an export is from the native adapter; the worst of all texts.

    Attributes:
        source: where the texts come from.
        texts: of each side, or prompts.
        weights: the largest deviation of a written weight from the native sum, as a share of what is allowed.
        figures: computation -> {"cosine": ...}, or {"logits": ..., "tokens": the share of greedy tokens that agree}.
        bounds: computation -> the bound of each figure.
    """

    source: str
    texts: int
    weights: float
    figures: dict[str, dict[str, float]]
    bounds: dict[str, dict[str, float]]


def check(
    exports: Sequence[Written], native: NativeModel, texts: Mapping[str, HeldOut]
) -> Iterator[tuple[Written, dict[str, Parity]]]:
    """Yield each export with the figures of its tasks, after all of them have passed.

    Args:
        exports: the folders of one call.
        native: the adapter that they were made of.
        texts: of each task.

    Raises:
        RecfoundError: a folder cannot be loaded by stock libraries, or gives something else than the adapter.
    """
    references = references_of(exports, native, texts)
    for export, outputs in zip(exports, stock_outputs(exports, references, texts), strict=True):
        yield (
            export,
            {task: judge(export, task, outputs, references[task], native, texts[task]) for task in export.weights},
        )


def references_of(
    exports: Sequence[Written], native: NativeModel, texts: Mapping[str, HeldOut]
) -> dict[str, Reference]:
    """What the native adapter makes of the texts of every task."""
    kinds = {task: export.kind for export in exports for task in export.weights}
    return {
        task: native.embeddings(task, texts[task]) if kind == "embedding" else native.generation(task, texts[task])
        for task, kind in kinds.items()
    }


def judge(
    export: Written,
    task: str,
    outputs: Mapping[str, Tensor],
    reference: Reference,
    native: NativeModel,
    texts: HeldOut,
) -> Parity:
    """How far one task of an export is from the native adapter.

    Args:
        export: the folder, for its weights.
        task: one of its tasks.
        outputs: what stock libraries made of the folder, by `<task>/...`.
        reference: what the native adapter made of the same texts.
        native: the adapter.
        texts: what they were.

    Raises:
        RecfoundError: further than a bound allows.
    """
    judged = _Judge(export, task)
    own = {key.removeprefix(f"{task}/"): value for key, value in outputs.items() if key.startswith(f"{task}/")}
    if isinstance(reference, EmbeddingReference):
        judged.embeddings(own, reference)
    else:
        judged.generation(own, reference)
    return Parity(texts.source, texts.count, judged.weights(native), judged.figures, judged.bounds)


class _Judge:
    """Compares one task of one export; the first thing out of bounds is an error."""

    def __init__(self, export: Written, task: str) -> None:
        self.export, self.task = export, task
        self.figures: dict[str, dict[str, float]] = {}
        self.bounds: dict[str, dict[str, float]] = {}

    @property
    def computations(self) -> list[Computed]:
        return ["float32"] if self.export.dtype == torch.float32 else ["float32", "own"]

    def refuse(self, what: str) -> RecfoundError:
        return RecfoundError(
            f"the export of {self.task} is not what the adapter is, and was not written to {self.export.place}: {what}"
        )

    def embeddings(self, outputs: Mapping[str, Tensor], reference: EmbeddingReference) -> None:
        for side in SIDES:
            self._same_ids(f"the tokens of a {side}", outputs[f"{side}/ids"], reference.ids[side])
        for computed in self.computations:
            bound = bounds_of(self.export.dtype, computed).cosine
            worst = {
                side: float(cosines(outputs[f"{side}/{computed}"], reference.vectors[side]).min()) for side in SIDES
            }
            side = min(worst, key=lambda name: worst[name])
            # Not "<": a vector that is not a number has to fail, too.
            if not worst[side] >= bound:
                raise self.refuse(
                    f"computed in {self._dtype(computed)}, the vector of a {side} has cosine {worst[side]:.6f} to the "
                    f"native one, and at least {bound} is asked for"
                )
            self.figures[self._dtype(computed)] = {"cosine": round(worst[side], 7)}
            self.bounds[self._dtype(computed)] = {"cosine": bound}

    def generation(self, outputs: Mapping[str, Tensor], reference: GenerationReference) -> None:
        self._same_ids("the tokens of a prompt", outputs["ids"], reference.ids)
        for computed in self.computations:
            bound = bounds_of(self.export.dtype, computed).logits
            found = outputs[f"logits/{computed}"]
            worst = max(map(logit_difference, found, reference.logits))
            if not worst <= bound:
                raise self.refuse(
                    f"computed in {self._dtype(computed)}, a logit is {worst:.2g} standard deviations from the native "
                    f"one, and at most {bound} is allowed"
                )
            same, tokens = 0, 0
            for answer, wanted, logits in zip(
                outputs[f"answers/{computed}"].tolist(), reference.continuations, reference.logits, strict=True
            ):
                until = agreement(answer, wanted, logits, bound)
                if until is None:
                    raise self.refuse(
                        f"computed in {self._dtype(computed)}, it answers a prompt with the tokens "
                        f"{answer[: len(wanted)]}, and the native adapter with {wanted}"
                    )
                same, tokens = same + until, tokens + len(wanted)
            self.figures[self._dtype(computed)] = {"logits": float(f"{worst:.3g}"), "tokens": round(same / tokens, 4)}
            self.bounds[self._dtype(computed)] = {"logits": bound}

    def weights(self, native: NativeModel) -> float:
        """The largest deviation of a weight as a share of the allowed one; above 1 it is refused."""
        whole = self.export.kind == "generative"
        prefix = "" if whole else native.prefix
        found = _parameters(self.export.weights[self.task], whole)
        lora = _lora_products(self.export.folder / self.task) if self.export.layout == "adapters" else None
        for name, weight in native.unadapted():
            if name.startswith(prefix) and self._weight(found, name.removeprefix(prefix), weight, exactly=True) != 0:
                raise self.refuse(f"{name} is not the base's")
        worst = 0.0
        for module, weight, update in native.updates(self.task):
            if not module.startswith(prefix):
                continue
            name = f"{module.removeprefix(prefix)}"
            if lora is None:
                share = self._weight(found, f"{name}.weight", weight + update)
            else:
                share = self._weight(found, f"{name}.weight", weight, exactly=True)
                product = lora.get(name)
                share = max(share, float("inf") if product is None else deviation(product(), update, torch.float32))
            if not share <= 1:
                raise self.refuse(f"the weight of {module} is not what base and adapter add up to ({share:.2g} times)")
            worst = max(worst, share)
        return float(f"{worst:.3g}")

    def _weight(self, found: Mapping[str, Tensor], name: str, wanted: Tensor, exactly: bool = False) -> float:
        if name not in found:
            raise self.refuse(f"it has no weight {name}")
        weight = found[name]
        if exactly:
            return 0.0 if torch.equal(weight, wanted.to(weight.dtype)) else float("inf")
        return deviation(weight, wanted, weight.dtype)

    def _same_ids(self, what: str, found: Tensor, wanted: list[list[int]]) -> None:
        if not torch.equal(found, stock_process.in_rows(wanted)):
            rows = {tuple(token for token in row if token >= 0) for row in found.tolist()}
            first = next((row for row in wanted if tuple(row) not in rows), wanted[0])
            raise self.refuse(
                f"{what} are others: special tokens, prompt, template or maximum length differ; natively they begin "
                f"with {first[:8]}"
            )

    def _dtype(self, computed: Computed) -> str:
        return "float32" if computed == "float32" else str(self.export.dtype).removeprefix("torch.")


def _parameters(folder: Path, whole: bool) -> dict[str, Tensor]:
    """The parameters of an exported transformers model, in the dtype that they were written in."""
    stock = AutoModelForCausalLM if whole else AutoModel
    model = stock.from_pretrained(folder, dtype="auto")
    return {name: parameter.detach() for name, parameter in model.named_parameters(remove_duplicate=False)}


def _lora_products(folder: Path) -> dict[str, Any]:
    """By module, what gives the update that a LoRA folder adds to its weight."""
    config = LoraConfig.from_pretrained(str(folder))
    handle = safe_open(folder / TENSOR_FILE, framework="pt")
    names = [key.split(".lora_A.")[0] for key in handle.keys() if ".lora_A." in key]  # noqa: SIM118  (not a dict)

    def product(name: str) -> Tensor:
        tensors = (handle.get_tensor(f"{name}.lora_{letter}.weight").float() for letter in "BA")
        lora_b, lora_a = tensors
        return lora_b @ lora_a * (config.lora_alpha / config.r)

    return {name.removeprefix("base_model.model."): lambda name=name: product(name) for name in names}


def stock_outputs(
    exports: Sequence[Written], references: Mapping[str, Reference], texts: Mapping[str, HeldOut]
) -> list[dict[str, Tensor]]:
    """What a fresh process without this project makes of each folder, by `<task>/...`.

    Raises:
        RecfoundError: it cannot load one of them.
    """
    plan = {
        "threads": torch.get_num_threads(),
        "exports": [
            {
                "folder": str(export.folder),
                "kind": export.kind,
                "layout": export.layout,
                "prompt_names": export.prompt_names,
                "tasks": {task: _asked(references[task], texts[task]) for task in export.weights},
            }
            for export in exports
        ],
    }
    # Offline: an export that only loads where it can fetch something is not whole.
    settings = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as workspace:
        plan_file, output_file = Path(workspace, "plan.json"), Path(workspace, "outputs.safetensors")
        plan_file.write_text(json.dumps(plan), encoding="utf-8")
        # -P: the script's own folder is not a place to import from.
        command = [sys.executable, "-P", stock_process.__file__, str(plan_file), str(output_file)]
        run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **settings}, check=False)  # noqa: S603
        if run.returncode != 0:
            raise RecfoundError(
                f"stock libraries cannot use the export, and it was not written to {exports[0].place}: "
                f"{_reason(run.stderr, run.returncode)}"
            )
        outputs = load_file(output_file)
    found: list[dict[str, Tensor]] = [{} for _ in exports]
    for key, tensor in outputs.items():
        number, name = key.split("/", 1)
        found[int(number)][name] = tensor
    return found


def _asked(reference: Reference, texts: HeldOut) -> dict[str, Any]:
    if isinstance(reference, EmbeddingReference):
        return dict(texts.texts)
    return {"prompts": texts.prompts, "continuations": reference.continuations, "new_tokens": NEW_TOKENS}


def _reason(stderr: str, code: int) -> str:
    """What the exception says that ended a process, or else its last line."""
    raised = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception): .*", stderr, re.MULTILINE)
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return (raised or lines or [f"the process ended with {code}"])[-1][:500]
