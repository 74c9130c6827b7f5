"""How far an export is from the native adapter: vectors, logits, greedy tokens, weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SUM_ERROR = 1e-5
"""By how much a written weight may differ from the native sum beside its rounding, relative to the largest weight."""


def cosines(found: Tensor, wanted: Tensor) -> Tensor:
    """The cosines [texts] of vectors [texts, size] to others; those of a vector that is not of length 1 are 0."""
    lengths = found.norm(dim=-1)
    dots = (found.double() * wanted.double()).sum(-1) / wanted.double().norm(dim=-1)
    # The share that is lost by a length other than 1 counts: the export says that it normalises.
    return torch.where((lengths - 1).abs() < 1e-2, dots / lengths.double(), torch.zeros_like(dots))


def logit_difference(found: Tensor, wanted: Tensor) -> float:
    """The largest difference of a logit, in standard deviations of the native logits.

    Args:
        found: [2, vocabulary], after the prompt and after its whole continuation.
        wanted: [continuation + 1, vocabulary], the native ones.
    """
    wanted = wanted[[0, -1]]
    return float((found - wanted).abs().max() / wanted.std())


def agreement(answer: Sequence[int], wanted: Sequence[int], logits: Tensor, bound: float) -> int | None:
    """How many tokens two greedy answers share from their beginning; None where they should share more.

    They may part where the native adapter itself is undecided: its logits of the two tokens are closer to each other
    than both can move within the bound.

    Args:
        answer: the export's tokens.
        wanted: the native ones.
        logits: [len(wanted) + 1, vocabulary], the native ones; wanted[i] was chosen from logits[i].
        bound: in standard deviations of the logits.
    """
    for place, token in enumerate(wanted):
        other = answer[place] if place < len(answer) else -1
        if other != token:
            margin = logits[place, token] - logits[place, other] if other >= 0 else float("inf")
            return place if margin <= 2 * bound * logits[[0, -1]].std() else None
    return len(wanted)


def deviation(found: Tensor, wanted: Tensor, dtype: torch.dtype) -> float:
    """The largest deviation of a weight from a sum in float32, as a share of what one rounding to the dtype allows."""
    if found.shape != wanted.shape:
        return float("inf")
    allowed = torch.finfo(dtype).eps / 2 * wanted.abs() + SUM_ERROR * wanted.abs().max()
    share = ((found.float() - wanted).abs() / allowed.clamp_min(torch.finfo(torch.float32).tiny)).max()
    return float("inf") if share.isnan() else float(share)
