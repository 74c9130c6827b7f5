"""From weights to bounded shares, from shares to whole numbers of samples, from exhausted tasks on to others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recfound_model.scheduling.convergence import Floats

Counts = NDArray[np.int64]

_DIGITS = 9
"""Remainders that agree to so many digits are a tie: what rounding adds over a run must not decide it."""


def bounded_shares(weights: Floats, least: float, most: float) -> Floats:
    """Return shares proportional to `weights`, except that none is below `least` or above `most`.

    Args:
        weights: [K], above zero.
        least: at most 1 / K.
        most: at least 1 / K.

    Returns:
        [K], sums to 1; a share that meets a bound is exactly that bound.
    """
    shares = np.zeros_like(weights)
    free = np.ones(len(weights), dtype=bool)
    while free.any():
        shares[free] = weights[free] / weights[free].sum() * (1.0 - shares[~free].sum())
        low, high = free & (shares < least), free & (shares > most)
        # Only the side that is violated by more in sum is sure to be at its bound in the end.
        if (least - shares[low]).sum() >= (shares[high] - most).sum():
            bound, value = low, least
        else:
            bound, value = high, most
        if not bound.any():
            break
        shares[bound] = value
        free &= ~bound
    return shares


def whole_counts(shares: Floats, total: int, credits: Floats) -> tuple[Counts, Floats]:
    """Return whole numbers by largest remainder, where what was owed before adds to a remainder.

    Each task gets the whole part of `share * total`; units that are left go, one a task, to those that are owed most.
    Ties go to the earlier task; a task without a share gets nothing.

    Args:
        shares: [K], sums to 1.
        total: what the counts sum to.
        credits: [K], fractions owed so far less the units received for them; zeros at first.

    Returns:
        The counts [K] and the credits after them [K], which sum to 0.
    """
    quotas = shares * total
    counts = np.floor(quotas).astype(np.int64)
    owed = credits + (quotas - counts)
    ranked = np.argsort(np.where(shares > 0, -np.round(owed, _DIGITS), np.inf), kind="stable")
    receivers = ranked[: total - int(counts.sum())]
    counts[receivers] += 1
    owed[receivers] -= 1.0
    return counts, owed


def pass_on(counts: Counts, shares: Floats, fresh: Counts, capacity: Counts) -> Counts:
    """Return counts that fit what each task has left in its epoch, with the same sum.

    What a task cannot give goes to those that still can, in proportion to their shares, repeatedly until it fits. When
    none can, all of them start a new epoch.

    Args:
        counts: [K], as planned.
        shares: [K], above zero.
        fresh: [K], samples left in each task's epoch.
        capacity: [K], samples of an epoch.
    """
    given = np.minimum(counts, fresh)
    room = fresh - given
    rest = int(counts.sum() - given.sum())
    while rest:
        if not room.any():
            room = capacity
        open_shares = np.where(room > 0, shares, 0.0)
        more, _ = whole_counts(open_shares / open_shares.sum(), rest, np.zeros_like(shares))
        more = np.minimum(more, room)
        given, room, rest = given + more, room - more, rest - int(more.sum())
    return given
