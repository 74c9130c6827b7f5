"""Samples in training order, a stream a task, and how drawn samples become batches of tokens.

A stream's order is a function of the seed, the task and the epoch, so a cursor is all the state that it has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import torch
from datasets import Dataset, load_dataset
from huggingface_hub.errors import HfHubHTTPError
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.samples import CATALOGUE_CONFIGS
from recfound_data.tasks import TASKS
from recfound_model.templates import DOCUMENT_PROMPT, EmbeddingInputs, completion_ids, query_prompt, tokenize_texts

_FAULTS = (FileNotFoundError, ValueError, ConnectionError, HfHubHTTPError, datasets.exceptions.DatasetsError)


def load_split(data: str, config: str, split: str, revision: str | None = None) -> Dataset:
    """Return a split of a dataset folder or of a dataset on the Hub.

    Raises:
        RecfoundError: there is no such dataset, configuration or split, or it cannot be reached.
    """
    try:
        datasets.disable_progress_bars()
        return load_dataset(data, config, split=split, revision=revision)
    except _FAULTS as error:
        first = str(error).strip().split("\n")[0]
        raise RecfoundError(f"{data}: {config}, {split}: cannot be loaded: {first}") from None


def split_names(data: str, config: str, revision: str | None = None) -> list[str]:
    """Return the splits that a configuration of a dataset has.

    Raises:
        RecfoundError: there is no such dataset or configuration, or it cannot be reached.
    """
    try:
        return list(datasets.get_dataset_split_names(data, config, revision=revision))
    except _FAULTS as error:
        first = str(error).strip().split("\n")[0]
        raise RecfoundError(f"{data}: {config}: cannot be read: {first}") from None


def task_names(data: str, revision: str | None = None) -> list[str]:
    """Return the tasks that a dataset has, in the catalogue's order first.

    Raises:
        RecfoundError: the dataset cannot be read or has no task.
    """
    if not Path(data).exists() and data.count("/") != 1:
        raise RecfoundError(f"{data}: no such dataset folder, and no name of a repository (org/name) either")
    try:
        names = datasets.get_dataset_config_names(data, revision=revision)
    except _FAULTS as error:
        raise RecfoundError(f"{data}: is no dataset that can be read: {str(error).strip().splitlines()[0]}") from None
    tasks = [name for name in names if name not in CATALOGUE_CONFIGS and name in TASKS]
    if not tasks:
        raise RecfoundError(f"{data}: has no task; its configurations are {', '.join(names)}")
    return sorted(tasks, key=list(TASKS).index)


def seed_of(*parts: int | str) -> int:
    """Return a seed that all parts have a say in: on the CPU, torch reads nothing but the lowest 32 bits of a seed."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:4], "big")


class Stream:
    """The training samples of one task, shuffled anew each epoch, without end."""

    def __init__(self, task: str, samples: Dataset, seed: int) -> None:
        self.task, self.samples, self.seed = task, samples, seed
        self.cursor = 0
        self._epoch, self._order = -1, torch.empty(0)

    def draw(self, count: int) -> list[dict[str, Any]]:
        """Return the next `count` samples."""
        rows = []
        for _ in range(count):
            epoch, place = divmod(self.cursor, len(self.samples))
            if epoch != self._epoch:
                generator = torch.Generator().manual_seed(seed_of(self.seed, self.task, epoch))
                self._epoch, self._order = epoch, torch.randperm(len(self.samples), generator=generator)
            rows.append(self.samples[int(self._order[place])])
            self.cursor += 1
        return rows


@dataclass(frozen=True)
class ContrastiveBatch:
    """Embedding samples of one task.

    Attributes:
        anchors: the queries.
        documents: positives and negatives, each distinct item once.
        positives: [batch], where each anchor's positive stands among the documents.
        excluded: [batch, documents], true where a document is no negative of the anchor.
    """

    task: str
    anchors: EmbeddingInputs
    documents: EmbeddingInputs
    positives: Tensor
    excluded: Tensor

    @property
    def tokens(self) -> int:
        """Real tokens in the batch."""
        return int(self.anchors.attention_mask.sum() + self.documents.attention_mask.sum())


