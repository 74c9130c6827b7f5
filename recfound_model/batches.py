"""Token sequences, how they are laid out for a forward pass, and what is read from the hidden states that it returns.

Three layouts of the same sequences. Padded: one row a sequence, filled up to the longest one. Bucketed: padded too, but
`passes` has put sequences of like length into the same pass. Packed: rows as long as the longest sequence, and what
the others leave free is filled with shorter ones; attention keeps the sequences of a row apart. All three give the same
numbers for a sequence, and differ in how much padding is computed.
"""

from __future__ import annotations

import inspect
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from recfound_data.errors import UsageError
from recfound_model.tmole import TmoleModel

LayoutName = Literal["padded", "packed"]

MIN_FILL = 0.9
"""The least share of real tokens in a padded pass: more passes on one hand, less padding on the other."""


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One text of an embedding sample, or a prompt with its completion.

    Attributes:
        task: the task that it belongs to.
        ids: its tokens, the special ones included.
        marked: from this token on it is pooled (a text after its instruction) or supervised (a completion after its
            prompt). Nothing predicts the first token of a sequence, so a completion starts at 1 or later.
    """

    task: str
    ids: Sequence[int]
    marked: int


@dataclass(frozen=True)
class Layout:
    """Sequences laid out for one forward pass; all tensors are [rows, tokens].

    Attributes:
        input_ids: int64, with the padding token where no sequence is.
        position_ids: int64, from 0 in each sequence, and from 0 again in the padding at a row's end.
        sequence: int64, which sequence the token belongs to, as an index into `tasks`; -1 for padding.
        marked: bool, true on the tokens that are pooled or supervised.
        tasks: the task of each sequence, in the order in which the sequences were given.
        packed: whether a row may hold several sequences.
    """

    input_ids: Tensor
    position_ids: Tensor
    sequence: Tensor
    marked: Tensor
    tasks: tuple[str, ...]
    packed: bool

    @property
    def tokens(self) -> int:
        """Real tokens."""
        return int((self.sequence >= 0).sum())

    @property
    def computed(self) -> int:
        """Tokens that a forward pass computes, padding included."""
        return self.input_ids.numel()

    @property
    def fill(self) -> float:
        """The share of real tokens, above 0 and at most 1."""
        return self.tokens / self.computed

    def to(self, device: torch.device | str) -> Layout:
        """Return the layout with its tensors on `device`."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in _TENSORS}
        return replace(self, **moved)


_TENSORS = ("input_ids", "position_ids", "sequence", "marked")


def padded(sequences: Sequence[TokenSequence], pad_id: int) -> Layout:
    """Return one row a sequence, in their order, padded on the right to the longest."""
    return _laid_out(sequences, [[at] for at in range(len(sequences))], pad_id, packed=False)


def packed(sequences: Sequence[TokenSequence], pad_id: int, row_tokens: int = 0) -> Layout:
    """Return several sequences a row, packed first-fit decreasing; the same sequences give the same rows.

    Args:
        sequences: at least one.
        pad_id: stands where no sequence is.
        row_tokens: rows hold this many tokens where that is more than the longest sequence has. Longer rows leave less
            padding, but attention that computes a masked score as it computes any other pays for their square.
    """
    lengths = [len(sequence.ids) for sequence in sequences]
    remaining, rows, capacity = _ascending(lengths), [], max(row_tokens, *lengths)
    while remaining:
        rows.append(_take_row(remaining, lengths, capacity))
    return _laid_out(sequences, rows, pad_id, packed=True)


