"""The mathematics of an inspection: pure functions on tensors, in float64.

Letters as in `routing`: E experts, r rank, `A [E r, in]`, `B [out, E r]`, gates `g [E]`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def cosines(vectors: Tensor) -> Tensor:
    """Cosine similarity of every two vectors.

    Args:
        vectors: [n, size]; one of zeros has no direction, and similarity 0 to all.

    Returns:
        [n, n].
    """
    unit = torch.nn.functional.normalize(vectors.double(), dim=-1)
    return unit @ unit.T


def expert_products(A: Tensor, B: Tensor, r: int) -> Tensor:
    """Inner products of the updates of every two experts, `<B_i A_i, B_j A_j>` of Frobenius, without forming them.

    It is the sum over the r x r entries of `(B_i^T B_j) * (A_i A_j^T)`.

    Args:
        A: [E r, in].
        B: [out, E r].
        r: rank of an expert.

    Returns:
        [E, E].
    """
    A, B = A.double(), B.double()
    entries = (B.T @ B) * (A @ A.T)
    experts = len(entries) // r
    return entries.view(experts, r, experts, r).sum(dim=(1, 3))


def group_norms(g: Tensor, products: Tensor, sizes: Sequence[int]) -> Tensor:
    """Frobenius norms of what each group of experts adds to a layer, `|sum_e g_e B_e A_e|` over the group's experts.

    Args:
        g: [tasks, E] gates.
        products: [E, E], of `expert_products`.
        sizes: experts of each group, in the order of the gates.

    Returns:
        [tasks, groups].
    """
    norms, first = [], 0
    for size in sizes:
        own = slice(first, first + size)
        part = g[:, own].double()
        squares = ((part @ products[own, own]) * part).sum(-1)
        # Rounding may leave a square just below 0.
        norms.append(squares.clamp_min(0).sqrt())
        first += size
    return torch.stack(norms, dim=-1)


def shares(norms: Tensor) -> Tensor:
    """Each group's norm by the sum of the groups' norms: [..., groups]; all 0 where there is no update at all."""
    return norms / norms.sum(-1, keepdim=True).clamp_min(torch.finfo(norms.dtype).tiny)


def effective_rank(values: Tensor) -> float:
    """The effective rank, exp of the entropy of singular values that sum to 1 (Roy and Vetterli, EUSIPCO 2007).

    Args:
        values: [n] singular values; 0 for all is rank 0.

    Returns:
        Between 1, one direction holds all, and n, all hold as much.
    """
    total = values.double().sum()
    if not total:
        return 0.0
    p = values.double() / total
    return float(torch.special.entr(p).sum().exp())


def mean_cosine(unit: Tensor) -> float:
    """Mean cosine of every two different rows of unit vectors [n, size]; 1 where there is one row."""
    n = len(unit)
    if n < 2:
        return 1.0
    squares = unit.double().sum(0).square().sum() - unit.double().square().sum()
    return float(squares / (n * (n - 1)))
