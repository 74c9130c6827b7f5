"""The base with one task's update added to its weights, and the base as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from recfound_data.errors import RecfoundError, UsageError
from recfound_model.adapter_config import TmoleConfig
from recfound_model.adapter_files import AdapterReader
from recfound_model.bases import load_base
from recfound_model.collapsing import layer_weights


@dataclass(frozen=True)
class BaseModel:
    """Where the base of an export comes from, and the dtype that is written."""

    source: str
    revision: str | None
    dtype: torch.dtype | None

    @property
    def name(self) -> str:
        """What reports and cards call it: the id of its repository, or of a folder its name alone."""
        return Path(self.source).resolve().name if self.is_local else self.source

    @property
    def is_local(self) -> bool:
        """Whether it is a folder on this machine."""
        return Path(self.source).exists() or self.source.count("/") != 1

    def load(self, dtype: str = "auto") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The base and its tokenizer as it was in training.

        Raises:
            RecfoundError: there is no such model, or it cannot be read.
        """
        return load_base(self.source, self.revision, dtype)


def base_of(adapter: AdapterReader, base_model: str | Path | None, dtype: str | torch.dtype | None) -> BaseModel:
    """The base that an adapter names, or the one that is given in its place.

    Raises:
        UsageError: no base is known, or there is no such dtype.
    """
    source = base_model or adapter.config.base_model_name_or_path
    if source is None:
        raise UsageError(f"{adapter.file.parent} does not say which base it belongs to: give base_model")
    return BaseModel(str(source), adapter.config.revision if base_model is None else None, _dtype(dtype))


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise UsageError(f"{dtype!r} is not a floating-point dtype: use float32, bfloat16 or float16")
    return found


@torch.no_grad()
def merged_base(adapter: AdapterReader, task: str, base: BaseModel) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base with the task's update added to its weights, and its tokenizer as it was in training.

    Raises:
        RecfoundError: adapter and base do not fit, or the base cannot be loaded.
    """
    model, tokenizer = base.load()
    head = model.get_output_embeddings()
    written_dtype = base.dtype or model.dtype
    linears = dict(model.named_modules())
    for module in adapter.modules:
        weight = getattr(linears.get(module), "weight", None)
        lora_a, lora_b = layer_weights(adapter, module, task)
        if weight is None or weight.shape != (lora_b.shape[0], lora_a.shape[1]):
            raise RecfoundError(
                f"the adapter was not made for {base.source}: it adapts {module} of "
                f"{lora_b.shape[0]} x {lora_a.shape[1]}"
            )
        if linears[module] is head and model.config.tie_word_embeddings:
            raise RecfoundError(f"{module} shares its weights with the input embeddings: merging changes both")
        # One rounding, from float32 to the dtype that is written.
        linears[module].weight = torch.nn.Parameter((weight.float() + lora_b @ lora_a).to(written_dtype))
    return model.to(written_dtype), tokenizer


def decoder_prefix(model: PreTrainedModel) -> str:
    """What the names of the decoder's parameters begin with in the model with its head, such as "model."."""
    decoder = model.get_decoder()
    return next(f"{name}." for name, module in model.named_modules() if module is decoder)


def max_length(config: TmoleConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens at which texts to embed are truncated: as in training, or where the adapter does not say, by the base."""
    if config.max_length is not None:
        return config.max_length
    positions = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    return min(positions, tokenizer.model_max_length)