@dataclass(frozen=True)
class CompletionBatch:
    """Generative samples of one task: ids and mask [batch, tokens]; `supervised` is true on completion tokens."""

    task: str
    input_ids: Tensor
    attention_mask: Tensor
    supervised: Tensor

    @property
    def tokens(self) -> int:
        """Real tokens in the batch."""
        return int(self.attention_mask.sum())


@dataclass(frozen=True)
class Collator:
    """Turns samples into batches of tokens.

    Attributes:
        known: all training positives of an anchor, by `anchor_id`; they are no negatives of it.
    """

    tokenizer: PreTrainedTokenizerBase
    query_tokens: int
    document_tokens: int
    generative_tokens: int
    negatives_per_pair: int
    known: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def contrastive(self, task: str, rows: list[dict[str, Any]]) -> ContrastiveBatch:
        """Return embedding samples as one batch."""
        texts: dict[str, str] = {}
        for row in rows:
            texts[row["positive_id"]] = row["positive"]
        for row in rows:
            others = [row["negative"], *row["more_negatives"]][: self.negatives_per_pair]
            texts |= dict(zip(row["negative_ids"], others, strict=False))
        ids = list(texts)
        place = {item: at for at, item in enumerate(ids)}
        anchors = tokenize_texts(
            self.tokenizer,
            [query_prompt(row["instruction"]) for row in rows],
            [row["anchor"] for row in rows],
            self.query_tokens,
        )
        documents = tokenize_texts(
            self.tokenizer, [DOCUMENT_PROMPT] * len(ids), list(texts.values()), self.document_tokens
        )
        positives = torch.tensor([place[row["positive_id"]] for row in rows])
        twins: dict[str, set[str]] = {}
        for item, text in texts.items():
            twins.setdefault(text, set()).add(item)
        right = [self._right(row) | twins[texts[row["positive_id"]]] for row in rows]
        excluded = torch.tensor([[item in own for item in ids] for own in right])
        return ContrastiveBatch(task, anchors, documents, positives, excluded)

    def _right(self, row: Mapping[str, Any]) -> set[str]:
        """Return the anchor and all that is known to be right for it, but not what the sample names as wrong.

        A complement has a grade above zero, and is a negative all the same.
        """
        return {row["anchor_id"], *(self.known.get(row["anchor_id"], frozenset()) - set(row["negative_ids"]))}

    def completion(self, task: str, rows: list[dict[str, Any]]) -> CompletionBatch:
        """Return generative samples as one batch; a prompt that is too long loses its beginning.

        Raises:
            RecfoundError: a completion alone is longer than `generative_tokens`.
        """
        sequences = []
        for row in rows:
            prompt, answer = completion_ids(self.tokenizer, row["prompt"], row["completion"])
            room = self.generative_tokens - len(answer)
            if room < 1:
                raise RecfoundError(f"{task}: sample {row['id']}: its completion alone has {len(answer)} tokens")
            sequences.append((prompt[-room:], answer))
        longest = max(len(prompt) + len(answer) for prompt, answer in sequences)
        shape = (len(rows), longest)
        ids = torch.full(shape, self.tokenizer.pad_token_id)
        mask, supervised = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.bool)
        for at, (prompt, answer) in enumerate(sequences):
            length = len(prompt) + len(answer)
            ids[at, :length] = torch.tensor(prompt + answer)
            mask[at, :length] = 1
            supervised[at, len(prompt) : length] = True
        return CompletionBatch(task, ids, mask, supervised)


def known_positives(qrels: pl.DataFrame) -> dict[str, frozenset[str]]:
    """Return all items with a grade above zero of each query: never a negative of it, whatever the grade.

    Args:
        qrels: `query_id`, `item_id`, `grade`.
    """
    grouped = qrels.filter(pl.col("grade") > 0).group_by("query_id").agg("item_id")
    return {query: frozenset(items) for query, items in grouped.iter_rows()}


def chosen_tasks(wanted: list[str], available: list[str], data: str) -> list[str]:
    """Return the tasks to train on.

    Raises:
        UsageError: one is not in the dataset.
    """
    for task in wanted:
        if task not in available:
            raise UsageError(f"task {task!r} is not in {data}, which has {', '.join(available)}")
    return wanted or available
