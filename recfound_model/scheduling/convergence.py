"""The mathematics of S2Sched (RecFound, arXiv 2506.11999; after CoBa, arXiv 2410.06741): from losses to weights.

Letters, as in the method's equations: K tasks of one group, `a [K]` slopes of their relative losses, H and n steps of
history. A missing value is nan. Where a sum of absolute slopes is zero, no task stands out, and scores are equal.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def loss_slopes(losses: Floats) -> Floats:
    """Return the least-squares slope of each task's loss a step, against the steps at which it was measured.

    Args:
        losses: [steps, K], one row for each of the last steps; nan where a task was not measured.

    Returns:
        a: [K], nan for a task with fewer than two measurements.
    """
    measured = ~np.isnan(losses)
    counts = measured.sum(axis=0)
    enough = counts >= 2
    steps = np.arange(len(losses), dtype=np.float64)[:, None]
    middle = np.where(measured, steps, 0.0).sum(axis=0) / np.maximum(counts, 1)
    time = np.where(measured, steps - middle, 0.0)
    # Above the lowest, not the mean: equal losses then have a slope of zero, not one of rounding that scores blow up.
    height = np.where(measured, losses - np.fmin.reduce(losses, axis=0), 0.0)
    spread = np.where(enough, (time * time).sum(axis=0), 1.0)
    return np.where(enough, (time * height).sum(axis=0) / spread, np.nan)


def relative_scores(slopes: Floats) -> Floats:
    """Return RCS = softmax_i(K a_i / sum_j |a_j|): high for a task that converges slowly beside its group.

    Args:
        slopes: a, [K].

    Returns:
        [K], sums to 1.
    """
    return _softmax(len(slopes) * _over(slopes, np.abs(slopes).sum()))


def absolute_scores(history: Floats) -> Floats:
    """Return ACS = softmax_i(-H a_i(s) / sum_h |a_i(h)|): low for a task that used to fall and now rises.

    Args:
        history: [steps, K] slopes, the last row is now; nan before a task had its first. H is how many a task has.

    Returns:
        [K], sums to 1.
    """
    lengths = (~np.isnan(history)).sum(axis=0)
    return _softmax(-lengths * _over(history[-1], np.nansum(np.abs(history), axis=0)))


def divergence_factor(history: Floats, tau: float) -> float:
    """Return D = min(1, n softmax_h(-tau n b_h / sum |b|)[last]): 1 while no task turns up, near 0 when one does.

    Args:
        history: [n, K] slopes, the last row is now; nan before a task had its first. b_h is the largest of row h.
        tau: how sharply D falls.
    """
    highest = np.fmax.reduce(history, axis=1)
    return float(min(1.0, len(highest) * _softmax(-tau * len(highest) * _over(highest, np.abs(highest).sum()))[-1]))


def task_weights(history: Floats, tau: float) -> Floats:
    """Return w = softmax(K (D RCS + (1 - D) ACS)) of the tasks of one group.

    K counts the tasks that have slopes. One that has none is given the mean score, so that it keeps its prior.

    Args:
        history: [steps, K] slopes, the last row is now; nan before a task had its first; no rows where none has any.
        tau: see `divergence_factor`.

    Returns:
        [K], sums to 1.
    """
    tasks = history.shape[1]
    history = history[~np.isnan(history).all(axis=1)]
    if not len(history):
        return np.full(tasks, 1.0 / tasks)
    known = ~np.isnan(history[-1])
    seen = history[:, known]
    factor = divergence_factor(seen, tau)
    mixed = factor * relative_scores(seen[-1]) + (1.0 - factor) * absolute_scores(seen)
    scores = np.full(tasks, 1.0)  # K times the mean of K scores that sum to 1
    scores[known] = len(mixed) * mixed
    return _softmax(scores)


def _over(values: Floats, sums: Floats | np.float64) -> Floats:
    return np.divide(values, sums, out=np.zeros_like(values), where=sums > 0)


def _softmax(scores: Floats) -> Floats:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()
