"""Embedding tasks as a sentence-transformers model, in three layouts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Router, Transformer
from tokenizers import normalizers
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from recfound_data.errors import RecfoundError, UsageError
from recfound_model.adapter_config import CONFIG_FILE
from recfound_model.adapter_files import TENSOR_FILE, AdapterReader, open_adapter, save_tensors
from recfound_model.collapsing import collapse
from recfound_model.evaluation.models import adapter_prompt_name
from recfound_model.exporting.gate import tasks_of, together, write_checked
from recfound_model.exporting.parity import LayoutName, Written
from recfound_model.exporting.reference import SIDES
from recfound_model.exporting.report import ExportReport, embedding_prompts
from recfound_model.exporting.weights import BaseModel, base_of, decoder_prefix, max_length, merged_base

# Stated, not inferred: from a chat template sentence-transformers would infer chat messages as input.
_TEXT_INPUT = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
ROUTED_PROMPTS = {side: f"\ue000{side}\ue001" for side in SIDES}
"""What a router's prompts are: marks from Unicode's private use area, for which each route's tokenizer puts its own."""


def export_embedder(
    adapter_dir: str | Path,
    out: str | Path,
    task: str | Sequence[str] | None = None,
    base_model: str | Path | None = None,
    dtype: str | torch.dtype | None = None,
    layout: LayoutName = "merged",
    data: str | None = None,
) -> ExportReport:
    """Writes embedding tasks as models for `SentenceTransformer(...)`, after comparing them with the native adapter.

    The base's decoder without its head, with bidirectional attention; the mean over the tokens that follow the prompt;
    L2-normalised; cosine similarity.

    - `merged`: one model a task, `encode_query` and `encode_document` with the prompts of training. A single task is
      written to `out` itself, several to `out/<task>`.
    - `router`: one model with a decoder a task: `encode(texts, task="query2item")` for queries, and with
      `prompt_name="document"` for documents.
    - `adapters`: the base and a LoRA folder a task: `load_adapter`, `set_adapter("query2item")`, and then
      `encode(texts, prompt_name="query2item")` for queries, `prompt_name="document"` for documents.

    Args:
        adapter_dir: the adapter's folder, or the id of its repository on the Hub.
        out: the folder to write.
        task: one of the adapter's embedding tasks, or several; all of them if not given.
        base_model: folder or repository of the base, if not where the adapter's configuration says.
        dtype: of the written weights, such as "bfloat16"; the base's own if not given. Sums are made in float32.
        layout: how the tasks share a model.
        data: dataset folder or repository with held-out texts of the tasks; if not given, the dataset of the run that
            the adapter lies in, where it is at hand, or else texts that come with this package.

    Raises:
        UnknownTaskError: the adapter does not have a task.
        UsageError: a task is not an embedding task, no base is known, or there is no such dtype or layout.
        RecfoundError: adapter and base do not fit, a file is missing or damaged, `out` is in the way, or what was
            written does not give what the adapter gives; nothing is left at `out` then.
    """
    if layout not in _LAYOUTS:
        raise UsageError(f"there is no layout {layout!r} for an embedder: use {', '.join(_LAYOUTS)}")
    with open_adapter(adapter_dir) as adapter:
        tasks = tasks_of(adapter, task, "embedding")
        base = base_of(adapter, base_model, dtype)
        write: Any = _LAYOUTS[layout]
        places: dict[Path, Sequence[str]] = {Path(out): tasks}
        if layout != "merged":
            together(tasks)
        elif not isinstance(task, str):
            places = {Path(out) / name: [name] for name in tasks}
        return write_checked(
            adapter_dir, adapter, base, data, places, lambda *folder: write(adapter_dir, adapter, base, *folder)
        )


def _merged(
    adapter_dir: str | Path,  # noqa: ARG001
    adapter: AdapterReader,
    base: BaseModel,
    folder: Path,
    place: Path,
    tasks: Sequence[str],
) -> Written:
    """One task: its decoder in the folder itself."""
    (task,) = tasks
    with tempfile.TemporaryDirectory(dir=folder.parent) as trunk:
        model, tokenizer = merged_base(adapter, task, base)
        transformer = _transformer(adapter, model, tokenizer, trunk)
        _save([transformer], model.config.hidden_size, embedding_prompts(adapter, task), None, folder)
    return Written(folder, place, "embedding", "merged", {task: folder}, model.dtype)


def _router(
    adapter_dir: str | Path,  # noqa: ARG001
    adapter: AdapterReader,
    base: BaseModel,
    folder: Path,
    place: Path,
    tasks: Sequence[str],
) -> Written:
    """One decoder a task, behind sentence-transformers' Router; a call without a task is an error.

    `encode` finds a prompt by its name alone, whatever the task. So the names stand for marks, and the tokenizer of a
    route replaces a mark by the prompt of its own task, before anything else: with the task, `encode` has the prompt.
    """
    with ExitStack() as stack:
        routes = {}
        for task in tasks:
            trunk = stack.enter_context(tempfile.TemporaryDirectory(dir=folder.parent))
            model, tokenizer = merged_base(adapter, task, base)
            marked = _with_marks(tokenizer, embedding_prompts(adapter, task))
            routes[task] = [_transformer(adapter, model, marked, trunk)]
        router = Router(routes, default_route=None, allow_empty_key=False)
        _save([router], model.config.hidden_size, ROUTED_PROMPTS, "query", folder)
    weights = {task: folder / f"{task}_0_Transformer" for task in tasks}
    return Written(folder, place, "embedding", "router", weights, model.dtype)


