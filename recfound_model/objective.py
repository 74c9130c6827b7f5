"""The joint objective L = L_emb + lambda * L_gen as pure functions of tensors.

L_emb is InfoNCE over pooled, normalised hidden states, L_gen next-token cross entropy on completion tokens
(RecFound, arXiv 2506.11999; GritLM, arXiv 2402.09906).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def info_nce(
    anchors: Tensor,
    documents: Tensor,
    positives: Tensor,
    excluded: Tensor,
    temperature: float,
    prior: Tensor | None = None,
) -> Tensor:
    """Return the contrastive loss of each anchor against all documents of the batch.

    Args:
        anchors: [batch, size], normalised.
        documents: [documents, size], normalised.
        positives: [batch], the index of each anchor's positive among the documents.
        excluded: [batch, documents] bool, true where a document is another known positive of the anchor.
        temperature: the similarities are divided by it.
        prior: [documents], log of how often each comes into a batch. It is taken off the scores, without which
            the loss would teach similarities less what is popular (Yi and others, RecSys 2019).

    Returns:
        [batch] losses.
    """
    scores = anchors @ documents.T / temperature
    if prior is not None:
        scores = scores - prior
    keep = functional.one_hot(positives, documents.shape[0]).bool()
    scores = scores.masked_fill(excluded & ~keep, float("-inf"))
    return functional.cross_entropy(scores, positives, reduction="none")


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy of each supervised token, in float32.

    Args:
        logits: [supervised, vocabulary], of the positions that predict a completion token.
        targets: [supervised], those tokens.

    Returns:
        [supervised] losses.
    """
    return functional.cross_entropy(logits.to(torch.float32), targets, reduction="none")
