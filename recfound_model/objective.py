"""The joint objective L = L_emb + lambda * L_gen as pure functions of tensors.

L_emb is InfoNCE over pooled, normalised hidden states, L_gen next-token cross entropy on completion tokens
(RecFound, arXiv 2506.11999; GritLM, arXiv 2402.09906).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def mean_pool(hidden: Tensor, pooled: Tensor) -> Tensor:
    """Return the normalised mean of the hidden states where `pooled` is 1.

    Args:
        hidden: [batch, tokens, size], last hidden states.
        pooled: [batch, tokens], 1 on the tokens of the text, 0 on prompt and padding.

    Returns:
        [batch, size] float32, each row of length 1.
    """
    weights = pooled.unsqueeze(-1).to(torch.float32)
    summed = (hidden.to(torch.float32) * weights).sum(dim=1)
    return functional.normalize(summed / weights.sum(dim=1).clamp(min=1.0), dim=-1)


def info_nce(anchors: Tensor, documents: Tensor, positives: Tensor, excluded: Tensor, temperature: float) -> Tensor:
    """Return the contrastive loss of each anchor against all documents of the batch.

    Args:
        anchors: [batch, size], normalised.
        documents: [documents, size], normalised.
        positives: [batch], the index of each anchor's positive among the documents.
        excluded: [batch, documents] bool, true where a document is another known positive of the anchor.
        temperature: the similarities are divided by it.

    Returns:
        [batch] losses.
    """
    scores = anchors @ documents.T / temperature
    keep = functional.one_hot(positives, documents.shape[0]).bool()
    scores = scores.masked_fill(excluded & ~keep, float("-inf"))
    return functional.cross_entropy(scores, positives, reduction="none")


def completion_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the summed cross entropy of the supervised positions.

    Args:
        logits: [supervised, vocabulary], of the positions that predict a completion token.
        targets: [supervised], those tokens.
    """
    return functional.cross_entropy(logits.to(torch.float32), targets, reduction="sum")


def largest_remainder(weights: dict[str, float], total: int) -> dict[str, int]:
    """Return whole numbers proportional to `weights` that sum to `total`; ties go to the earlier key."""
    scale = total / sum(weights.values())
    counts = {key: int(weight * scale) for key, weight in weights.items()}
    rest = sorted(weights, key=lambda key: counts[key] - weights[key] * scale)
    for key in rest[: total - sum(counts.values())]:
        counts[key] += 1
    return counts
