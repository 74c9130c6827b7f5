"""Export: one task of an adapter, merged into its base, as a folder that stock libraries load.

An embedding task becomes a sentence-transformers model, a generative task a transformers model. Nothing in either
folder needs this package, a patched one, or `trust_remote_code`.
"""

from __future__ import annotations

import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.tasks.catalogue import Kind
from recfound_model.adapter_files import AdapterReader, open_adapter
from recfound_model.collapsing import layer_weights
from recfound_model.folders import write_folder
from recfound_model.templates import with_defaults

REPORT_FILE = "export_report.json"
# The first transformers whose decoders read `is_causal` from their configuration; older ones ignore it in silence.
MINIMUM_TRANSFORMERS = "5.2.0"
LIBRARIES = ("peft", "safetensors", "sentence-transformers", "tokenizers", "torch", "transformers")


def export_embedder(
    adapter_dir: str | Path,
    out: str | Path,
    task: str,
    base_model: str | Path | None = None,
    dtype: str | torch.dtype | None = None,
) -> None:
    """Writes an embedding task as a model for `SentenceTransformer(out)`.

    The base's decoder without its head, with bidirectional attention; the mean over the tokens that follow the prompt;
    L2-normalised; cosine similarity. `encode_query` and `encode_document` use the prompts of training.

    Args:
        adapter_dir: the adapter's folder, or the id of its repository on the Hub.
        out: the folder to write.
        task: one of the adapter's embedding tasks.
        base_model: folder or repository of the base, if not where the adapter's configuration says.
        dtype: of the written weights, such as "bfloat16"; the base's own if not given. The sum is made in float32.

    Raises:
        UnknownTaskError: the adapter does not have the task.
        UsageError: the task is not an embedding task, no base is known, or there is no such dtype.
        RecfoundError: adapter and base do not fit, a file is missing or damaged, or `out` is in the way.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    with open_adapter(adapter_dir) as adapter, write_folder(out) as folder:
        _check_kind(adapter, task, "embedding")
        model, tokenizer = _merged_base(adapter, task, base_model, dtype)
        decoder = model.get_decoder()
        decoder.config.is_causal = False
        with tempfile.TemporaryDirectory(dir=folder.parent) as trunk:
            decoder.save_pretrained(trunk)
            tokenizer.save_pretrained(trunk)
            written_dtype, dimension = decoder.dtype, decoder.config.hidden_size
            del model, decoder
            transformer = Transformer(
                trunk,
                model_kwargs={"dtype": written_dtype},
                max_seq_length=adapter.config.max_length,
                # Stated, not inferred: from a chat template sentence-transformers would infer chat messages as input.
                modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
                module_output_name="token_embeddings",
            )
            embedder = SentenceTransformer(
                modules=[transformer, Pooling(dimension, "mean", include_prompt=False), Normalize()],
                prompts={"query": "", "document": "", **adapter.config.prompts.get(task, {})},
                similarity_fn_name="cosine",
                device="cpu",
            )
            embedder.save_pretrained(str(folder), create_model_card=False)
        _write_report(folder, adapter, task, base_model, written_dtype)


def export_generator(
    adapter_dir: str | Path,
    out: str | Path,
    task: str,
    base_model: str | Path | None = None,
    dtype: str | torch.dtype | None = None,
) -> None:
    """Writes a generative task as a model for `AutoModelForCausalLM.from_pretrained(out)`.

    With it the base's tokenizer, with its chat template or the one that stood in for it in training, and the base's
    generation configuration.

    Args:
        adapter_dir: the adapter's folder, or the id of its repository on the Hub.
        out: the folder to write.
        task: one of the adapter's generative tasks.
        base_model: folder or repository of the base, if not where the adapter's configuration says.
        dtype: of the written weights, such as "bfloat16"; the base's own if not given. The sum is made in float32.

    Raises:
        UnknownTaskError: the adapter does not have the task.
        UsageError: the task is not a generative task, no base is known, or there is no such dtype.
        RecfoundError: adapter and base do not fit, a file is missing or damaged, or `out` is in the way.
    """
    with open_adapter(adapter_dir) as adapter, write_folder(out) as folder:
        _check_kind(adapter, task, "generative")
        model, tokenizer = _merged_base(adapter, task, base_model, dtype)
        tokenizer.padding_side = "left"  # batched generation continues at the right edge
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        _write_report(folder, adapter, task, base_model, model.dtype)


def _check_kind(adapter: AdapterReader, task: str, kind: Kind) -> None:
    found = adapter.config.kind_of(task)
    if found != kind:
        target = "generator" if found == "generative" else "embedder"
        raise UsageError(f"{task} is a task of kind {found}, not {kind}: use export_{target} (--to {target})")


@torch.no_grad()
def _merged_base(
    adapter: AdapterReader, task: str, base_model: str | Path | None, dtype: str | torch.dtype | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base with the task's update added to its weights, and its tokenizer as it was in training."""
    config = adapter.config
    source = base_model or config.base_model_name_or_path
    if source is None:
        raise UsageError(f"{adapter.file.parent} does not say which base it belongs to: give base_model")
    revision = config.revision if base_model is None else None
    target_dtype = _dtype(dtype)
    try:
        model = AutoModelForCausalLM.from_pretrained(source, revision=revision, dtype="auto", use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    except (OSError, ValueError, HfHubHTTPError, SafetensorError) as error:
        raise RecfoundError(f"the base model {source} cannot be loaded: {error}") from error
    head = model.get_output_embeddings()
    written_dtype = target_dtype or model.dtype
    linears = dict(model.named_modules())
    for module in adapter.modules:
        weight = getattr(linears.get(module), "weight", None)
        lora_a, lora_b = layer_weights(adapter, module, task)
        if weight is None or weight.shape != (lora_b.shape[0], lora_a.shape[1]):
            raise RecfoundError(
                f"the adapter was not made for {source}: it adapts {module} of {lora_b.shape[0]} x {lora_a.shape[1]}"
            )
        if linears[module] is head and model.config.tie_word_embeddings:
            raise RecfoundError(f"{module} shares its weights with the input embeddings: merging changes both")
        # One rounding, from float32 to the dtype that is written.
        linears[module].weight = torch.nn.Parameter((weight.float() + lora_b @ lora_a).to(written_dtype))
    return model.to(written_dtype), with_defaults(tokenizer)


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise UsageError(f"{dtype!r} is not a floating-point dtype: use float32, bfloat16 or float16")
    return found


def _write_report(
    folder: Path, adapter: AdapterReader, task: str, base_model: str | Path | None, dtype: torch.dtype
) -> None:
    """What this folder was made of: the same inputs and versions give the same report."""
    config = adapter.config
    report: dict[str, Any] = {
        "task": task,
        "kind": config.kind_of(task),
        "layout": "merged",
        "base_model": str(base_model or config.base_model_name_or_path),
        "base_revision": config.revision if base_model is None else None,
        "adapter_sha256": adapter.sha256(),
        "dtype": str(dtype).removeprefix("torch."),
        "minimum_transformers": MINIMUM_TRANSFORMERS if config.kind_of(task) == "embedding" else None,
        "versions": {library: version(library) for library in LIBRARIES},
    }
    (folder / REPORT_FILE).write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
