"""GradCache: the gradient of a loss over many embeddings, with the activations of one chunk in memory at a time.

A contrastive loss ties all embeddings of a batch together, but it needs nothing of them but their values. So the
embeddings are computed chunk by chunk without a graph, the loss gives the gradient of each embedding, and each chunk is
run a second time to carry its embeddings' gradients on to the parameters (Gao et al., arXiv 2101.06983). The second
run draws the dropout of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

Chunk = TypeVar("Chunk")


@dataclass(frozen=True)
class RandomState:
    """Torch's random state: that of the CPU, and that of the accelerator where there is one."""

    cpu: Tensor
    device: Tensor | None

    @classmethod
    def now(cls) -> RandomState:
        """Return the state as it is."""
        accelerator = torch.accelerator.is_available()
        return cls(torch.get_rng_state(), torch.get_device_module().get_rng_state() if accelerator else None)

    def set(self) -> None:
        """Put the state back."""
        torch.set_rng_state(self.cpu)
        if self.device is not None:
            torch.get_device_module().set_rng_state(self.device)

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Go back to the state for the block, and then on from where it was entered."""
        before = RandomState.now()
        self.set()
        try:
            yield
        finally:
            before.set()


def backward_in_chunks(
    encode: Callable[[Chunk], Tensor], chunks: Sequence[Chunk], loss: Callable[[Tensor], Tensor]
) -> Tensor:
    """Add the gradient of `loss` to the parameters of `encode`, and return the loss.

    The result is that of `loss(torch.cat([encode(chunk) for chunk in chunks])).backward()`, up to the order of sums.
    The last chunk keeps its graph from the first run: one chunk costs no second run, n chunks cost n - 1.

    Args:
        encode: one chunk -> [rows, size], a function of the chunk, the parameters and the random state.
        chunks: at least one.
        loss: [all rows, size] -> scalar.

    Returns:
        The loss, without a graph.
    """
    *earlier, last = chunks
    parts, states = [], []
    for chunk in earlier:
        states.append(RandomState.now())
        with torch.no_grad():
            parts.append(encode(chunk))
    kept = encode(last)
    embeddings = torch.cat([*parts, kept.detach()]).requires_grad_()
    value = loss(embeddings)
    (gradient,) = torch.autograd.grad(value, embeddings)
    *gradients, of_kept = gradient.split([len(part) for part in (*parts, kept)])
    kept.backward(of_kept)
    for chunk, state, part in zip(earlier, states, gradients, strict=True):
        with state.replayed():
            encode(chunk).backward(part)
    return value.detach()
