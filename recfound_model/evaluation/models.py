"""Models on one footing: whatever is evaluated either encodes texts, or scores the letters of options, or both.

A native adapter, an exported embedder or generator, any sentence-transformers model and any causal language model
(zero-shot) are told apart by the files that they have.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from huggingface_hub import file_exists
from huggingface_hub.errors import HFValidationError, HTTPError
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from recfound_data.errors import RecfoundError
from recfound_data.progress import Progress
from recfound_model.adapter_config import CONFIG_FILE, PEFT_TYPE, TmoleConfig
from recfound_model.bases import load_base
from recfound_model.batches import Layout, TokenSequence, last_hidden, padded, pooled_means
from recfound_model.exporting import REPORT_FILE
from recfound_model.folders import fetch
from recfound_model.routing import task_context
from recfound_model.templates import letter_ids, render_prompt, task_prompts, text_ids
from recfound_model.tmole import TmoleModel, load_tmole

_BATCH_TOKENS = 8192


class Encoder(Protocol):
    """Turns texts into vectors that are compared by cosine."""

    def encode(self, task: str, side: str, texts: Sequence[str]) -> Tensor:
        """Return [texts, size], normalised; `side` is `query` or `document`."""
        ...


class Chooser(Protocol):
    """Scores lettered options."""

    def letter_scores(
        self, task: str, prompts: Sequence[Sequence[dict[str, str]]], letters: str
    ) -> tuple[Tensor, Tensor]:
        """Return log-probabilities [prompts, letters] of each letter coming next, and [prompts] bool.

        The latter says whether one of the letters is the likeliest token of all.
        """
        ...


class StockEmbedder:
    """A sentence-transformers model, with the prompts that it carries."""

    def __init__(self, source: str, revision: str | None = None, max_length: int | None = None) -> None:
        try:
            self.model = SentenceTransformer(source, revision=revision)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise RecfoundError(f"{source}: cannot be loaded: {' '.join(str(error).split())[:300]}") from None
        if max_length is not None:
            self.model.max_seq_length = max_length

    def encode(self, task: str, side: str, texts: Sequence[str]) -> Tensor:  # noqa: ARG002  (one model, one task)
        """Return [texts, size], normalised."""
        encode = self.model.encode_query if side == "query" else self.model.encode_document
        vectors = encode(list(texts), convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False)
        if not vectors.any():
            raise RecfoundError(
                f"every {side} is a zero vector: {self.model.max_seq_length} tokens leave nothing after the prompt"
            )
        return vectors.float().cpu()


class LanguageModel:
    """A causal language model, plain or with a native adapter: it encodes texts and scores letters."""

    def __init__(
        self, model: PreTrainedModel | TmoleModel, tokenizer: PreTrainedTokenizerBase, max_length: int | None
    ) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.native = isinstance(model, TmoleModel)
        self.max_length = max_length or 512
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device)

    @torch.inference_mode()
    def encode(self, task: str, side: str, texts: Sequence[str]) -> Tensor:
        """Return [texts, size]: the normalised mean of bidirectional hidden states, the prompt left out."""
        prompts = task_prompts(task)
        if self.native:
            prompts = self.model.tmole_config.prompts.get(task, prompts)
        order = sorted(range(len(texts)), key=lambda at: -len(texts[at]))
        found: dict[int, Tensor] = {}
        with Progress(f"{task}, {side} texts", len(texts)) as progress:
            for batch in _batches(order, [len(text) for text in texts], self.max_length):
                ids = text_ids(
                    self.tokenizer, [prompts[side]] * len(batch), [texts[at] for at in batch], self.max_length
                )
                layout = self._padded([TokenSequence(task, one, first) for one, first in ids])
                vectors = pooled_means(self._hidden(task, layout, causal=False), layout).cpu()
                found |= dict(zip(batch, vectors, strict=True))
                progress.advance(len(batch))
        return torch.stack([found[at] for at in range(len(texts))])

    @torch.inference_mode()
    def letter_scores(
        self, task: str, prompts: Sequence[Sequence[dict[str, str]]], letters: str
    ) -> tuple[Tensor, Tensor]:
        """Return [prompts, letters] log-probabilities and [prompts] whether a letter is the likeliest token."""
        begun, tokens = letter_ids(self.tokenizer, prompts[0], letters)
        wanted = torch.tensor(tokens, device=self.device)
        texts = [render_prompt(self.tokenizer, prompt) for prompt in prompts]
        ids = [self.tokenizer(text, add_special_tokens=False)["input_ids"] + begun for text in texts]
        order = sorted(range(len(ids)), key=lambda at: -len(ids[at]))
        scores, valid = torch.empty(len(ids), len(letters)), torch.empty(len(ids), dtype=torch.bool)
        with Progress(task, len(ids)) as progress:
            for batch in _batches(order, [len(row) * 4 for row in ids], 10**6):
                # What follows the last token is asked for: it alone is marked.
                layout = self._padded([TokenSequence(task, ids[at], len(ids[at]) - 1) for at in batch])
                last = self._hidden(task, layout, causal=True)[layout.marked]
                chances = torch.log_softmax(self.model.get_output_embeddings()(last).float(), dim=-1)
                scores[batch] = chances[:, wanted].cpu()
                valid[batch] = torch.isin(chances.argmax(-1), wanted).cpu()
                progress.advance(len(batch))
        return scores, valid

    def _padded(self, sequences: list[TokenSequence]) -> Layout:
        return padded(sequences, self.tokenizer.pad_token_id).to(self.device)

    def _hidden(self, task: str, layout: Layout, *, causal: bool) -> Tensor:
        if not self.native:
            return last_hidden(self.model, layout, causal)
        with task_context(self.model, task):
            return last_hidden(self.model, layout, causal)


def _batches(order: list[int], characters: list[int], max_tokens: int) -> list[list[int]]:
    """Return runs of `order`, longest texts first, of about `_BATCH_TOKENS` tokens each (four characters a token)."""
    batches: list[list[int]] = []
    width = 1
    for at in order:
        if not batches or len(batches[-1]) * width >= _BATCH_TOKENS:
            batches.append([])
            width = min(max(characters[at] // 4 + 16, 1), max_tokens)
        batches[-1].append(at)
    return batches


Model = StockEmbedder | LanguageModel


def open_model(
    source: str, revision: str | None = None, max_length: int | None = None
) -> tuple[Model, list[str] | None]:
    """Return a model by folder or repository, and the tasks that it was made for, or None when it does not say.

    Texts are truncated at `max_length` tokens; where none is given, at the length that the model carries, or 512.

    Raises:
        RecfoundError: it is nothing that can be evaluated.
    """
    if _has(source, CONFIG_FILE, revision):
        config = TmoleConfig.from_pretrained(source, revision)
        if config.peft_type != PEFT_TYPE or config.base_model_name_or_path is None:
            raise RecfoundError(f"{source}: the adapter names no base model")
        base, tokenizer = load_base(config.base_model_name_or_path, config.revision)
        adapted = load_tmole(base, source, revision)
        return LanguageModel(adapted, tokenizer, max_length or config.max_length), list(config.kinds)
    tasks = None
    if _has(source, REPORT_FILE, revision):
        tasks = [json.loads(fetch(source, REPORT_FILE, revision).read_text(encoding="utf-8"))["task"]]
    if _has(source, "modules.json", revision):
        return StockEmbedder(source, revision, max_length), tasks
    if _has(source, "config.json", revision):
        model, tokenizer = load_base(source, revision)
        return LanguageModel(model, tokenizer, max_length), tasks
    raise RecfoundError(
        f"{source}: is no adapter, sentence-transformers model or causal language model: it has no {CONFIG_FILE}, "
        "modules.json or config.json; name one, a repository (org/name), or a baseline: random, popularity"
    )


def _has(source: str, file: str, revision: str | None) -> bool:
    if Path(source).exists() or source.count("/") != 1:
        return (Path(source) / file).is_file()
    try:
        return file_exists(source, file, revision=revision)
    except (HTTPError, HFValidationError, OSError) as error:
        first = " ".join(str(error).split())[:300]
        raise RecfoundError(f"{source}: is no folder here, and the Hub cannot be asked for it: {first}") from None
