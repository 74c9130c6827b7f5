"""Base models: any causal language model by folder or name, and the nano base that a dataset's own text makes."""

from __future__ import annotations

from pathlib import Path

import torch
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from recfound_data.errors import RecfoundError
from recfound_model.templates import with_defaults


def load_base(
    name: str, revision: str | None = None, dtype: str = "auto", attention: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return a causal language model and its tokenizer, from safetensors, without running code of the repository.

    Args:
        name: a folder or a repository on the Hub.
        revision: branch, tag or commit on the Hub.
        dtype: `float32`, `bfloat16`, or `auto`: the one that it was saved in.
        attention: transformers' name of an attention implementation; its own choice where none is named.

    Raises:
        RecfoundError: there is no such model, or it cannot be read.
    """
    if Path(name).exists() and not (Path(name) / "config.json").is_file():
        raise RecfoundError(f"base {name}: the folder holds no config.json; name the folder of a saved model")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
        model = AutoModelForCausalLM.from_pretrained(
            name,
            revision=revision,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            attn_implementation=attention,
            use_safetensors=True,
        )
    except (OSError, ValueError, ImportError, HfHubHTTPError, SafetensorError) as error:
        first = " ".join(str(error).split())[:300]
        raise RecfoundError(f"base {name}: cannot be loaded: {first}") from None
    return model, with_defaults(tokenizer)