def _with_marks(tokenizer: PreTrainedTokenizerBase, prompts: dict[str, str]) -> PreTrainedTokenizerFast:
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise RecfoundError(
            f"the layout router needs a tokenizer that tokenizer.json describes, not a {type(tokenizer).__name__}: "
            "use merged or adapters"
        )
    inner = tokenizer.backend_tokenizer
    replaced = [normalizers.Replace(ROUTED_PROMPTS[side], prompts[side]) for side in SIDES]
    inner.normalizer = normalizers.Sequence([*replaced, *([inner.normalizer] if inner.normalizer else [])])
    # Not the base's own class, which may build its normalizer anew when it is loaded.
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        padding_side="right",
        model_max_length=tokenizer.model_max_length,
        **tokenizer.special_tokens_map,
    )


def _adapters(
    adapter_dir: str | Path,
    adapter: AdapterReader,
    base: BaseModel,
    folder: Path,
    place: Path,
    tasks: Sequence[str],
) -> Written:
    """The base's decoder, and a LoRA folder a task that fits it."""
    prompts, default = adapters_prompts({task: embedding_prompts(adapter, task) for task in tasks})
    with tempfile.TemporaryDirectory(dir=folder.parent) as trunk:
        model, tokenizer = base.load()
        model = model.to(base.dtype or model.dtype)
        transformer = _transformer(adapter, model, tokenizer, trunk)
        _save([transformer], model.config.hidden_size, prompts, default, folder)
    for task in tasks:
        collapse(adapter_dir, task, folder / task)
        _fit_to_decoder(folder / task, decoder_prefix(model), base)
    names = {task: {side: adapter_prompt_name(prompts, task, side) for side in SIDES} for task in tasks}
    return Written(folder, place, "embedding", "adapters", dict.fromkeys(tasks, folder), model.dtype, names)


def adapters_prompts(prompts: dict[str, dict[str, str]]) -> tuple[dict[str, Any], str]:
    """The prompts of an embedder with adapters, and the name of the default one.

    A query's prompt bears the name of its task, and nothing tells stock code which adapter is active: `encode_query`,
    or `encode` without a name, would use no prompt and give wrong vectors in silence. Their prompt is therefore a list
    instead of a string: putting it before a text is a TypeError.
    """
    found: dict[str, Any] = {task: sides["query"] for task, sides in prompts.items()}
    documents = {sides["document"] for sides in prompts.values()}
    no_default = ["no default: pass prompt_name, the task for a query"]
    if len(documents) == 1:
        found["document"] = documents.pop()
    else:
        found |= {f"{task}-document": sides["document"] for task, sides in prompts.items()}
        found["document"] = no_default
    return found | {"query": no_default}, "query"


_LAYOUTS = {"merged": _merged, "router": _router, "adapters": _adapters}


def _fit_to_decoder(folder: Path, prefix: str, base: BaseModel) -> None:
    """Give the LoRA of a model with a head the names that it has in the decoder alone."""
    begin = "base_model.model."
    tensors = load_file(folder / TENSOR_FILE)
    fitted = {
        begin + key.removeprefix(begin + prefix): tensor
        for key, tensor in tensors.items()
        if key.startswith(begin + prefix)
    }
    save_tensors(fitted, folder / TENSOR_FILE)
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": base.name, "task_type": "FEATURE_EXTRACTION"}
    if isinstance(config["target_modules"], str):  # an expression over paths that begin with the model with its head
        config["target_modules"] = sorted({key.removeprefix(begin).split(".lora_")[0] for key in fitted})
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _transformer(
    adapter: AdapterReader, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, trunk: str
) -> Transformer:
    """The decoder of a model with bidirectional attention, and its tokenizer, saved and loaded again from `trunk`."""
    decoder = model.get_decoder()
    decoder.config.is_causal = False
    decoder.save_pretrained(trunk)
    tokenizer.save_pretrained(trunk)
    return Transformer(
        trunk,
        model_kwargs={"dtype": decoder.dtype},
        max_seq_length=max_length(adapter.config, model, tokenizer),
        modality_config=_TEXT_INPUT,
        module_output_name="token_embeddings",
    )


def _save(first: list[Any], dimension: int, prompts: dict[str, Any], default: str | None, folder: Path) -> None:
    embedder = SentenceTransformer(
        modules=[*first, Pooling(dimension, "mean", include_prompt=False), Normalize()],
        prompts=prompts,
        default_prompt_name=default,
        similarity_fn_name="cosine",
        device="cpu",
    )
    embedder.save_pretrained(str(folder), create_model_card=False)
