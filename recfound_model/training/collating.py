"""From drawn samples to token sequences: what a step's contrastive and completion losses are made of.

Everything up to tokenising is done for the whole step on every process, since all draw the same samples; each process
then tokenises its own share. So the distinct documents, the masks of false negatives and with them the loss are the
same for any number of processes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from recfound_model.batches import TokenSequence
from recfound_model.templates import DOCUMENT_PROMPT, completion_ids, query_prompt, text_ids

Row = Mapping[str, Any]
Drawn = Mapping[str, Sequence[Row]]
"""Task, or other source of samples -> the samples drawn of it."""


@dataclass(frozen=True)
class Text:
    """A text to embed: the task that it is routed as, the prompt before it, itself, and how many tokens both may be."""

    task: str
    prompt: str
    text: str
    max_length: int


@dataclass(frozen=True)
class Pairs:
    """The embedding samples of a step.

    Attributes:
        texts: all anchors, then all documents, each distinct document of a task once.
        tasks: the task, or other source, of each anchor.
        positives: [anchors], where each anchor's positive stands among the documents.
        excluded: [anchors, documents], true where a document is no negative of the anchor.
        prior: [documents], log of how often each is a positive of its task; None where that plays no part.
    """

    texts: tuple[Text, ...]
    tasks: tuple[str, ...]
    positives: Tensor
    excluded: Tensor
    prior: Tensor | None

    def split(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows of `vectors` [texts, size] that are anchors, and those that are documents."""
        return vectors[: len(self.tasks)], vectors[len(self.tasks) :]


@dataclass(frozen=True)
class Collator:
    """Turns samples into texts and token sequences.

    Attributes:
        negatives: whose documents are negatives of an anchor: those of its own task, or all of the step.
        known: all training positives of an anchor, by `anchor_id`; they are no negatives of it.
        routing: the adapter's task that the texts of a source of samples are routed as, for those sources that are no
            task of the adapter. Losses and negatives go by the source.
        frequencies: by task, how many training samples each item is the positive of. Items of another source, and all
            where it is None, count as equally frequent.
    """

    tokenizer: PreTrainedTokenizerBase
    query_tokens: int
    document_tokens: int
    generative_tokens: int
    negatives_per_pair: int
    negatives: Literal["same_task", "all"] = "same_task"
    known: Mapping[str, frozenset[str]] = field(default_factory=dict)
    routing: Mapping[str, str] = field(default_factory=dict)
    frequencies: Mapping[str, Mapping[str, int]] | None = None

    def pairs(self, drawn: Drawn) -> Pairs:
        """Return the embedding samples of a step, by task, as one set of texts.

        A sample without hard negatives has no `negative_ids`: the documents of other samples are its negatives.
        """
        rows = [(task, row) for task, samples in drawn.items() for row in samples]
        documents = {(task, row["positive_id"]): row["positive"] for task, row in rows}
        for task, row in rows:
            others = [row["negative"], *row["more_negatives"]][: self.negatives_per_pair]
            documents |= {(task, item): text for item, text in zip(row["negative_ids"], others, strict=False)}
        route = {task: self.routing.get(task, task) for task in drawn}
        texts = [
            Text(route[task], query_prompt(row["instruction"]), row["anchor"], self.query_tokens) for task, row in rows
        ]
        texts += [
            Text(route[task], DOCUMENT_PROMPT, text, self.document_tokens) for (task, _), text in documents.items()
        ]
        place = {key: at for at, key in enumerate(documents)}
        return Pairs(
            texts=tuple(texts),
            tasks=tuple(task for task, _ in rows),
            positives=torch.tensor([place[task, row["positive_id"]] for task, row in rows], dtype=torch.long),
            excluded=self._excluded(rows, documents),
            prior=self._prior(documents),
        )

    def _prior(self, documents: Collection[tuple[str, str]]) -> Tensor | None:
        """Return [documents]: log of one more than how often each is a positive, for some never are."""
        if self.frequencies is None:
            return None
        counts = [self.frequencies.get(task, {}).get(item, 0) for task, item in documents]
        return torch.tensor(counts, dtype=torch.float32).log1p()

    def _excluded(self, rows: list[tuple[str, Row]], documents: Mapping[tuple[str, str], str]) -> Tensor:
        """Return [anchors, documents]: true where a document is right for the anchor, or of another task."""
        of_item: dict[str, list[int]] = {}
        of_text: dict[str, list[int]] = {}
        for at, ((_, item), text) in enumerate(documents.items()):
            of_item.setdefault(item, []).append(at)
            of_text.setdefault(text, []).append(at)
        number = {task: at for at, task in enumerate(dict.fromkeys(task for task, _ in rows))}
        excluded = torch.zeros(len(rows), len(documents), dtype=torch.bool)
        if self.negatives == "same_task":
            anchors = torch.tensor([number[task] for task, _ in rows])
            others = torch.tensor([number[task] for task, _ in documents])
            excluded = anchors.unsqueeze(1) != others.unsqueeze(0)
        for at, (task, row) in enumerate(rows):
            right = [place for item in self._right(row) & of_item.keys() for place in of_item[item]]
            excluded[at, right + of_text[documents[task, row["positive_id"]]]] = True
        return excluded

    def _right(self, row: Row) -> set[str]:
        """Return the anchor and all that is known to be right for it, but not what the sample names as wrong.

        A complement has a grade above zero, and is a negative all the same.
        """
        return {row["anchor_id"], *(self.known.get(row["anchor_id"], frozenset()) - set(row["negative_ids"]))}

    def tokenize(self, texts: Sequence[Text]) -> list[TokenSequence]:
        """Return texts as token sequences, marked where they are pooled.

        Raises:
            RecfoundError: a limit leaves no token after a prompt.
        """
        found: list[TokenSequence | None] = [None] * len(texts)
        for limit in {text.max_length for text in texts}:
            places = [at for at, text in enumerate(texts) if text.max_length == limit]
            some = [texts[at] for at in places]
            ids = text_ids(self.tokenizer, [one.prompt for one in some], [one.text for one in some], limit)
            for at, (one, first) in zip(places, ids, strict=True):
                found[at] = TokenSequence(texts[at].task, one, first)
        return [sequence for sequence in found if sequence is not None]

    def completions(self, samples: Sequence[tuple[str, Row]]) -> list[TokenSequence]:
        """Return (task, sample) pairs as token sequences, marked where the completion begins.

        Where both together are longer than `generative_tokens`, the prompt loses its beginning, and a completion of
        more than three quarters of that its end: a run must not stop at the one sample that is too long.
        """
        sequences = []
        longest = self.generative_tokens - self.generative_tokens // 4
        for task, row in samples:
            prompt, answer = completion_ids(self.tokenizer, row["prompt"], row["completion"])
            answer = answer[:longest]
            prompt = prompt[-(self.generative_tokens - len(answer)) :]
            sequences.append(TokenSequence(task, [*prompt, *answer], len(prompt)))
        return sequences


def shared_out(lengths: Sequence[int], processes: int) -> list[list[int]]:
    """Return the places of `lengths` that each process takes: about as many, and about as much in all.

    They are dealt from the longest to the shortest, back and forth.
    """
    order = sorted(range(len(lengths)), key=lambda at: -lengths[at])
    shares: list[list[int]] = [[] for _ in range(processes)]
    for turn, at in enumerate(order):
        lap, place = divmod(turn, processes)
        shares[place if lap % 2 == 0 else processes - 1 - place].append(at)
    return [sorted(share) for share in shares]