def passes(lengths: Sequence[int], max_tokens: int, layout: LayoutName, row_tokens: int = 0) -> list[list[int]]:
    """Return sequences grouped into forward passes of bounded size, longest first, with little padding.

    Padded, a pass holds sequences of like length (buckets), and ends where one more would leave less than `MIN_FILL`
    of it real. Packed, it holds the longest sequences that are left, and shorter ones in what these leave free;
    `packed` finds the same rows again.

    Args:
        lengths: of each sequence.
        max_tokens: rows times tokens of a pass, padding included; a longer sequence stands alone.
        layout: how the passes will be laid out.
        row_tokens: what `packed` will be given.

    Returns:
        Indices into `lengths`, each once; the same lengths give the same groups.
    """
    remaining, found = _ascending(lengths), list[list[int]]()
    while remaining:
        longest = lengths[remaining[-1]]
        if layout == "packed":
            capacity = max(longest, min(row_tokens, max_tokens))
            rows = max(1, max_tokens // capacity)
            found.append([at for _ in range(rows) for at in _take_row(remaining, lengths, capacity)])
            continue
        bucket: list[int] = []
        real = 0
        while remaining and (not bucket or (len(bucket) + 1) * longest <= max_tokens):
            real += lengths[remaining[-1]]
            if real < MIN_FILL * (len(bucket) + 1) * longest:
                break
            bucket.append(remaining.pop())
        found.append(bucket)
    return found


def _ascending(lengths: Sequence[int]) -> list[int]:
    """Indices by length; among equals the first comes last, since sequences are taken from the end."""
    return sorted(range(len(lengths)), key=lambda at: (lengths[at], -at))


def _take_row(remaining: list[int], lengths: Sequence[int], capacity: int) -> list[int]:
    """Take the longest sequence that still fits, until none does: first-fit decreasing, one row at a time.

    Args:
        remaining: indices by ascending length; what is taken is removed.
        lengths: of all sequences.
        capacity: tokens that the row holds.
    """
    row: list[int] = []
    while (at := bisect_right(remaining, capacity, key=lengths.__getitem__)) > 0:
        row.append(remaining.pop(at - 1))
        capacity -= lengths[row[-1]]
    return row


def _laid_out(sequences: Sequence[TokenSequence], rows: list[list[int]], pad_id: int, packed: bool) -> Layout:
    """Return the layout with the given sequences, by index, in each row."""
    lengths = [sum(len(sequences[at].ids) for at in row) for row in rows]
    width = max(lengths)
    ids, padding = array("q"), array("q", [pad_id])
    # The sequences in the order in which they are written, each row's padding as one more: (index, length, marked).
    # The padding counts from 0 like any sequence, which is what keeps it apart from the one before.
    parts: list[tuple[int, int, int]] = []
    for row, length in zip(rows, lengths, strict=True):
        for at in row:
            ids += array("q", sequences[at].ids)
            parts.append((at, len(sequences[at].ids), sequences[at].marked))
        ids += padding * (width - length)
        parts.append((-1, width - length, width))
    index, sizes, marked = torch.tensor(parts).T.contiguous()

    def spread(values: Tensor) -> Tensor:
        return torch.repeat_interleave(values, sizes, output_size=len(ids))

    position = torch.arange(len(ids)) - spread(sizes.cumsum(0) - sizes)
    flat = torch.frombuffer(ids, dtype=torch.int64), position, spread(index), position >= spread(marked)
    input_ids, position_ids, sequence, mark = (tensor.view(len(rows), width) for tensor in flat)
    return Layout(input_ids, position_ids, sequence, mark, tuple(s.task for s in sequences), packed)


def last_hidden(model: PreTrainedModel | TmoleModel, layout: Layout, causal: bool) -> Tensor:
    """Return [rows, tokens, size], the decoder's last hidden states; those of padding mean nothing.

    Args:
        model: a model for causal language modelling, or such a model with TMoLE and a task set.
        layout: on the model's device.
        causal: true for generation; false lets every token of a sequence see all of that sequence.

    Raises:
        UsageError: the layout is packed, and the model's attention cannot keep the sequences of a row apart.
    """
    decoder = model.get_decoder()
    if layout.packed:
        attention = _packed_attention(decoder, layout, causal)
    else:
        attention = {"attention_mask": (layout.sequence >= 0).long()}
    if not causal:
        attention["is_causal"] = False
    return decoder(input_ids=layout.input_ids, use_cache=False, **attention).last_hidden_state


def _packed_attention(decoder: Any, layout: Layout, causal: bool) -> dict[str, Any]:
    """Return the arguments with which a decoder keeps the sequences of a row apart.

    A mask is given rather than left to transformers, which would find the sequences from the positions: it does so for
    causal attention alone, and not in every model (OPT is one).
    """
    name, implementation = type(decoder).__name__, decoder.config._attn_implementation
    kinds = set(getattr(decoder.config, "layer_types", None) or ["full_attention"])
    if "position_ids" not in inspect.signature(decoder.forward).parameters:
        raise UsageError(f"{name} takes no position_ids, so its sequences cannot be packed: use the padded layout")
    if other := sorted(kinds - {"full_attention", "sliding_attention"}):
        raise UsageError(f"{name} has layers of {', '.join(other)}, which mix packed sequences: use the padded layout")
    positions = {"position_ids": layout.position_ids}
    if "flash" in implementation:
        return positions | _boundaries(layout)
    if implementation not in ("sdpa", "eager"):
        raise UsageError(
            f"sequences cannot be packed under the attention implementation {implementation!r}: load the base with "
            "sdpa, eager or a flash_attention implementation, or use the padded layout"
        )
    window = getattr(decoder.config, "sliding_window", None)
    if getattr(decoder.config, "layer_types", None) and "sliding_attention" not in kinds:
        window = None
    if window is not None and int(layout.position_ids[layout.sequence >= 0].max()) >= window:
        if causal:
            # Models with windows all find packed sequences by themselves, and mask each layer as its kind needs.
            return {**positions, "attention_mask": None}
        raise UsageError(
            f"{name} has sliding windows of {window} tokens, and a packed sequence under bidirectional attention is "
            "longer: allow fewer tokens a sequence, use a flash_attention implementation or the padded layout"
        )
    mask = same_sequence(layout.sequence, causal)
    if implementation == "eager":
        mask = torch.zeros_like(mask, dtype=decoder.dtype).masked_fill(~mask, torch.finfo(decoder.dtype).min)
    return {**positions, "attention_mask": mask}


def same_sequence(sequence: Tensor, causal: bool) -> Tensor:
    """Return which token a token attends to: those of its own sequence, padding to padding.

    Args:
        sequence: [rows, tokens], the sequence that each token belongs to.
        causal: whether a token is kept from seeing those after it.

    Returns:
        [rows, 1, tokens, tokens] bool; each row has a true one, so that no softmax is over nothing.
    """
    mask = sequence.unsqueeze(2) == sequence.unsqueeze(1)
    return (mask.tril() if causal else mask).unsqueeze(1)


def _boundaries(layout: Layout) -> dict[str, Any]:
    """Return where sequences start and end in the flattened batch, as kernels for variable lengths take it.

    Positions alone would not do: transformers looks for packed sequences in them only if the batch has a single row.
    """
    positions = layout.position_ids.flatten()
    starts = (positions == 0).nonzero().flatten()
    ends = functional.pad(starts, (0, 1), value=len(positions)).to(torch.int32)
    longest = int(positions.max()) + 1
    return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}


