"""Delta space: what an expert adds to a linear is its product B A, and products are what is merged.

Factors mean nothing by themselves: B A = (B Q)(Q^T A) for any orthogonal Q, and the mean of two products is not the
product of the means. A merged product has a higher rank than the experts'; it is cut back to theirs by its singular
values, which loses least (Eckart and Young).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Merge = Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class MergedExpert:
    """A merged product B A of bounded rank.

    Attributes:
        A: [rank, in].
        B: [out, rank].
        lost: squared Frobenius norm of what the rank could not hold.
        whole: squared Frobenius norm of the merged product before.
    """

    A: Tensor
    B: Tensor
    lost: float
    whole: float


def merge_in_basis(As: Sequence[Tensor], Bs: Sequence[Tensor], merge: Merge, rank: int) -> MergedExpert:
    """Merge products by a method that gives the same in any orthonormal basis, without making a product.

    All products lie in the span of the B's columns and of the A's rows. In orthonormal bases of these two spaces a
    product is a small matrix of the same norm, with the same inner products.

    Args:
        As: [r, in] of each input.
        Bs: [out, r] of each input.
        merge: the method, on matrices.
        rank: of the result.
    """
    left, left_parts = torch.linalg.qr(torch.cat([B.double() for B in Bs], dim=1))
    right, right_parts = torch.linalg.qr(torch.cat([A.double() for A in As]).T)
    r = As[0].shape[0]
    cores = [b @ a.T for b, a in zip(left_parts.split(r, dim=1), right_parts.split(r, dim=1), strict=True)]
    U, S, Vh = torch.linalg.svd(merge(cores), full_matrices=False)
    return _cut(left @ U[:, :rank], S, Vh[:rank] @ right.T, rank)


def merge_dense(As: Sequence[Tensor], Bs: Sequence[Tensor], merge: Merge, rank: int) -> MergedExpert:
    """Merge products by a method that looks at single values: each input's product is made, [out, in].

    Args:
        As: [r, in] of each input.
        Bs: [out, r] of each input.
        merge: the method, on matrices.
        rank: of the result.
    """
    merged = merge([B @ A for A, B in zip(As, Bs, strict=True)])
    U, S, Vh = torch.linalg.svd(merged, full_matrices=False)
    return _cut(U[:, :rank], S, Vh[:rank], rank)


def _cut(U: Tensor, S: Tensor, Vh: Tensor, rank: int) -> MergedExpert:
    """Return the first `rank` singular values, split evenly over both factors; zeros where there are fewer.

    Args:
        U: [out, k], k <= rank.
        S: all singular values, largest first.
        Vh: [k, in].
        rank: of the result.
    """
    # U and V are unique up to a common sign: the largest value of each column of U is made positive.
    largest = U.abs().argmax(dim=0, keepdim=True)
    signs = U.gather(0, largest).sign().squeeze(0)
    root = S[:rank].sqrt()
    missing = rank - root.numel()
    B = torch.nn.functional.pad(U * (signs * root), (0, missing))
    A = torch.nn.functional.pad(Vh * (signs * root).unsqueeze(1), (0, 0, 0, missing))
    squares = S.double().square()
    return MergedExpert(A.float(), B.float(), squares[rank:].sum().item(), squares.sum().item())
