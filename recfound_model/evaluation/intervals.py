"""Bootstrap intervals over queries: seeded, percentile, 95 %."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and the bounds between which 95 % of the resampled means lie."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(values: NDArray[np.float64], seed: int = 0) -> Interval:
    """Return the mean of `values` [queries] with its interval over resampled queries."""
    generator = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for index in range(
        RESAMPLES
    ):  # one resample at a time: [RESAMPLES, queries] at once would not fit for many queries
        means[index] = values[generator.integers(0, len(values), len(values))].mean()
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def paired_difference(ours: NDArray[np.float64], theirs: NDArray[np.float64], seed: int = 0) -> Interval:
    """Return the mean of `ours - theirs` over the same queries [queries], with its interval."""
    return bootstrap(ours - theirs, seed)
