"""Collapse: for one fixed task, TMoLE is exactly one plain LoRA, written here in PEFT's own format.

With the gates g_t fixed, `sum_e g_t[e] B_e A_e` is one product of stacked matrices: `lora_A = A[live]` and
`lora_B = (alpha / r) B[live] diag(G_t)`, of rank r * (live experts) and with LoRA's own scaling at 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import torch
from peft import LoraConfig
from torch import Tensor
from torch.nn.functional import pad

from recfound_data.errors import RecfoundError
from recfound_model.adapter_config import CONFIG_FILE, TmoleConfig
from recfound_model.adapter_files import TENSOR_FILE, AdapterReader, Factors, embedding_key, open_adapter, save_tensors
from recfound_model.folders import write_folder
from recfound_model.routing import gates, live_groups, spread

Dtype = Literal["float32", "bfloat16"]
DTYPES: dict[Dtype, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}

SERVED_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that vLLM reserves memory for (`MaxLoRARanks` in its vllm/config/lora.py, release 0.14)."""


def task_weights(factors: Factors, z: Tensor, r: int, scale: float) -> tuple[Tensor, Tensor]:
    """The plain LoRA that one adapted linear is for one task.

    Args:
        factors: the layer's factors over the task's live groups: A [E r, in], B [out, E r], R [E, d], b [E].
        z: [d] the task's embedding.
        r: rank of one expert.
        scale: alpha / r.

    Returns:
        lora_A [E r, in] and lora_B [out, E r]; `lora_B @ lora_A` is what is added to the weight.
    """
    G = spread(gates(factors.R, factors.b, z.unsqueeze(0))[0], r)
    return factors.A, factors.B * (scale * G)


def padded_weights(lora_a: Tensor, lora_b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The same update at a higher rank: lora_A [R, in] -> [rank, in] and lora_B [out, R] -> [out, rank], with zeros."""
    more = rank - lora_a.shape[0]
    return pad(lora_a, (0, 0, 0, more)), pad(lora_b, (0, more))


def served_rank(rank: int) -> int:
    """The lowest of `SERVED_RANKS` that is not below `rank`.

    Raises:
        RecfoundError: there is none.
    """
    for served in SERVED_RANKS:
        if served >= rank:
            return served
    raise RecfoundError(
        f"a task of this adapter has rank {rank}, and engines serve {SERVED_RANKS[-1]} at most: collapse it unpadded, "
        "or export merged models"
    )


def layer_weights(adapter: AdapterReader, module: str, task: str) -> tuple[Tensor, Tensor]:
    """`task_weights` of one adapted linear of an adapter on disk."""
    config = adapter.config
    groups = live_groups([config.kind_of(task)], config.experts)
    z = adapter.tensor(embedding_key(task))
    return task_weights(adapter.factors(module, groups), z, config.r, config.scale)


def collapse(
    adapter_dir: str | Path,
    task: str,
    out: str | Path,
    revision: str | None = None,
    pad_rank: bool = False,
    dtype: Dtype = "float32",
) -> None:
    """Writes one task of an adapter as a standard PEFT LoRA adapter; the base model is not loaded.

    `PeftModel.from_pretrained(base, out)` then gives the outputs that the adapter gives for the task. An embedding task
    also needs the attention and pooling it was trained with (bidirectional, mean without the prompt):
    `export_embedder`.

    Args:
        adapter_dir: the adapter's folder, or the id of its repository on the Hub.
        task: one of its tasks.
        out: the folder to write.
        revision: branch, tag or commit of the repository.
        pad_rank: fill up with zeros to the next of `SERVED_RANKS`, for engines that take no others.
        dtype: of the written tensors; float32 is exact, bfloat16 half as large.

    Raises:
        UnknownTaskError: the adapter does not have the task.
        RecfoundError: the adapter is missing or damaged, its rank cannot be padded, or `out` is in the way.
    """
    with open_adapter(adapter_dir, revision) as adapter:
        _write(adapter, task, Path(out), _rank(adapter.config, task, pad_rank), DTYPES[dtype])


def collapse_all(
    adapter_dir: str | Path,
    out: str | Path,
    tasks: Sequence[str] | None = None,
    revision: str | None = None,
    pad_rank: bool = False,
    dtype: Dtype = "float32",
) -> dict[str, Path]:
    """Writes several tasks of an adapter, each as `collapse` does, into a folder of its own name in `out`.

    Args:
        adapter_dir: the adapter's folder, or the id of its repository on the Hub.
        out: the folder that gets a folder a task.
        tasks: some of the adapter's tasks; all if not given.
        revision: branch, tag or commit of the repository.
        pad_rank: see `collapse`.
        dtype: see `collapse`.

    Returns:
        The folder of each task.

    Raises:
        UnknownTaskError: the adapter does not have one of the tasks; nothing was written.
        RecfoundError: the adapter is missing or damaged, its rank cannot be padded, or a folder is in the way.
    """
    with open_adapter(adapter_dir, revision) as adapter:
        chosen: Iterable[str] = adapter.config.kinds if tasks is None else tasks
        ranks = {task: _rank(adapter.config, task, pad_rank) for task in chosen}
        for task, rank in ranks.items():
            _write(adapter, task, Path(out, task), rank, DTYPES[dtype])
    return {task: Path(out, task) for task in ranks}


def _rank(config: TmoleConfig, task: str, pad_rank: bool) -> int:
    rank = config.r * sum(config.experts[group] for group in live_groups([config.kind_of(task)], config.experts))
    return served_rank(rank) if pad_rank else rank


def _write(adapter: AdapterReader, task: str, out: Path, rank: int, dtype: torch.dtype) -> None:
    with write_folder(out) as folder:
        tensors = {}
        for module in adapter.modules:
            lora_a, lora_b = padded_weights(*layer_weights(adapter, module, task), rank)
            tensors[f"base_model.model.{module}.lora_A.weight"] = lora_a.to(dtype)
            tensors[f"base_model.model.{module}.lora_B.weight"] = lora_b.to(dtype)
        save_tensors(tensors, folder / TENSOR_FILE)
        # Not LoraConfig.save_pretrained: it lists a set in the order of its hashes, another one in each process.
        settings = _lora_config(adapter.config, task, rank).to_dict()
        fields = {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
        (folder / CONFIG_FILE).write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _lora_config(config: TmoleConfig, task: str, rank: int) -> LoraConfig:
    return LoraConfig(
        base_model_name_or_path=config.base_model_name_or_path,
        revision=config.revision,
        # An embedding task names no task type: PEFT's FEATURE_EXTRACTION stands for a model without its head, and the
        # paths of the tensors begin at the model with its head.
        task_type="CAUSAL_LM" if config.kind_of(task) == "generative" else None,
        r=rank,
        lora_alpha=rank,
        lora_dropout=0.0,
        target_modules=config.target_modules,
        inference_mode=True,
    )
