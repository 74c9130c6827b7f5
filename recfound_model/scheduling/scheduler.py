"""How many samples of each task the next step holds: S2Sched, and the fixed splits that it is compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain
from numbers import Integral
from typing import Any

import numpy as np

from recfound_data.errors import UsageError
from recfound_model.scheduling.allocation import Counts, bounded_shares, pass_on, whole_counts
from recfound_model.scheduling.convergence import Floats, loss_slopes, task_weights

_ASIDE = 1e-30
"""A task on a plateau weighs so little that it gets its floor, and more only where all others are at their cap."""

_STATE = ("settings", "credits", "drawn")
_ADAPTIVE_STATE = ("step", "starts", "losses", "slopes")


class FixedShares:
    """Splits each group's samples by fixed shares: the baselines, and the frame of the adaptive scheduler.

    Proportional to the numbers of samples by default, uniform with `temperature=math.inf`, between them otherwise.

    Args:
        groups: the tasks of each group with their numbers of training samples, which are the length of an epoch.
        prior: weights that take the place of these numbers in the split; a task of weight 0 is never drawn, one that is
            not named keeps its number of samples.
        temperature: T; a weight n counts as n^(1/T).

    Attributes:
        groups: as they were given.

    Raises:
        UsageError: a group, number, weight or temperature cannot be.
    """

    def __init__(
        self,
        groups: Mapping[str, Mapping[str, int]],
        prior: Mapping[str, float] | None = None,
        temperature: float = 1.0,
    ) -> None:
        self.groups = {group: dict(tasks) for group, tasks in groups.items()}
        self._tasks = list(chain.from_iterable(self.groups.values()))
        if len(set(self._tasks)) < len(self._tasks):
            twice = next(task for task in self._tasks if self._tasks.count(task) > 1)
            raise UsageError(f"task {twice!r} is in two groups; a task belongs to one")
        samples = dict(chain.from_iterable(tasks.items() for tasks in self.groups.values()))
        for task, count in samples.items():
            if count < 1:
                raise UsageError(f"task {task!r} has {count} samples; leave it out, or give it some")
        if not temperature > 0:
            raise UsageError(f"temperature is {temperature}; it must be above 0 (infinity for a uniform split)")
        self._weights = samples | self._known(prior or {}, "prior")
        self._temperature = temperature
        self._capacity: Counts = np.array([samples[task] for task in self._tasks], dtype=np.int64)
        self._prior = np.zeros(len(self._tasks))
        self._places: dict[str, Counts] = {}
        first = 0
        for group, tasks in self.groups.items():
            places = np.arange(first, first + len(tasks))
            first += len(tasks)
            self._prior[places] = _tempered([self._weights[task] for task in tasks], temperature)
            self._places[group] = places[self._prior[places] > 0]
        self._shares = self._prior
        self._credits = np.zeros(len(self._tasks))
        self._drawn: Counts = np.zeros(len(self._tasks), dtype=np.int64)

    @property
    def shares(self) -> dict[str, float]:
        """Each task's share of its group in the next step."""
        return dict(zip(self._tasks, self._shares.tolist(), strict=True))

    def observe(self, losses: Mapping[str, float]) -> None:
        """Take the losses of a step; fixed shares have no use for them."""

    def allocate(self, totals: Mapping[str, int]) -> dict[str, int]:
        """Return how many samples of each task the next step draws, and count them as drawn.

        Args:
            totals: samples of each group; nothing is drawn of a group that is not named.

        Returns:
            A count for every task, zeros included; a group's counts sum to its total. The samples that a task has
            yielded over all calls are one stream of epochs: an epoch is used up before the next one begins.

        Raises:
            UsageError: a group is unknown, a total is no whole number from 0, or all of a group's weights are 0.
        """
        counts = np.zeros(len(self._tasks), dtype=np.int64)
        credits = self._credits.copy()
        for group, total in totals.items():
            if group not in self._places:
                raise UsageError(f"totals: unknown group {group!r}; the groups are {', '.join(self.groups)}")
            if not isinstance(total, Integral) or total < 0:
                raise UsageError(f"totals: {group}: {total} is no number of samples")
            at = self._places[group]
            if total and not len(at):
                raise UsageError(
                    f"totals: {group}: no task has a weight above 0 that {total} samples could be drawn of"
                )
            if total:
                shares, capacity = self._shares[at], self._capacity[at]
                planned, credits[at] = whole_counts(shares, int(total), credits[at])
                counts[at] = pass_on(planned, shares, capacity - self._drawn[at] % capacity, capacity)
        self._credits = credits
        self._drawn = self._drawn + counts
        return dict(zip(self._tasks, counts.tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return all that a scheduler of the same settings needs to continue bit for bit; `json` can write it."""
        return {
            "settings": self._settings(),
            "credits": dict(zip(self._tasks, self._credits.tolist(), strict=True)),
            "drawn": dict(zip(self._tasks, self._drawn.tolist(), strict=True)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned.

        Raises:
            UsageError: it is no such state, or one of other groups or settings.
        """
        self._check(state, _STATE)
        self._credits = np.array([state["credits"][task] for task in self._tasks], dtype=np.float64)
        self._drawn = np.array([state["drawn"][task] for task in self._tasks], dtype=np.int64)

    def _settings(self) -> dict[str, Any]:
        return {
            "kind": type(self).__name__,
            "groups": self.groups,
            "prior": self._weights,
            "temperature": self._temperature if math.isfinite(self._temperature) else "infinity",
        }

    def _check(self, state: Mapping[str, Any], keys: tuple[str, ...]) -> None:
        """Refuse a state of other settings, naming the first that differs."""
        found = state.get("settings", {})
        for name, value in self._settings().items():
            if name in found and found[name] != value:
                raise UsageError(
                    f"the scheduler's state is of a run with {name} {found[name]}, and this one has {value}; "
                    "continue with the settings of that run, or start anew"
                )
        missing = [key for key in keys if key not in state] + [key for key in self._settings() if key not in found]
        if missing:
            raise UsageError(f"this is no state of a scheduler, or of another version: it lacks {', '.join(missing)}")

    def _known(self, values: Mapping[str, float], what: str) -> dict[str, float]:
        """Return finite values, none below zero, of known tasks."""
        for task, value in values.items():
            if task not in self._tasks:
                raise UsageError(f"{what}: unknown task {task!r}; the tasks are {', '.join(self._tasks)}")
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{what}: {task}: {value} is not a finite number from 0 up")
        return {task: float(value) for task, value in values.items()}


class SampleScheduler(FixedShares):
    """S2Sched (RecFound, arXiv 2506.11999): moves samples to the tasks of a group that converge more slowly.

    Steps are counted by calls of `observe`. In the first `warmup` of them the split is the prior's. From then on each
    step fits each task's slope, turns slopes into weights (`recfound_model.scheduling.convergence`), and splits by
    weight times prior, with a floor of 1 / (5 K) for each of the K tasks of a group.

    Args:
        groups: the tasks of each group with their numbers of training samples, which are the length of an epoch.
        warmup: steps that follow the prior.
        window: L, steps that a slope is fitted over, and how many slopes are remembered.
        tau: how sharply the formulas turn to a task's own history when one begins to diverge.
        prior: weights that take the place of the numbers of samples; a task of weight 0 is never drawn, one that is not
            named keeps its number of samples.
        temperature: T; a weight n counts as n^(1/T).
        cap: the largest share of a task in its group, a guard against steady divergence; groups of one task have none.
        plateau: a task whose relative loss changes by less than this a step gets its floor alone.

    Raises:
        UsageError: a setting cannot be.
    """

    def __init__(
        self,
        groups: Mapping[str, Mapping[str, int]],
        warmup: int = 32,
        window: int = 64,
        tau: float = 10.0,
        prior: Mapping[str, float] | None = None,
        temperature: float = 1.0,
        cap: float | None = None,
        plateau: float | None = None,
    ) -> None:
        super().__init__(groups, prior, temperature)
        if warmup < 0:
            raise UsageError(f"warmup is {warmup}; it is a number of steps")
        if window < 2:
            raise UsageError(f"window is {window}; a slope needs at least 2 steps")
        if not (math.isfinite(tau) and tau >= 0):
            raise UsageError(f"tau is {tau}; it must be a finite number from 0 up")
        if plateau is not None and not plateau >= 0:
            raise UsageError(f"plateau is {plateau}; it must be a number from 0 up")
        self._warmup, self._window, self._tau = warmup, window, tau
        self._cap, self._plateau = cap, plateau
        for group, at in self._places.items():
            if cap is not None and len(at) > 1 and not 1 / len(at) <= cap <= 1:
                raise UsageError(f"cap is {cap}; with {len(at)} tasks, {group} needs one from {1 / len(at):.4g} to 1")
        self._step = 0
        self._starts = np.full(len(self._tasks), np.nan)
        self._losses = np.empty((0, len(self._tasks)))
        self._slopes = np.empty((0, len(self._tasks)))
        self._shares = self._split()

    @property
    def slopes(self) -> dict[str, float]:
        """The change of each task's relative loss a step, of tasks that have one yet."""
        if not len(self._slopes):
            return {}
        found = zip(self._tasks, self._slopes[-1].tolist(), strict=True)
        return {task: slope for task, slope in found if not math.isnan(slope)}

    def observe(self, losses: Mapping[str, float]) -> None:
        """Take the losses of a step; call it once a step, with nothing where nothing was measured.

        Args:
            losses: raw losses of the tasks that were measured. A task's first loss above zero is its start, by which
                all are divided; zeros before it count as not measured.

        Raises:
            UsageError: a task is unknown, or its loss is negative or not finite. Nothing is taken of such a step.
        """
        row = np.full(len(self._tasks), np.nan)
        for task, loss in self._known(losses, "losses").items():
            row[self._tasks.index(task)] = loss
        self._starts = np.where(np.isnan(self._starts) & (row > 0), row, self._starts)
        self._losses = np.vstack([self._losses, row / self._starts])[-self._window :]
        self._step += 1
        if self._step >= self._warmup:
            slopes = loss_slopes(self._losses)
            if len(self._slopes):
                slopes = np.where(np.isnan(slopes), self._slopes[-1], slopes)
            self._slopes = np.vstack([self._slopes, slopes])[-self._window :]
        self._shares = self._split()

    def _split(self) -> Floats:
        """Return each task's share of its group in the next step."""
        if self._step < self._warmup:
            return self._prior
        shares = np.zeros(len(self._tasks))
        for at in self._places.values():
            if not len(at):
                continue
            weights = task_weights(self._slopes[:, at], self._tau) * self._prior[at]
            if self._plateau is not None and len(self._slopes):
                weights = np.where(np.abs(self._slopes[-1, at]) < self._plateau, weights * _ASIDE, weights)
            most = 1.0 if self._cap is None or len(at) == 1 else self._cap
            shares[at] = bounded_shares(weights, 1 / (5 * len(at)), most)
        return shares

    def state_dict(self) -> dict[str, Any]:
        """Return all that a scheduler of the same settings needs to continue bit for bit; `json` can write it."""
        return super().state_dict() | {
            "step": self._step,
            "starts": dict(zip(self._tasks, _plain(self._starts), strict=True)),
            "losses": dict(zip(self._tasks, map(_plain, self._losses.T), strict=True)),
            "slopes": dict(zip(self._tasks, map(_plain, self._slopes.T), strict=True)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned.

        Raises:
            UsageError: it is no such state, or one of other groups or settings.
        """
        self._check(state, _STATE + _ADAPTIVE_STATE)
        super().load_state_dict(state)
        self._step = state["step"]
        self._starts = self._history(state["starts"])
        # In which order numpy sums depends on how an array lies in memory: one row a step, as it was.
        self._losses = np.ascontiguousarray(self._history(state["losses"]).T)
        self._slopes = np.ascontiguousarray(self._history(state["slopes"]).T)
        self._shares = self._split()

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {
            "warmup": self._warmup,
            "window": self._window,
            "tau": self._tau,
            "cap": self._cap,
            "plateau": self._plateau,
        }

    def _history(self, values: Mapping[str, Any]) -> Floats:
        return np.array([values[task] for task in self._tasks], dtype=np.float64)  # None becomes nan


def _tempered(weights: list[float], temperature: float) -> Floats:
    """Return shares proportional to n^(1/T); a weight of zero stays zero."""
    shares = np.array(weights, dtype=np.float64)
    live = shares > 0
    if live.any():
        # Powers of ratios to the largest: a low temperature would overflow those of the weights themselves.
        powers = np.exp(np.log(shares[live] / shares.max()) / temperature)
        shares[live] = powers / powers.sum()
    return shares


def _plain(values: Floats) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]
