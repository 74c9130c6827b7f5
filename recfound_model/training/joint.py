"""The joint objective of one step, L = L_emb + lambda * L_gen, over all processes.

Each process holds the whole of the step's samples by name and a share of them as tokens. Gradients that it adds are its
part of the gradient of the global loss: summed over the processes they are what one process would have computed.

All processes run as many passes of each kind, in the same order and cut into chunks at the same places: layers that are
sharded (see `sharding`) wait for each other in every pass. Where a process has fewer texts than another one, tiny
fillers stand in, which count nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object, reduce
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedTokenizerBase

from recfound_data.errors import RecfoundError
from recfound_model.batches import (
    Layout,
    LayoutName,
    TokenSequence,
    last_hidden,
    packed,
    padded,
    passes,
    pooled_means,
    predicting,
)
from recfound_model.grad_cache import backward_in_chunks
from recfound_model.objective import info_nce, token_losses
from recfound_model.routing import task_context
from recfound_model.tmole import TmoleModel
from recfound_model.training.collating import Collator, Drawn, Pairs, shared_out
from recfound_model.training.recipe import TrainRecipe
from recfound_model.training.spans import ITEM_SPANS, ROUTED_AS


@dataclass(frozen=True)
class StepLosses:
    """What a step's samples cost.

    Attributes:
        losses: the loss of each task: the mean over its pairs, or over its supervised tokens.
        tokens: real tokens in all forward passes, the second run of GradCache not counted.
        computed: the same with padding.
    """

    losses: dict[str, float]
    tokens: int
    computed: int


@dataclass(frozen=True)
class AlignedPasses:
    """The forward passes of one process over its samples of one kind; as many as the other processes have.

    Attributes:
        layouts: real ones, then fillers.
        real: how many are real.
        sizes: computed tokens of the largest pass at each place, over all processes.
    """

    layouts: list[Layout]
    real: int
    sizes: list[int]

    def chunks(self, max_tokens: int) -> list[list[Layout]]:
        """Return the passes in runs of at most `max_tokens` on any process: what may be held in memory together.

        A longer pass stands alone. The runs begin at the same places on all processes.
        """
        chunks: list[list[Layout]] = []
        held = 0
        for layout, size in zip(self.layouts, self.sizes, strict=True):
            if not chunks or held + size > max_tokens:
                chunks.append([])
                held = 0
            chunks[-1].append(layout)
            held += size
        return chunks


@dataclass(frozen=True)
class JointObjective:
    """The objective of a model, a collator and the processes of a run.

    Attributes:
        temperature: of the contrastive loss.
        generative_weight: lambda.
        tokens_per_forward: most positions, padding included, that one forward pass computes.
        packing: whether several sequences share a row.
    """

    model: TmoleModel
    collator: Collator
    accelerator: Accelerator
    temperature: float
    generative_weight: float
    tokens_per_forward: int
    packing: bool

    def backward(self, embedding: Drawn, generative: Drawn) -> StepLosses:
        """Add this process's part of the gradient to the parameters, and return the losses of all processes.

        Raises:
            RecfoundError: a loss is not finite; the message names the task and its first samples.
        """
        return self._over(embedding, generative, gradient=True)

    @torch.no_grad()
    def losses(self, embedding: Drawn, generative: Drawn) -> StepLosses:
        """Return the losses of samples, without gradient or dropout.

        Raises:
            RecfoundError: a loss is not finite; the message names the task and its first samples.
        """
        was_training = self.model.training
        self.model.eval()
        try:
            return self._over(embedding, generative, gradient=False)
        finally:
            self.model.train(was_training)

    def planned(self, embedding: Drawn, generative: Drawn) -> tuple[int, int, int]:
        """Return the tokens, padding included, of a step's passes: all, those run twice, those of the largest chunk."""
        kept = repeated = largest = 0
        if embedding:
            _, sequences = self._own_texts(self.collator.pairs(embedding))
            aligned = self._aligned(sequences, self._passes(sequences), next(iter(embedding)))
            chunks = [sum(layout.computed for layout in c) for c in aligned.chunks(self.tokens_per_forward)]
            kept, repeated, largest = sum(chunks), sum(chunks[:-1]), max(chunks)
        if generative:
            sequences = self._own_completions(generative)
            aligned = self._aligned(sequences, self._passes(sequences), next(iter(generative)))
            sizes = [layout.computed for layout in aligned.layouts]
            kept, largest = kept + sum(sizes), max(largest, *sizes)
        return kept, repeated, largest

    def _over(self, embedding: Drawn, generative: Drawn, gradient: bool) -> StepLosses:
        parts = []
        for drawn, part in ((embedding, self._contrastive), (generative, self._completions)):
            filled = {task: rows for task, rows in drawn.items() if rows}
            if filled:
                parts.append(part(filled, gradient))
                _require_finite(parts[-1].losses, filled)
        return StepLosses(
            losses={task: loss for part in parts for task, loss in part.losses.items()},
            tokens=sum(part.tokens for part in parts),
            computed=sum(part.computed for part in parts),
        )

    def _contrastive(self, drawn: Drawn, gradient: bool) -> StepLosses:
        pairs = self.collator.pairs(drawn)
        own, sequences = self._own_texts(pairs)
        groups = self._passes(sequences)
        aligned = self._aligned(sequences, groups, next(iter(drawn)))
        places = torch.tensor([own[at] for group in groups for at in group], dtype=torch.int64)
        places = places.to(self.accelerator.device)
        each: list[Tensor] = []

        def loss(vectors: Tensor) -> Tensor:
            # The vectors of fillers come last, and are left out.
            each.append(self._info_nce(pairs, self._everyones(vectors[: len(own)], places, len(pairs.texts))))
            return each[0].mean()

        if gradient:
            backward_in_chunks(self._encode, aligned.chunks(self.tokens_per_forward), loss)
        else:
            loss(self._encode(aligned.layouts))
        return self._report(_means(pairs.tasks, self._main_ones(each[0].detach())), aligned)

    def _encode(self, layouts: Sequence[Layout]) -> Tensor:
        """Return [sequences, size]: pooled, normalised, under bidirectional attention."""
        parts = []
        for layout in layouts:
            with self._routed(layout):
                parts.append(pooled_means(last_hidden(self.model, layout, causal=False), layout))
        return torch.cat(parts)

    def _everyones(self, vectors: Tensor, places: Tensor, count: int) -> Tensor:
        """Return [count, size]: the vectors of all processes, with a graph through those of this one."""
        own = vectors.new_zeros(count, vectors.shape[1]).index_copy(0, places, vectors)
        if self.accelerator.num_processes == 1:
            return own
        # What others hold is a constant here: each process carries the gradient of the same loss through its own part.
        return own + (reduce(own.detach(), "sum") - own.detach())

    def _info_nce(self, pairs: Pairs, vectors: Tensor) -> Tensor:
        anchors, documents = pairs.split(vectors)
        device = vectors.device
        prior = None if pairs.prior is None else pairs.prior.to(device)
        positives, excluded = pairs.positives.to(device), pairs.excluded.to(device)
        return info_nce(anchors, documents, positives, excluded, self.temperature, prior)

    def _completions(self, drawn: Drawn, gradient: bool) -> StepLosses:
        sequences = self._own_completions(drawn)
        aligned = self._aligned(sequences, self._passes(sequences), next(iter(drawn)))
        number = {task: at for at, task in enumerate(drawn)}
        device = self.accelerator.device
        tokens = torch.zeros(len(number), device=device)
        for sequence in sequences:
            tokens[number[sequence.task]] += len(sequence.ids) - sequence.marked
        tokens = self._sum(tokens)
        sums = torch.zeros(len(number), device=device)
        for at, layout in enumerate(aligned.layouts):
            found, sequence_of = self._token_losses(layout)
            if at >= aligned.real:
                found = found * 0.0
            if gradient:
                self.accelerator.backward(self.generative_weight * found.sum() / tokens.sum())
            of_task = torch.tensor([number[task] for task in layout.tasks], device=device)[sequence_of]
            sums.index_add_(0, of_task, found.detach())
        means = (self._sum(sums) / tokens).tolist()
        return self._report(dict(zip(drawn, means, strict=True)), aligned)

    def _token_losses(self, layout: Layout) -> tuple[Tensor, Tensor]:
        """Return the loss of each supervised token [supervised], and the sequence that it belongs to.

        The head runs at the positions that predict such a token, and nowhere else.
        """
        with self._routed(layout):
            hidden, targets, sequence_of = predicting(last_hidden(self.model, layout, causal=True), layout)
            logits = self.model.get_output_embeddings()(hidden)
        return token_losses(logits, targets), sequence_of

    @contextmanager
    def _routed(self, layout: Layout) -> Iterator[None]:
        token_tasks = layout.sequence.clamp(min=0) if layout.packed else None
        with task_context(self.model, layout.tasks, token_tasks=token_tasks), self.accelerator.autocast():
            yield

    def _own_texts(self, pairs: Pairs) -> tuple[list[int], list[TokenSequence]]:
        """Return the places of the texts that are this process's, and their tokens."""
        own = self._share([len(text.prompt) + len(text.text) for text in pairs.texts])
        return own, self.collator.tokenize([pairs.texts[at] for at in own])

    def _own_completions(self, drawn: Drawn) -> list[TokenSequence]:
        """Return the tokens of the generative samples that are this process's."""
        samples = [(task, row) for task, rows in drawn.items() for row in rows]
        own = self._share([sum(len(turn["content"]) for turn in row["prompt"]) for _, row in samples])
        return self.collator.completions([samples[at] for at in own])

    def _share(self, lengths: Sequence[int]) -> list[int]:
        return shared_out(lengths, self.accelerator.num_processes)[self.accelerator.process_index]

    def _passes(self, sequences: Sequence[TokenSequence]) -> list[list[int]]:
        layout: LayoutName = "packed" if self.packing else "padded"
        return passes([len(one.ids) for one in sequences], self.tokens_per_forward, layout, self._row_tokens)

    def _aligned(self, sequences: Sequence[TokenSequence], groups: Sequence[Sequence[int]], task: str) -> AlignedPasses:
        """Return the groups of sequences laid out, and fillers of `task` behind them where another process has more."""
        layouts = [self._layout([sequences[at] for at in group]) for group in groups]
        sizes = [layout.computed for layout in layouts]
        if self.accelerator.num_processes > 1:
            sizes = [max(at) for at in zip_longest(*gather_object([sizes]), fillvalue=0)]
        real = len(layouts)
        if real < len(sizes):
            # Of two tokens, the second of which is pooled or supervised.
            pad = self.collator.tokenizer.pad_token_id
            filler = self._layout([TokenSequence(task, (pad, pad), marked=1)])
            layouts += [filler] * (len(sizes) - real)
        return AlignedPasses(layouts, real, sizes)

    def _layout(self, sequences: Sequence[TokenSequence]) -> Layout:
        pad = self.collator.tokenizer.pad_token_id
        layout = packed(sequences, pad, self._row_tokens) if self.packing else padded(sequences, pad)
        return layout.to(self.accelerator.device)

    @property
    def _row_tokens(self) -> int:
        """Flash attention costs no more in a long row of short texts; other kernels compute the square of a row."""
        return self.tokens_per_forward if "flash" in self.model.config._attn_implementation else 0

    def _sum(self, values: Tensor) -> Tensor:
        return reduce(values, "sum") if self.accelerator.num_processes > 1 else values

    def _main_ones(self, values: Tensor) -> Tensor:
        """Return the values of the main process: all must take the same decisions from losses, to the last bit."""
        return broadcast(values) if self.accelerator.num_processes > 1 else values

    def _report(self, losses: dict[str, float], aligned: AlignedPasses) -> StepLosses:
        layouts = aligned.layouts[: aligned.real]
        counts = [sum(layout.tokens for layout in layouts), sum(layout.computed for layout in layouts)]
        tokens, computed = self._sum(torch.tensor(counts, device=self.accelerator.device)).tolist()
        return StepLosses(losses, tokens, computed)


