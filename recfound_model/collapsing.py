"""Collapse: for one fixed task, TMoLE is exactly one plain LoRA, written here in PEFT's own format.

With the gates g_t fixed, `sum_e g_t[e] B_e A_e` is one product of stacked matrices: `lora_A = A[live]` and
`lora_B = (alpha / r) B[live] diag(G_t)`, of rank r * (live experts) and with LoRA's own scaling at 1.
"""

from __future__ import annotations

import json
from pathlib import Path

from peft import LoraConfig
from torch import Tensor

from recfound_model.adapter_config import CONFIG_FILE, TmoleConfig
from recfound_model.adapter_files import TENSOR_FILE, AdapterReader, Factors, embedding_key, open_adapter, save_tensors
from recfound_model.folders import write_folder
from recfound_model.routing import gates, live_groups, spread


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


def layer_weights(adapter: AdapterReader, module: str, task: str) -> tuple[Tensor, Tensor]:
    """`task_weights` of one adapted linear of an adapter on disk."""
    config = adapter.config
    groups = live_groups([config.kind_of(task)], config.experts)
    z = adapter.tensor(embedding_key(task))
    return task_weights(adapter.factors(module, groups), z, config.r, config.scale)


def collapse(adapter_dir: str | Path, task: str, out: str | Path, revision: str | None = None) -> None:
    """Writes one task of an adapter as a standard PEFT LoRA adapter; the base model is not loaded.

    `PeftModel.from_pretrained(base, out)` then gives the outputs that the adapter gives for the task. An embedding task
    also needs the attention and pooling it was trained with (bidirectional, mean without the prompt):
    `export_embedder`.

    Args:
        adapter_dir: the adapter's folder, or the id of its repository on the Hub.
        task: one of its tasks.
        out: the folder to write.
        revision: branch, tag or commit of the repository.

    Raises:
        UnknownTaskError: the adapter does not have the task.
        RecfoundError: the adapter is missing or damaged, or `out` is in the way.
    """
    with open_adapter(adapter_dir, revision) as adapter, write_folder(out) as folder:
        lora = _lora_config(adapter.config, task)
        tensors = {}
        for module in adapter.modules:
            lora_a, lora_b = layer_weights(adapter, module, task)
            tensors[f"base_model.model.{module}.lora_A.weight"] = lora_a
            tensors[f"base_model.model.{module}.lora_B.weight"] = lora_b
        save_tensors(tensors, folder / TENSOR_FILE)
        # Not LoraConfig.save_pretrained: it lists a set in the order of its hashes, another one in each process.
        fields = {key: sorted(value) if isinstance(value, set) else value for key, value in lora.to_dict().items()}
        (folder / CONFIG_FILE).write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _lora_config(config: TmoleConfig, task: str) -> LoraConfig:
    kind = config.kind_of(task)
    rank = config.r * sum(config.experts[group] for group in live_groups([kind], config.experts))
    return LoraConfig(
        base_model_name_or_path=config.base_model_name_or_path,
        revision=config.revision,
        # An embedding task names no task type: PEFT's FEATURE_EXTRACTION stands for a model without its head, and the
        # paths of the tensors begin at the model with its head.
        task_type="CAUSAL_LM" if kind == "generative" else None,
        r=rank,
        lora_alpha=rank,
        lora_dropout=0.0,
        target_modules=config.target_modules,
        inference_mode=True,
    )