def pooled_means(hidden: Tensor, layout: Layout) -> Tensor:
    """Return the normalised mean of the hidden states over each sequence's marked tokens.

    Args:
        hidden: [rows, tokens, size], last hidden states.
        layout: what they are of.

    Returns:
        [sequences, size] float32, in the order of `layout.tasks`, each of length 1, or 0 where nothing is marked.
    """
    sums = hidden.new_zeros((len(layout.tasks), hidden.shape[-1]), dtype=torch.float32)
    sums = sums.index_add(0, layout.sequence[layout.marked], hidden[layout.marked].to(torch.float32))
    # A mean and a sum differ by a factor, which does not outlive the normalisation.
    return functional.normalize(sums, dim=-1)


def predicting(hidden: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the language-model head needs: only the positions from which a marked token is predicted.

    Args:
        hidden: [rows, tokens, size], last hidden states under causal attention.
        layout: what they are of.

    Returns:
        The hidden states [supervised, size], the tokens to predict [supervised], and the sequence [supervised] that
        each belongs to, as an index into `layout.tasks`.
    """
    # Position i predicts token i + 1, and the last token of a sequence does not predict the next one's first.
    at = (layout.marked & (layout.position_ids > 0)).flatten().nonzero().flatten()
    return hidden.flatten(0, 1)[at - 1], layout.input_ids.flatten()[at], layout.sequence.flatten()[at]
