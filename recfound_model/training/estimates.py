"""What a run will need, said before it starts: memory from the shapes of the model, time from a few forward passes.

Rough on purpose: it costs a small part of a step, and says whether a run takes minutes or days.
"""

from __future__ import annotations

from dataclasses import dataclass

_GIB = 2**30
_FORWARD_AND_BACKWARD = 2.5
"""What both passes cost together, in forward passes."""


@dataclass(frozen=True)
class Estimate:
    """The need of a run on one process.

    Attributes:
        base: bytes of the frozen base.
        adapter: bytes of the adapter with its gradient and AdamW's two moments.
        activations: bytes of what the largest forward pass keeps for its backward pass.
        tokens: computed tokens of a step.
        seconds: of a step.
        steps: how many are to come.
    """

    base: int
    adapter: int
    activations: int
    tokens: int
    seconds: float
    steps: int

    def __str__(self) -> str:
        together = self.base + self.adapter + self.activations
        return (
            f"estimate: {together / _GIB:.1f} GiB (base {self.base / _GIB:.1f}, adapter and optimizer "
            f"{self.adapter / _GIB:.1f}, activations {self.activations / _GIB:.1f}); {self.tokens:,} tokens and "
            f"{self.seconds:.3g} s a step, {duration(self.seconds * self.steps)} for {self.steps:,} steps"
        )


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def step_seconds(forward: float, kept: int, repeated: int) -> float:
    """Return the seconds of a step through frozen layers.

    The gradient of a frozen weight is not computed, so a backward pass costs little more than a forward pass.

    Args:
        forward: seconds that a forward pass takes for each token.
        kept: tokens that run forward and backward.
        repeated: tokens that run forward once more, for GradCache or gradient checkpointing.
    """
    return forward * (_FORWARD_AND_BACKWARD * kept + repeated)


def activation_bytes(
    layers: int, hidden: int, intermediate: int, dropped: int, tokens: int, value_bytes: int, recompute: bool
) -> int:
    """Return what a forward pass keeps for the backward pass.

    Of each layer the inputs of its seven products and norms, about 12 hidden and 4 intermediate values a token, and
    what dropout makes of the adapted ones; with checkpointing its input alone, and one layer whole.

    Args:
        layers: of the decoder.
        hidden: values of a token between layers.
        intermediate: values of a token inside of the feed-forward part.
        dropped: inputs of all adapted linears together, where the adapter has dropout; otherwise 0.
        tokens: of the pass.
        value_bytes: of one value.
        recompute: whether layers are checkpointed.
    """
    whole = 12 * hidden + 4 * intermediate + 2 * dropped // layers
    values = layers * hidden + whole if recompute else layers * whole
    return tokens * values * value_bytes
