"""Models on one footing: whatever is evaluated encodes texts, and a language model answers, too (see `generation`).

A native adapter, an exported embedder or generator, any sentence-transformers model and any causal language model
(zero-shot) are told apart by the files that they have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from huggingface_hub import file_exists
from huggingface_hub.errors import HFValidationError, HTTPError
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from recfound_data.errors import RecfoundError
from recfound_model.adapter_config import CONFIG_FILE, PEFT_TYPE, TmoleConfig
from recfound_model.bases import load_base
from recfound_model.batches import Layout, TokenSequence, last_hidden, padded, pooled_means
from recfound_model.folders import fetch
from recfound_model.routing import task_context
from recfound_model.templates import task_prompts, text_ids
from recfound_model.tmole import TmoleModel, load_tmole

REPORT_FILE = "export_report.json"
"""In a folder that `export_embedder` or `export_generator` wrote; it names layout and tasks."""
_BATCH_TOKENS = 8192


class StockEmbedder:
    """A sentence-transformers model, with the prompts that it carries; in an export of several tasks, those of each."""

    def __init__(
        self,
        source: str,
        revision: str | None = None,
        max_length: int | None = None,
        layout: str = "merged",
        tasks: Sequence[str] = (),
    ) -> None:
        self.layout = layout
        try:
            self.model = SentenceTransformer(source, revision=revision)
            if layout == "adapters":
                load_adapters(self.model, source, revision, tasks)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise RecfoundError(f"{source}: cannot be loaded: {' '.join(str(error).split())[:300]}") from None
        if max_length is not None:
            self.model.max_seq_length = max_length

    def encode(self, task: str, side: str, texts: Sequence[str]) -> Tensor:
        """Return [texts, size], normalised."""
        encode = self.model.encode_query if side == "query" else self.model.encode_document
        if self.layout == "router":
            encode = partial(self.model.encode, task=task, prompt_name=side)
        elif self.layout == "adapters":
            self.model.set_adapter(task)
            encode = partial(self.model.encode, prompt_name=adapter_prompt_name(self.model.prompts, task, side))
        vectors = encode(list(texts), convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False)
        if not vectors.any():
            raise RecfoundError(
                f"every {side} is a zero vector: {self.model.max_seq_length} tokens leave nothing after the prompt"
            )
        return vectors.float().cpu()


def adapter_prompt_name(prompts: Mapping[str, str], task: str, side: str) -> str:
    """Return the name of a task's prompt in an embedder with adapters.

    A query's is the task; a document's is `document`, or `<task>-document` where the tasks' documents differ.
    """
    own = f"{task}-document"
    return task if side == "query" else own if own in prompts else "document"


def load_adapters(
    model: PreTrainedModel | SentenceTransformer, source: str, revision: str | None, tasks: Sequence[str]
) -> None:
    """Load the LoRA folders of an export, one a task, into its base."""
    for task in tasks:
        model.load_adapter(source, adapter_name=task, adapter_kwargs={"subfolder": task, "revision": revision})


class LanguageModel:
    """A causal language model, plain or with a native adapter: it encodes texts, and answers (see `generation`)."""

    def __init__(
        self,
        model: PreTrainedModel | TmoleModel,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int | None,
        switches: bool = False,
    ) -> None:
        """`switches`: the model holds a LoRA adapter a task, by its name."""
        self.switches = switches
        self.model, self.tokenizer = model.eval(), tokenizer
        self.native = isinstance(model, TmoleModel)
        self.max_length = max_length or 512
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device)

    def prompts(self, task: str) -> dict[str, str]:
        """Return what stands before the texts of each side: the adapter's own prompts, or the canonical ones."""
        return task_prompts(task) | (self.model.tmole_config.prompts.get(task, {}) if self.native else {})

    @torch.inference_mode()
    def encode(self, task: str, side: str, texts: Sequence[str]) -> Tensor:
        """Return [texts, size]: the normalised mean of bidirectional hidden states, the prompt left out."""
        prompts = self.prompts(task)
        order = sorted(range(len(texts)), key=lambda at: -len(texts[at]))
        found: dict[int, Tensor] = {}
        for batch in _batches(order, [len(text) for text in texts], self.max_length):
            ids = text_ids(self.tokenizer, [prompts[side]] * len(batch), [texts[at] for at in batch], self.max_length)
            layout = self._padded([TokenSequence(task, one, first) for one, first in ids])
            vectors = pooled_means(self._hidden(task, layout), layout).cpu()
            found |= dict(zip(batch, vectors, strict=True))
        return torch.stack([found[at] for at in range(len(texts))])

    def _padded(self, sequences: list[TokenSequence]) -> Layout:
        return padded(sequences, self.tokenizer.pad_token_id).to(self.device)

    def _hidden(self, task: str, layout: Layout) -> Tensor:
        if not self.native:
            return last_hidden(self.model, layout, causal=False)
        with task_context(self.model, task):
            return last_hidden(self.model, layout, causal=False)


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
    tasks, layout = None, "merged"
    if _has(source, REPORT_FILE, revision):
        tasks, layout = _exported(source, revision)
    if _has(source, "modules.json", revision):
        return StockEmbedder(source, revision, max_length, layout, tasks or ()), tasks
    if _has(source, "config.json", revision):
        model, tokenizer = load_base(source, revision)
        if layout == "adapters":
            load_adapters(model, source, revision, tasks or ())
        return LanguageModel(model, tokenizer, max_length, switches=layout == "adapters"), tasks
    raise RecfoundError(
        f"{source}: is no adapter, sentence-transformers model or causal language model: it has no {CONFIG_FILE}, "
        "modules.json or config.json; name one, a repository (org/name), or a baseline: random, popularity, "
        "cooccurrence, bm25"
    )


def _exported(source: str, revision: str | None) -> tuple[list[str], str]:
    """Return the tasks and the layout of an export."""
    file = fetch(source, REPORT_FILE, revision)
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        return list(report["tasks"]), str(report["layout"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RecfoundError(f"{file}: names no tasks and layout: it is damaged, or of an older export") from None


def _has(source: str, file: str, revision: str | None) -> bool:
    if Path(source).exists() or source.count("/") != 1:
        return (Path(source) / file).is_file()
    try:
        return file_exists(source, file, revision=revision)
    except (HTTPError, HFValidationError, OSError) as error:
        first = " ".join(str(error).split())[:300]
        raise RecfoundError(f"{source}: is no folder here, and the Hub cannot be asked for it: {first}") from None
