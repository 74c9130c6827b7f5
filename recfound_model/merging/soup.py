"""A greedy soup: which adapters to merge, by the average rank of their losses over the tasks.

After model soups (arXiv 2203.05482, section 2), with ranks in the place of accuracies: losses of thirteen tasks have no
common unit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Losses = Mapping[str, float]


@dataclass(frozen=True)
class Soup:
    """What was chosen.

    Attributes:
        chosen: places of the chosen adapters, in their order.
        ranks: average rank of each adapter among the single ones; 1 is best.
        losses: of the soup.
        tried: how many merges were measured.
    """

    chosen: tuple[int, ...]
    ranks: tuple[float, ...]
    losses: Losses
    tried: int


def average_ranks(pool: Sequence[Losses]) -> list[float]:
    """Return the mean over tasks of each one's rank by loss: 1 is the lowest, equal losses share their mean rank.

    Args:
        pool: the losses of each one, by task; the tasks are the same.
    """
    return [sum(_rank(task, one, pool) for task in one) / len(one) for one in pool]


def _rank(task: str, one: Losses, pool: Sequence[Losses]) -> float:
    lower = sum(other[task] < one[task] for other in pool)
    equal = sum(other[task] == one[task] for other in pool)
    return lower + (equal + 1) / 2


def greedy_soup(members: Sequence[Losses], measure: Callable[[tuple[int, ...]], Losses]) -> Soup:
    """Return a soup whose average rank, among the members and itself, is no worse than any member's.

    Adapters are tried in the order of their ranks, beginning with the best. One stays if the soup with it ranks
    strictly better than the soup without it, in a pool with all members, and no worse than any member, in a pool
    without the earlier soup.

    Args:
        members: the losses of each adapter, by task.
        measure: merges adapters by their places, and returns the losses of the result.
    """
    ranks = average_ranks(members)
    first, *others = sorted(range(len(members)), key=lambda at: (ranks[at], at))
    chosen: tuple[int, ...] = (first,)
    losses, tried = members[first], 0
    for other in others:
        wider = tuple(sorted((*chosen, other)))
        candidate = measure(wider)
        tried += 1
        if _improves(members, losses if len(chosen) > 1 else None, first, candidate):
            chosen, losses = wider, candidate
    return Soup(chosen, tuple(ranks), losses, tried)


def _improves(members: Sequence[Losses], soup: Losses | None, first: int, candidate: Losses) -> bool:
    """Does the candidate rank better than the soup (the member `first` where there is none yet), and all members?"""
    *of_members, own = average_ranks([*members, candidate])
    if own > min(of_members):
        return False
    if soup is None:
        return own < of_members[first]
    *_, before, after = average_ranks([*members, soup, candidate])
    return after < before