def sum_gradients(accelerator: Accelerator, parameters: Sequence[nn.Parameter]) -> None:
    """Replace each parameter's gradient by its sum over the processes; one that no process has stays None.

    Those of sharded parameters are sums already.
    """
    if accelerator.num_processes == 1:
        return
    parameters = [p for p in parameters if not isinstance(p, DTensor)]
    having = torch.tensor([float(p.grad is not None) for p in parameters], device=accelerator.device)
    having = reduce(having, "sum")
    live = [p for p, count in zip(parameters, having.tolist(), strict=True) if count]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in live])
    for parameter, summed in zip(live, reduce(flat, "sum").split([p.numel() for p in live]), strict=True):
        parameter.grad = summed.view_as(parameter).clone()


def _means(tasks: Sequence[str], values: Tensor) -> dict[str, float]:
    """Return the mean of the values of each task."""
    found: dict[str, list[float]] = {}
    for task, value in zip(tasks, values.tolist(), strict=True):
        found.setdefault(task, []).append(value)
    return {task: sum(values) / len(values) for task, values in found.items()}


def _require_finite(losses: dict[str, float], drawn: Drawn) -> None:
    for task, loss in losses.items():
        if not math.isfinite(loss):
            ids = ", ".join(row["id"] for row in drawn[task][:8])
            raise RecfoundError(f"the loss of {task} is {loss}; its samples begin {ids}; lower learning_rate")


def make_objective(
    recipe: TrainRecipe,
    model: TmoleModel,
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator,
    known: Mapping[str, frozenset[str]],
    frequencies: Mapping[str, Mapping[str, int]] | None = None,
) -> JointObjective:
    """Return the objective that a recipe describes.

    Args:
        recipe: gives lengths, negatives, temperature and passes.
        model: base and adapter.
        tokenizer: of the base.
        accelerator: of this process.
        known: all training positives of each anchor, by `anchor_id`.
        frequencies: see `Collator`.
    """
    collator = Collator(
        tokenizer,
        recipe.query_tokens,
        recipe.document_tokens,
        recipe.generative_tokens,
        recipe.negatives_per_pair,
        recipe.negatives,
        known,
        {ITEM_SPANS: ROUTED_AS},
        frequencies,
    )
    return JointObjective(
        model,
        collator,
        accelerator,
        recipe.temperature,
        recipe.generative_weight,
        recipe.tokens_per_forward,
        recipe.packing,
    )
