"""Intervals and p values over queries: every metric here is a function of sums over queries, which are resampled.

Bootstrap: percentile intervals of 95 % over resampled queries, seeded. A difference between two models resamples the
queries that both answered. Its p value is that of a randomisation test: if the models were equal, which of them gave
which of a query's two results would be chance (Smucker, Allan, Carterette 2007, "A comparison of statistical
significance tests for information retrieval evaluation"; for F1, Yeh 2000, "More accurate tests for the statistical
significance of result differences").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
SWAPS = 10_000
LEVEL = 0.95
_CELLS_AT_ONCE = 2**22
_EQUAL = 1e-12

Floats = NDArray[np.floating[Any]]
Statistic = Callable[[Floats], Floats]
"""From sums over queries [..., terms] to a metric's value [...]."""


@dataclass(frozen=True)
class Interval:
    """A value and the bounds between which 95 % of the resampled values lie."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Difference(Interval):
    """A difference between two models on the same queries.

    Attributes:
        p: how often a difference this large comes up where it is chance which model gave which result.
        wins: queries on which the first model is better; `ties` and `losses` likewise.
    """

    p: float
    wins: int
    ties: int
    losses: int

    def __str__(self) -> str:
        interval = f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"
        return f"{interval}, p {self.p:.4f}, {self.wins}/{self.ties}/{self.losses}"


def mean(sums: Floats) -> Floats:
    """Return sums of values divided by numbers of queries, which are the two terms."""
    return sums[..., 0] / sums[..., 1]


def mean_terms(values: Floats) -> Floats:
    """Return the terms [queries, 2] of a mean: each value, and one."""
    return np.stack([values, np.ones(len(values))], axis=1)


def bootstrap(values: Floats, seed: int = 0) -> Interval:
    """Return the mean of `values` [queries] with its interval over resampled queries."""
    return interval(mean_terms(values), mean, seed)


def interval(terms: Floats, statistic: Statistic, seed: int = 0) -> Interval:
    """Return the statistic of the sums of `terms` [queries, terms], with its interval over resampled queries."""
    return percentile_interval(statistic(terms.sum(axis=0)), statistic(resampled_sums(terms, seed)))


def resampled_sums(terms: Floats, seed: int = 0) -> Floats:
    """Return the sums [RESAMPLES, terms] over queries drawn with replacement, from `terms` [queries, terms]."""
    generator = np.random.default_rng(seed)
    queries = len(terms)
    sums = np.empty((RESAMPLES, terms.shape[1]))
    for at in range(RESAMPLES):  # a resample is how often each query was drawn: one product for all terms
        drawn = np.bincount(generator.integers(0, queries, queries), minlength=queries)
        sums[at] = drawn @ terms
    return sums


def paired_difference(
    ours: Floats, theirs: Floats, statistic: Statistic, each: tuple[Floats, Floats], seed: int = 0
) -> Difference:
    """Return the difference of a statistic between two models on the same queries.

    Args:
        ours: terms of the first model [queries, terms].
        theirs: terms of the second, in the same order of queries.
        statistic: of their sums.
        each: a score of every query [queries] under the first and the second model, for wins, ties and losses.
        seed: of resamples and swaps.
    """
    width = ours.shape[1]
    value = statistic(ours.sum(axis=0)) - statistic(theirs.sum(axis=0))
    sums = resampled_sums(np.concatenate([ours, theirs], axis=1), seed)
    found = percentile_interval(value, statistic(sums[:, :width]) - statistic(sums[:, width:]))
    better, worse = int((each[0] > each[1] + _EQUAL).sum()), int((each[0] < each[1] - _EQUAL).sum())
    p = randomisation_p(ours, theirs, statistic, seed)
    return Difference(
        found.value, found.low, found.high, p=p, wins=better, ties=len(ours) - better - worse, losses=worse
    )


def randomisation_p(ours: Floats, theirs: Floats, statistic: Statistic, seed: int = 0) -> float:
    """Return the two-sided p value of the difference, from swaps of the two models' results query by query.

    The observed assignment counts as one of the swaps, so the smallest value is 1 / (SWAPS + 1).
    """
    observed = abs(statistic(ours.sum(axis=0)) - statistic(theirs.sum(axis=0)))
    as_large = 0
    for first, second in _swapped_sums(ours, theirs, seed):
        as_large += int((np.abs(statistic(first) - statistic(second)) >= observed - _EQUAL).sum())
    return (1 + as_large) / (1 + SWAPS)


def _swapped_sums(ours: Floats, theirs: Floats, seed: int) -> Iterator[tuple[Floats, Floats]]:
    """Yield the sums of both sides [draws, terms], where each query's results change sides with probability 1/2."""
    generator = np.random.default_rng(seed)
    gap, total = ours - theirs, ours.sum(axis=0) + theirs.sum(axis=0)
    draws = max(1, min(SWAPS, _CELLS_AT_ONCE // len(ours)))
    for begun in range(0, SWAPS, draws):
        kept = generator.integers(0, 2, (min(draws, SWAPS - begun), len(ours)), dtype=np.int8)
        first = theirs.sum(axis=0) + kept.astype(np.float64) @ gap
        yield first, total - first


def percentile_interval(value: Floats, resampled: Floats) -> Interval:
    """Return a value with the bounds of the middle 95 % of its resampled values [resamples]."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))
