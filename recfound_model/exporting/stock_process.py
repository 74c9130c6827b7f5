"""A script that imports nothing of this project: what stock libraries alone make of exported folders.

    python -P stock_process.py PLAN.json OUTPUTS.safetensors

The plan has `threads` and `exports`: a list of {folder, kind, layout, tasks: {task: what to encode or to answer}}. The
outputs are named `<number of the export>/<task>/...`. The vectors and logits come twice where weights are not float32:
computed in the dtype that they have, and computed in float32 from those same weights.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

Outputs = dict[str, torch.Tensor]


def main(plan_file: str, output_file: str) -> None:
    """Load every folder of the plan and write what it gives."""
    plan = json.loads(Path(plan_file).read_text(encoding="utf-8"))
    torch.set_num_threads(plan["threads"])
    outputs: Outputs = {}
    for number, export in enumerate(plan["exports"]):
        run = embedder_outputs if export["kind"] == "embedding" else generator_outputs
        for name, tensor in run(export):
            outputs[f"{number}/{name}"] = tensor.detach().cpu().contiguous().clone()
    save_file(outputs, output_file)


def embedder_outputs(export: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the token ids that were encoded, and the vectors, of each task and side."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(export["folder"])
    if model.similarity_fn_name != "cosine":
        raise SystemExit(f"the similarity function is {model.similarity_fn_name}, not cosine")
    seen: list[torch.Tensor] = []

    def see(_: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        ids, mask = arguments[0]["input_ids"], arguments[0]["attention_mask"]
        seen.extend(row[kept.bool()] for row, kept in zip(ids, mask, strict=True))

    model[0].register_forward_pre_hook(see)
    if export["layout"] == "adapters":
        for task in export["tasks"]:
            model.load_adapter(export["folder"], adapter_name=task, adapter_kwargs={"subfolder": task})
    for computed in computations(model):
        for task, texts in export["tasks"].items():
            for side in ("query", "document"):
                seen.clear()
                vectors = encode(model, export, task, side, texts[side])
                yield f"{task}/{side}/{computed}", vectors.float()
                yield f"{task}/{side}/ids", in_rows([row.tolist() for row in seen])


def encode(model: Any, export: dict[str, Any], task: str, side: str, texts: list[str]) -> torch.Tensor:
    """Return the vectors of texts, asked for as the export's card says."""
    if export["layout"] == "router":
        return model.encode(texts, task=task, prompt_name=side, convert_to_tensor=True)
    if export["layout"] == "adapters":
        model.set_adapter(task)
        return model.encode(texts, prompt_name=export["prompt_names"][task][side], convert_to_tensor=True)
    asked = model.encode_query if side == "query" else model.encode_document
    return asked(texts, convert_to_tensor=True)


@torch.inference_mode()
def generator_outputs(export: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the prompts' token ids, greedy answers, and logits over given continuations, of each task."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(export["folder"])
    model = AutoModelForCausalLM.from_pretrained(export["folder"])
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    if export["layout"] == "adapters":
        for task in export["tasks"]:
            model.load_adapter(export["folder"], adapter_name=task, adapter_kwargs={"subfolder": task})
    for computed in computations(model):
        for task, wanted in export["tasks"].items():
            if export["layout"] == "adapters":
                model.set_adapter(task)
            texts = [
                tokenizer.apply_chat_template(p, tokenize=False, add_generation_prompt=True) for p in wanted["prompts"]
            ]
            inputs = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt").to(model.device)
            rows = [
                row[kept.bool()].tolist() for row, kept in zip(inputs.input_ids, inputs.attention_mask, strict=True)
            ]
            yield f"{task}/ids", in_rows(rows)
            answers = model.generate(**inputs, max_new_tokens=wanted["new_tokens"], do_sample=False)
            yield f"{task}/answers/{computed}", answers[:, inputs.input_ids.shape[1] :]
            logits = [
                model(torch.tensor([row + more], device=model.device)).logits[0, [len(row) - 1, -1]].float()
                for row, more in zip(rows, wanted["continuations"], strict=True)
            ]
            yield f"{task}/logits/{computed}", torch.stack(logits)


def computations(model: Any) -> Iterator[str]:
    """Yield "own" with the model as it was loaded; then, unless that is it, "float32" with its weights as float32."""
    if next(model.parameters()).dtype != torch.float32:
        yield "own"
        model.float()
    yield "float32"


def in_rows(ids: list[list[int]]) -> torch.Tensor:
    """Return [rows, longest], the rows in ascending order, filled up with -1: `encode` sorts texts by length."""
    width = max(map(len, ids))
    return torch.tensor(sorted([*row, *[-1] * (width - len(row))] for row in ids))


if __name__ == "__main__":
    for _name in ("recfound_data", "recfound_model"):
        sys.modules[_name] = None  # type: ignore[assignment]  # from here on, importing either fails
    main(*sys.argv[1:])
