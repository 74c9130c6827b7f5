"""What a sample's text is like, as one number: its length, how far it compresses, how a model is surprised by it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfound_data.cleaning import clean
from recfound_data.errors import RecfoundError, UsageError
from recfound_data.identity import hash64
from recfound_data.tasks.catalogue import TASKS

Values = NDArray[np.float64]
_MOST_TOKENS = 512
_BATCH = 8


def text_of(frame: pl.DataFrame, task: str) -> pl.Series:
    """Return the text of each sample: anchor and positive, or all that prompt and completion say."""
    if TASKS[task].kind == "embedding":
        return frame.select(pl.concat_str("anchor", "positive", separator="\n")).to_series()
    said = [pl.col(name).list.eval(pl.element().struct.field("content")) for name in ("prompt", "completion")]
    return frame.select(pl.concat_list(said).list.join("\n")).to_series()


def same_text(texts: pl.Series) -> pl.Series:
    """Return 64 bits for each text, equal where texts differ in case, punctuation and spaces alone."""
    words = clean(pl.col("text").str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}]+", " "))
    return texts.to_frame("text").select(hash64(words)).to_series()


def length(texts: Sequence[str]) -> Values:
    """Return how many characters each text has."""
    return np.array([len(text) for text in texts], np.float64)


def compression(texts: Sequence[str]) -> Values:
    """Return the bytes that zlib makes of each text for each byte of it: the lower, the more it repeats itself."""
    raw = [text.encode() for text in texts]
    return np.array([len(zlib.compress(text, 9)) / max(len(text), 1) for text in raw], np.float64)


def perplexity(model: str, revision: str | None) -> Callable[[Sequence[str]], Values]:
    """Return a function of texts to their perplexity under a causal model, over at most 512 tokens of each.

    Raises:
        UsageError: transformers or torch is not installed.
        RecfoundError: the model cannot be loaded.
    """
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError:
        raise UsageError(
            "--by perplexity needs transformers and torch; install them with: pip install 'recfound[model]'"
        ) from None
    tokenizer, network = _loaded(model, revision)

    def measure(texts: Sequence[str]) -> Values:
        ids = [tokenizer(text, truncation=True, max_length=_MOST_TOKENS)["input_ids"] for text in texts]
        found = np.ones(len(ids), np.float64)
        # What is about as long is read together; a text of one token surprises nobody.
        order = [row for row in sorted(range(len(ids)), key=lambda row: (len(ids[row]), row)) if len(ids[row]) > 1]
        for at in range(0, len(order), _BATCH):
            rows = order[at : at + _BATCH]
            width = max(len(ids[row]) for row in rows)
            tokens, there = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width)
            for place, row in enumerate(rows):
                tokens[place, : len(ids[row])] = torch.tensor(ids[row])
                there[place, : len(ids[row])] = 1
            with torch.inference_mode():
                scores = network(input_ids=tokens, attention_mask=there.long()).logits[:, :-1].float()
            losses = torch.nn.functional.cross_entropy(scores.transpose(1, 2), tokens[:, 1:], reduction="none")
            mean = (losses * there[:, 1:]).sum(1) / there[:, 1:].sum(1)
            found[rows] = mean.double().exp().numpy()
        return found

    return measure


@lru_cache(maxsize=1)
def _loaded(model: str, revision: str | None) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
        return tokenizer, AutoModelForCausalLM.from_pretrained(model, revision=revision).eval()
    except (OSError, ValueError) as error:
        raise RecfoundError(f"--model {model}: cannot be loaded: {' '.join(str(error).split())[:300]}") from None
