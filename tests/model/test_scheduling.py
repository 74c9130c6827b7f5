"""S2Sched agrees with its formulas in slow loops; counts sum, fit and even out; a restored state continues exactly."""

import json
import math
import random
import subprocess
import sys

import numpy as np
import pytest

from recfound_data.errors import UsageError
from recfound_model.scheduling.allocation import bounded_shares, pass_on, whole_counts
from recfound_model.scheduling.convergence import (
    absolute_scores,
    divergence_factor,
    loss_slopes,
    relative_scores,
    task_weights,
)
from recfound_model.scheduling.scheduler import FixedShares, SampleScheduler

NAN = math.nan

# --- the formulas once more, in plain loops


def slow_softmax(values):
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def slow_slope(points):
    middle = sum(x for x, _ in points) / len(points)
    mean = sum(y for _, y in points) / len(points)
    return sum((x - middle) * (y - mean) for x, y in points) / sum((x - middle) ** 2 for x, _ in points)


def slow_slopes(observed, task, warmup, window):
    """All slopes of a task by step, from all that was ever observed."""
    start, points, slopes = None, [], {}
    for step, losses in enumerate(observed, start=1):
        if task in losses:
            if start is None and losses[task] > 0:
                start = losses[task]
            if start is not None:
                points.append((step, losses[task] / start))
        recent = [(x, y) for x, y in points if x > step - window]
        if step >= warmup:
            if len(recent) >= 2:
                slopes[step] = slow_slope(recent)
            elif step - 1 in slopes:
                slopes[step] = slopes[step - 1]
    return slopes


def slow_shares(observed, tasks, warmup=32, window=64, tau=10.0, cap=None, plateau=None):
    """The shares of one group after all that was observed."""
    prior = {task: count / sum(tasks.values()) for task, count in tasks.items()}
    now = len(observed)
    if now < warmup:
        return prior
    slopes = {task: slow_slopes(observed, task, warmup, window) for task in tasks}
    slopes = {task: {h: a for h, a in found.items() if h > now - window} for task, found in slopes.items()}
    known = [task for task in tasks if now in slopes[task]]
    weights = dict.fromkeys(tasks, 1.0)
    if known:
        K = len(known)
        a = [slopes[task][now] for task in known]
        RCS = slow_softmax([K * slope / sum(map(abs, a)) for slope in a])
        ACS = []
        for task in known:
            own = slopes[task]
            ACS.append(-len(own) * own[now] / sum(abs(slope) for slope in own.values()))
        ACS = slow_softmax(ACS)
        steps = sorted({h for task in known for h in slopes[task]})
        b = [max(slopes[task][h] for task in known if h in slopes[task]) for h in steps]
        n = len(b)
        D = min(1.0, n * slow_softmax([-tau * n * value / sum(map(abs, b)) for value in b])[-1])
        scores = {task: D * RCS[at] + (1 - D) * ACS[at] for at, task in enumerate(known)}
        mean = sum(scores.values()) / K
        weights = {task: math.exp(K * scores.get(task, mean)) for task in tasks}
    weights = {task: weights[task] * prior[task] for task in tasks}
    if plateau is not None:
        flat = [task for task in known if abs(slopes[task][now]) < plateau]
        weights = {task: weight * (1e-30 if task in flat else 1.0) for task, weight in weights.items()}
    return dict(zip(tasks, slow_bounds(list(weights.values()), 1 / (5 * len(tasks)), cap or 1.0), strict=True))


def slow_bounds(weights, least, most):
    """The shares between bounds: the scale at which they sum to 1, found by halving the logarithm of its range."""
    low, high = -200.0, 200.0
    for _ in range(200):
        middle = (low + high) / 2
        total = sum(min(max(weight * math.exp(middle), least), most) for weight in weights)
        low, high = (middle, high) if total < 1 else (low, middle)
    return [min(max(weight * math.exp(low), least), most) for weight in weights]


def random_history(rng, tasks, steps, rate):
    """Losses of curves that fall, rise, wander and start with zeros; each task is measured at some of the steps."""
    scale = {task: rng.uniform(-0.02, 0.01) for task in tasks}
    height = {task: rng.uniform(0.5, 5) for task in tasks}
    chance = {task: rng.choice([1.0, 0.6, rate]) for task in tasks}
    late = {task: rng.choice([0, 0, 25]) for task in tasks}
    observed = []
    for step in range(steps):
        losses = {}
        for task in tasks:
            if step >= late[task] and rng.random() < chance[task]:
                losses[task] = height[task] * math.exp(scale[task] * step) * rng.uniform(0.9, 1.1)
        if step < 3:
            losses = dict.fromkeys(losses, 0.0)
        observed.append(losses)
    return observed


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("guards", [{}, {"cap": 0.4}, {"plateau": 0.004}, {"cap": 0.34, "plateau": 0.01}])
def test_the_update_agrees_with_the_formulas_in_slow_loops(seed, guards):
    rng = random.Random(seed)
    tasks = {f"task{number}": rng.randint(1, 5000) for number in range(rng.choice([3, 5, 10]))}
    settings = {"warmup": (9, 0, 30, 1)[seed % 4], "window": rng.choice([2, 7, 20]), "tau": rng.choice([1.0, 10.0])}
    observed = random_history(rng, tasks, steps=60, rate=0.08)
    scheduler = SampleScheduler({"group": tasks}, **settings, **guards)
    for step in range(len(observed) + 1):
        expected = slow_shares(observed[:step], tasks, **settings, **guards)
        assert scheduler.shares == pytest.approx(expected, rel=1e-7)
        if step < len(observed):
            scheduler.observe(observed[step])
            slow = {
                task: slow_slopes(observed[: step + 1], task, settings["warmup"], settings["window"]) for task in tasks
            }
            expected = {task: found[step + 1] for task, found in slow.items() if step + 1 in found}
            assert scheduler.slopes == pytest.approx(expected, rel=1e-7, abs=1e-12)


def test_groups_do_not_meet():
    rng = random.Random(1)
    groups = {"one": {"a": 10, "b": 20, "c": 5}, "two": {"d": 40, "e": 4}}
    observed = random_history(rng, [*groups["one"], *groups["two"]], steps=60, rate=0.5)
    both = SampleScheduler(groups, warmup=5, window=16)
    for losses in observed:
        both.observe(losses)
    for tasks in groups.values():
        own = [{task: loss for task, loss in losses.items() if task in tasks} for losses in observed]
        shares = {task: both.shares[task] for task in tasks}
        assert shares == pytest.approx(slow_shares(own, tasks, warmup=5, window=16), rel=1e-9)


# --- slopes


def test_slopes_are_those_of_the_steps_measured():
    steps = np.arange(30.0)
    losses = np.stack([1 - 0.01 * steps, 2 + 0.02 * steps, np.full(30, 0.7)], axis=1)
    losses[::2, 0] = NAN
    losses[3:25, 1] = NAN
    assert loss_slopes(losses) == pytest.approx([-0.01, 0.02, 0.0], abs=1e-15)
    rng = np.random.default_rng(0)
    losses = rng.random((30, 1))
    losses[rng.random(30) < 0.5] = NAN
    known = ~np.isnan(losses[:, 0])
    assert loss_slopes(losses)[0] == pytest.approx(np.polyfit(steps[known], losses[known, 0], 1)[0])


def test_equal_losses_have_a_slope_of_exactly_zero():
    losses = np.tile(np.random.default_rng(0).random(50), (49, 1))
    losses[np.random.default_rng(1).random(losses.shape) < 0.5] = NAN
    assert loss_slopes(losses).tolist() == [0.0] * 50


def test_a_slope_needs_two_measurements():
    assert np.isnan(loss_slopes(np.array([[NAN, 1.0], [NAN, NAN], [NAN, NAN]]))).all()


def test_histories_do_not_slip_when_they_are_cut():
    """A task measured at every third step falls by 0.001 a step, long after the window is full."""
    scheduler = SampleScheduler({"group": {"a": 1, "b": 1}}, warmup=4, window=10)
    for step in range(200):
        scheduler.observe({"a": 2 - 0.002 * step, **({"b": 1 - 0.001 * step} if step % 3 == 0 else {})})
        if step >= 6:
            assert scheduler.slopes == pytest.approx({"a": -0.001, "b": -0.001}, rel=1e-9)


def test_a_slope_forgets_what_left_the_window():
    scheduler = SampleScheduler({"group": {"a": 1, "b": 1}}, warmup=0, window=8)
    for step in range(40):
        scheduler.observe({"a": 1.0 - 0.01 * min(step, 20), "b": 1.0})
    assert scheduler.slopes == {"a": 0.0, "b": 0.0}


def test_a_task_that_is_measured_no_more_keeps_its_slope_and_one_that_never_was_its_prior():
    scheduler = SampleScheduler({"group": {"a": 1, "b": 1, "never": 1}}, warmup=0, window=8)
    for step in range(60):
        scheduler.observe({"a": 1 - 0.01 * step, **({"b": 1 - 0.002 * step} if step < 10 else {})})
    assert scheduler.slopes == pytest.approx({"a": -0.01, "b": -0.002})
    shares = scheduler.shares
    assert shares["a"] < shares["never"] < shares["b"]
    # The mean score of two is 1/2, so that e^1 stands beside e^(2 RCS).
    scores = [2 * math.exp(2 * a / 0.012) for a in (-0.01, -0.002)]
    scores = [score / (sum(scores) / 2) for score in scores]
    assert shares["never"] == pytest.approx(math.e / (math.e + sum(map(math.exp, scores))))


# --- what the formulas say


def test_scores_of_equal_slopes_and_of_none():
    assert relative_scores(np.zeros(4)) == pytest.approx(np.full(4, 0.25))
    assert relative_scores(np.full(4, -0.3)) == pytest.approx(np.full(4, 0.25))
    assert absolute_scores(np.zeros((5, 4))) == pytest.approx(np.full(4, 0.25))
    assert divergence_factor(np.zeros((5, 4)), 10.0) == 1.0
    assert task_weights(np.zeros((5, 4)), 10.0) == pytest.approx(np.full(4, 0.25))
    assert task_weights(np.empty((0, 4)), 10.0) == pytest.approx(np.full(4, 0.25))


def test_relative_scores_look_at_the_group_absolute_ones_at_the_past():
    scores = relative_scores(np.array([-3.0, -2.0, 1.0]))
    assert scores == pytest.approx(slow_softmax([-9 / 6, -6 / 6, 3 / 6]))
    history = np.array([[NAN, -1.0], [-1.0, -1.0], [3.0, -1.0]])
    assert absolute_scores(history) == pytest.approx(slow_softmax([-2 * 3 / 4, -3 * -1 / 3]))


def test_the_divergence_factor_is_1_while_the_largest_slope_stays_and_falls_when_it_rises():
    steady = np.full((64, 2), -0.01)
    assert divergence_factor(steady, 10.0) == 1.0
    assert divergence_factor(-steady, 10.0) == 1.0  # steady divergence too
    rising = steady.copy()
    rising[-1, 0] = 0.01
    assert divergence_factor(rising, 10.0) < 1e-6
    assert divergence_factor(rising, 0.0) == 1.0
    slowing = steady.copy()
    slowing[-1, 0] = -0.009
    n, total = 64, 63 * 0.01 + 0.009
    expected = n / (63 * math.exp(10 * n * (0.01 - 0.009) / total) + 1)
    assert divergence_factor(slowing, 10.0) == pytest.approx(expected)


def observed_shares(curves, steps, noise=0.0, samples=None, **settings):
    """The shares after each step of curves that do not depend on them."""
    rng = random.Random(0)
    scheduler = SampleScheduler({"group": samples or dict.fromkeys(curves, 100)}, **settings)
    shares = []
    for step in range(steps):
        scheduler.observe({task: curve(step) + noise * rng.gauss(0, 1) for task, curve in curves.items()})
        shares.append(scheduler.shares)
    return shares


def linear(rate, start=2.0):
    return lambda step: start * (1 - rate * step)


def exponential(scale, end=0.4, start=2.0):
    return lambda step: end + (start - end) * math.exp(-step / scale)


def turning(curve, at, rise):
    return lambda step: curve(min(step, at)) + rise * max(0, step - at)


def test_the_split_is_the_prior_until_the_warm_up_ends():
    samples = {"large": 8000, "small": 1, "other": 2499}
    curves = {"large": linear(0.001), "small": linear(0.0001), "other": linear(0.002)}
    shares = observed_shares(curves, 40, samples=samples, warmup=32)
    prior = {task: count / 10500 for task, count in samples.items()}
    assert all(found == pytest.approx(prior) for found in shares[:31])
    assert shares[31]["small"] == 1 / 15  # the floor
    assert shares[31]["other"] < prior["other"]


@pytest.mark.parametrize("others", [2, 9])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_task_that_falls_more_slowly_gains(others, noise):
    curves = {f"fast{number}": linear(0.002 + 0.0001 * number) for number in range(others)} | {"slow": linear(0.0005)}
    shares = observed_shares(curves, 300, noise)
    prior = 1 / len(curves)
    mean = sum(found["slow"] for found in shares[32:]) / len(shares[32:])
    assert mean > 1.2 * prior
    if not noise:
        assert all(found["slow"] > prior for found in shares[32:])
        assert all(found["slow"] == max(found.values()) for found in shares[32:])


@pytest.mark.parametrize("group", ["exponential", "linear", "large", "converged"])
@pytest.mark.parametrize("rise", [0.0005, 0.002, 0.01])
@pytest.mark.parametrize("before", [exponential(60), exponential(200), linear(0.0015)])
def test_a_task_that_falls_and_then_rises_goes_below_its_prior_within_the_window(group, rise, before):
    window, turn = 64, 150
    others = {
        "exponential": [exponential(100), exponential(300)],
        "linear": [linear(0.002), linear(0.001)],
        "large": [exponential(80 + 40 * number) for number in range(9)],
        "converged": [exponential(15), exponential(20)],
    }[group]
    curves = {f"other{number}": curve for number, curve in enumerate(others)} | {"x": turning(before, turn, rise)}
    shares = observed_shares(curves, turn + 2 * window + 1, window=window)
    prior = 1 / len(curves)
    assert all(found["x"] < prior for found in shares[turn + window - 12 : turn + window + 1])
    # It does not last: once only rising slopes are remembered, the formulas take it for one that converges slowly.
    assert shares[turn + 2 * window]["x"] == max(shares[turn + 2 * window].values()) > 1.5 * prior


@pytest.mark.parametrize("others", [2, 9])
def test_a_task_that_diverges_steadily_gets_most_of_its_group(others):
    """All slopes stay, so D = 1 and w = softmax(K RCS) by the slopes of one moment."""
    curves = {f"falling{number}": linear(0.001) for number in range(others)} | {"rising": linear(-0.001)}
    shares = observed_shares(curves, 200)[-1]
    scores = slow_softmax([-1.0] * others + [1.0])
    weights = slow_softmax([(others + 1) * score for score in scores])
    floor = 1 / (5 * (others + 1))
    expected = weights[-1] if weights[0] > floor else 1 - others * floor
    assert shares["rising"] == pytest.approx(expected)
    assert shares["rising"] > 0.75


def test_a_converged_task_gains_and_a_converged_group_keeps_its_prior():
    """Slope 0 is the slowest fall: RCS is highest, and the prior decides where all are 0."""
    curves = {"flat": linear(0.0), "falling": linear(0.001), "faster": linear(0.002)}
    shares = observed_shares(curves, 200)[-1]
    weights = slow_softmax([3 * score for score in slow_softmax([0.0, -3 * 1 / 3, -3 * 2 / 3])])
    assert list(shares.values()) == pytest.approx(weights)
    flat = dict.fromkeys(("a", "b", "c"), linear(0.0))
    assert observed_shares(flat, 200, samples={"a": 5, "b": 3, "c": 2})[-1] == pytest.approx(
        {"a": 0.5, "b": 0.3, "c": 0.2}
    )


def test_weights_do_not_depend_on_the_scale_of_slopes_so_noise_on_a_plateau_moves_them():
    history = np.random.default_rng(0).normal(size=(64, 3))
    assert task_weights(history, 10.0) == pytest.approx(task_weights(1e-9 * history, 10.0))
    shares = observed_shares(dict.fromkeys(("a", "b", "c"), linear(0.0)), 300, noise=1e-6)
    assert max(found["a"] for found in shares[100:]) > 0.5
    assert min(found["a"] for found in shares[100:]) < 0.2


def test_a_group_of_one_gets_everything():
    scheduler = SampleScheduler({"one": {"a": 7}, "two": {"b": 3, "c": 4}}, warmup=2, cap=0.6, plateau=0.1)
    for step in range(50):
        scheduler.observe({"a": 2 + step, "b": 1 + 1 / (step + 1), "c": 2})
        assert scheduler.shares["a"] == 1.0
        assert scheduler.allocate({"one": 5})["a"] == 5


# --- guards


def test_the_cap_bounds_a_diverging_task_and_leaves_the_rest_in_proportion():
    curves = {"rising": linear(-0.001), **{f"falling{number}": linear(0.001 + 0.0005 * number) for number in range(4)}}
    free, capped = observed_shares(curves, 200)[-1], observed_shares(curves, 200, cap=0.3)[-1]
    assert free["rising"] > 0.6
    assert capped["rising"] == 0.3
    assert sum(capped.values()) == pytest.approx(1.0)
    assert sorted(capped, key=capped.get) == sorted(free, key=free.get)


def test_a_plateau_gets_the_floor():
    curves = {"flat": linear(0.0), "falling": linear(0.001), "faster": linear(0.002)}
    shares = observed_shares(curves, 200, plateau=0.0005)[-1]
    assert shares["flat"] == 1 / 15
    assert shares["falling"] + shares["faster"] == pytest.approx(14 / 15)
    assert shares["falling"] / shares["faster"] == pytest.approx(math.exp(3 * (math.exp(-1) - math.exp(-2)) / (
        1 + math.exp(-1) + math.exp(-2))))  # fmt: skip


def test_where_all_are_on_a_plateau_none_is_set_aside_and_a_cap_comes_first():
    flat = dict.fromkeys(("a", "b", "c"), linear(0.0))
    shares = observed_shares(flat, 100, samples={"a": 5, "b": 3, "c": 2}, plateau=0.1)[-1]
    assert shares == pytest.approx({"a": 0.5, "b": 0.3, "c": 0.2})
    curves = {"falling": linear(0.001), "b": linear(0.0), "c": linear(0.0)}
    shares = observed_shares(curves, 100, samples={"falling": 5, "b": 3, "c": 2}, plateau=0.0001, cap=0.4)[-1]
    assert shares == pytest.approx({"falling": 0.4, "b": 0.36, "c": 0.24})


# --- shares within bounds


@pytest.mark.parametrize("seed", range(200))
def test_bounded_shares(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 12))
    weights = rng.random(size) ** rng.integers(1, 30)
    least = float(rng.choice([0.2, 0.9, 1.0])) / size
    most = 1.0 if rng.random() < 0.5 else float(rng.uniform(1 / size, 1))
    shares = bounded_shares(weights, least, most)
    assert shares.sum() == pytest.approx(1.0, abs=1e-12)
    assert shares.min() >= least * (1 - 1e-12)
    assert shares.max() <= most * (1 + 1e-12)
    assert shares == pytest.approx(slow_bounds(weights.tolist(), least, most), rel=1e-9)


def test_the_floor_holds_at_every_step():
    rng = random.Random(3)
    groups = {"one": {f"a{number}": 10 ** (number % 5) for number in range(10)}, "two": {"b": 1, "c": 10**6, "d": 50}}
    scheduler = SampleScheduler(groups, warmup=5, window=12)
    for losses in random_history(rng, [*groups["one"], *groups["two"]], steps=150, rate=0.3):
        scheduler.observe(losses)
        if scheduler.state_dict()["step"] >= 5:
            assert all(scheduler.shares[task] >= 1 / 50 for task in groups["one"])
            assert all(scheduler.shares[task] >= 1 / 15 for task in groups["two"])


# --- whole numbers


def test_the_first_step_is_largest_remainder_and_ties_go_to_the_earlier_task():
    def first(shares, total):
        return whole_counts(np.array(shares), total, np.zeros(len(shares)))[0].tolist()

    assert first([0.5, 0.3, 0.2], 11) == [6, 3, 2]
    assert first([0.25] * 4, 6) == [2, 2, 1, 1]
    assert first([0.1] * 10, 3) == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert first([0.0, 1.0], 5) == [0, 5]
    assert first([1 / 3] * 3, 0) == [0, 0, 0]


def test_what_was_owed_before_counts_and_a_task_without_a_share_gets_nothing():
    credits = np.array([0.0, 1.6, -0.8, -0.8])
    counts, after = whole_counts(np.array([0.0, 0.5, 0.3, 0.2]), 5, credits)
    assert counts.tolist() == [0, 3, 1, 1]
    assert after == pytest.approx([0.0, 1.1, -0.3, -0.8])
    counts, after = whole_counts(np.array([0.0, 0.4, 0.3, 0.3]), 2, credits)
    assert counts.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("total", [1, 7, 32, 64])
def test_each_step_is_within_1_of_its_quota_and_a_run_within_2(seed, total):
    rng = np.random.default_rng(seed)
    shares = rng.random(10) ** 3
    shares[rng.random(10) < 0.2] = 0.0
    shares /= shares.sum()
    credits, sums = np.zeros(10), np.zeros(10)
    for step in range(1, 801):
        counts, credits = whole_counts(shares, total, credits)
        assert counts.sum() == total
        assert np.abs(counts - shares * total).max() <= 1 + 1e-9
        assert not counts[shares == 0].any()
        sums += counts
        assert np.abs(sums - step * shares * total).max() < 2
        assert credits == pytest.approx(step * shares * total - sums, abs=1e-6)
    assert abs(credits.sum()) < 1e-9


def test_credits_stay_small_when_shares_move():
    rng = np.random.default_rng(0)
    credits, owed, sums = np.zeros(10), np.zeros(10), np.zeros(10)
    for _ in range(3000):
        shares = rng.dirichlet(np.full(10, 0.5))
        counts, credits = whole_counts(shares, 3, credits)
        owed, sums = owed + 3 * shares, sums + counts
        assert np.abs(owed - sums).max() < 3


def test_one_sample_a_step_among_ten_goes_round():
    scheduler = FixedShares({"group": {f"task{number}": 1000 for number in range(10)}})
    order = [next(t for t, count in scheduler.allocate({"group": 1}).items() if count) for _ in range(200)]
    assert order == [f"task{number}" for number in range(10)] * 20


@pytest.mark.parametrize("seed", range(40))
def test_allocations_sum_to_the_totals_and_draw_whole_epochs(seed):
    rng = random.Random(seed)
    groups = {
        group: {f"{group}{number}": rng.choice([1, 2, 5, 40, 3000]) for number in range(rng.choice([1, 2, 3, 10]))}
        for group in ("one", "two", "three")
    }
    names = [task for tasks in groups.values() for task in tasks]
    prior = {task: rng.choice([0, 1, 2.5]) for task in rng.sample(names, len(names) // 3)}
    prior |= {next(iter(tasks)): 1.0 for tasks in groups.values()}
    scheduler = SampleScheduler(groups, warmup=4, window=8, prior=prior, temperature=rng.choice([1.0, 3.0, math.inf]))
    drawn = dict.fromkeys(names, 0)
    for losses in random_history(rng, names, steps=40, rate=0.2):
        totals = {group: rng.choice([0, 1, 3, 50, 400]) for group in rng.sample(list(groups), 2)}
        counts = scheduler.allocate(totals)
        assert list(counts) == names
        assert all(type(count) is int and count >= 0 for count in counts.values())
        for group, tasks in groups.items():
            assert sum(counts[task] for task in tasks) == totals.get(group, 0)
            live = [task for task in tasks if prior.get(task, 1)]
            assert not any(counts[task] for task in tasks if task not in live)
            # A task begins an epoch inside a call only when no task of the group has a sample left.
            begun = [task for task in live if counts[task] > tasks[task] - drawn[task] % tasks[task]]
            assert not begun or all(counts[task] >= tasks[task] - drawn[task] % tasks[task] for task in live)
        drawn = {task: drawn[task] + counts[task] for task in names}
        assert scheduler.state_dict()["drawn"] == drawn
        scheduler.observe(losses)


# --- exhaustion


def test_an_exhausted_task_passes_its_share_on_and_then_begins_anew():
    scheduler = FixedShares(
        {"group": {"small": 5, "large": 100, "larger": 300}}, prior={"small": 2, "large": 1, "larger": 1}
    )
    assert scheduler.allocate({"group": 8}) == {"small": 4, "large": 2, "larger": 2}
    assert scheduler.allocate({"group": 8}) == {"small": 1, "large": 4, "larger": 3}
    assert scheduler.allocate({"group": 8}) == {"small": 4, "large": 2, "larger": 2}


def test_what_is_passed_on_goes_by_share_repeatedly():
    shares, capacity = np.array([0.5, 0.3, 0.1, 0.1]), np.array([100, 100, 100, 100])
    counts = np.array([50, 30, 10, 10])
    assert pass_on(counts, shares, np.array([50, 30, 10, 10]), capacity).tolist() == [50, 30, 10, 10]
    assert pass_on(counts, shares, np.array([0, 90, 90, 90]), capacity).tolist() == [0, 60, 20, 20]
    # 50 are passed on: 30 to the second, which has room for 5, and its 25 go on again.
    assert pass_on(counts, shares, np.array([0, 35, 90, 90]), capacity).tolist() == [0, 35, 33, 32]


def test_credits_are_not_owed_what_was_passed_on():
    scheduler = FixedShares({"group": {"small": 3, "large": 1000}}, temperature=math.inf)
    counts = [scheduler.allocate({"group": 4})["small"] for _ in range(9)]
    assert counts == [2, 1, 2, 1, 2, 1, 2, 1, 2]


def test_a_total_above_the_capacity_of_a_group_begins_epochs_at_once():
    scheduler = FixedShares({"group": {"a": 3, "b": 2}})
    assert scheduler.allocate({"group": 5}) == {"a": 3, "b": 2}
    counts = scheduler.allocate({"group": 23})
    assert sum(counts.values()) == 23
    assert 12 <= counts["a"] <= 15 and 8 <= counts["b"] <= 10
    assert scheduler.state_dict()["drawn"] == {
        task: 5 - 2 * (task == "a") - 3 * (task == "b") + n for task, n in counts.items()
    }


# --- what it knows


def test_it_knows_nothing_of_models():
    code = "import recfound_model.scheduling.scheduler, sys; print({'torch', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


# --- state


@pytest.mark.parametrize("cut", [0, 1, 4, 30, 64, 90])
def test_a_restored_scheduler_continues_bit_for_bit(cut):
    rng = random.Random(7)
    groups = {"one": {"a": 30, "b": 400, "c": 9}, "two": {f"d{number}": 50 * number + 3 for number in range(10)}}
    names = [task for tasks in groups.values() for task in tasks]
    observed = random_history(rng, names, steps=110, rate=0.1)

    def new():
        return SampleScheduler(groups, warmup=5, window=40, temperature=math.inf, cap=0.5, plateau=1e-4)

    def go_on(scheduler, steps):
        seen = []
        for losses in steps:
            seen.append((scheduler.allocate({"one": 8, "two": 5}), scheduler.shares, scheduler.slopes))
            scheduler.observe(losses)
        return seen

    whole = new()
    go_on(whole, observed[:cut])
    written = json.dumps(whole.state_dict(), allow_nan=False)
    other = new()
    go_on(other, observed[20:63])  # what it held before is gone
    other.load_state_dict(json.loads(written))
    assert json.dumps(other.state_dict()) == written
    assert other.shares == whole.shares
    assert go_on(other, observed[cut:]) == go_on(whole, observed[cut:])
    assert other.state_dict() == whole.state_dict()


def test_a_fixed_scheduler_is_restored_too():
    def new():
        return FixedShares({"group": {"a": 7, "b": 3, "c": 5}}, temperature=2.0)

    one, other = new(), new()
    for _ in range(5):
        one.allocate({"group": 4})
    other.load_state_dict(json.loads(json.dumps(one.state_dict(), allow_nan=False)))
    assert [one.allocate({"group": 4}) for _ in range(20)] == [other.allocate({"group": 4}) for _ in range(20)]


GROUPS = {"one": {"a": 30, "b": 400}, "two": {"c": 10}}


@pytest.mark.parametrize(
    ("other", "names"),
    [
        (SampleScheduler(GROUPS | {"two": {"c": 11}}), "groups"),
        (SampleScheduler(GROUPS | {"two": {"d": 10}}), "groups"),
        (SampleScheduler(GROUPS, window=32), "window 32"),
        (SampleScheduler(GROUPS, warmup=3), "warmup 3"),
        (SampleScheduler(GROUPS, tau=1.0), "tau 1.0"),
        (SampleScheduler(GROUPS, cap=0.7), "cap 0.7"),
        (SampleScheduler(GROUPS, plateau=0.1), "plateau 0.1"),
        (SampleScheduler(GROUPS, prior={"a": 2}), "prior"),
        (SampleScheduler(GROUPS, temperature=math.inf), "temperature infinity"),
        (FixedShares(GROUPS), "kind FixedShares"),
    ],
)
def test_a_state_of_other_settings_is_refused(other, names):
    scheduler = SampleScheduler(GROUPS)
    scheduler.observe({"a": 1.0})
    before = json.dumps(scheduler.state_dict())
    with pytest.raises(UsageError, match=names):
        scheduler.load_state_dict(other.state_dict())
    assert json.dumps(scheduler.state_dict()) == before


def test_what_is_no_state_is_refused():
    scheduler = SampleScheduler(GROUPS)
    with pytest.raises(UsageError, match="lacks settings, credits, drawn, step"):
        scheduler.load_state_dict({})
    state = scheduler.state_dict()
    del state["losses"]
    with pytest.raises(UsageError, match="lacks losses"):
        scheduler.load_state_dict(state)


# --- baselines


def test_baselines():
    groups = {"one": {"a": 900, "b": 100}, "two": {"c": 1, "d": 4, "e": 5}}
    expected = {"a": 0.9, "b": 0.1, "c": 0.1, "d": 0.4, "e": 0.5}
    assert FixedShares(groups).shares == pytest.approx(expected)
    uniform = {"a": 0.5, "b": 0.5, "c": 1 / 3, "d": 1 / 3, "e": 1 / 3}
    assert FixedShares(groups, temperature=math.inf).shares == pytest.approx(uniform)
    assert FixedShares(groups, temperature=2.0).shares["a"] == pytest.approx(0.75)
    assert FixedShares(groups, prior={"a": 1, "b": 3}).shares == pytest.approx(expected | {"a": 0.25, "b": 0.75})
    assert FixedShares(groups, prior={"a": 1, "b": 9}, temperature=2.0).shares["b"] == pytest.approx(0.75)
    assert FixedShares(groups, prior={"d": 0}).shares["e"] == pytest.approx(5 / 6)


def test_fixed_shares_do_not_move_and_ignore_losses():
    scheduler = FixedShares({"group": {"a": 70, "b": 30}})
    for step in range(100):
        scheduler.observe({"a": 1.0, "b": 2.0 + step})
        assert scheduler.allocate({"group": 10}) == {"a": 7, "b": 3}


def test_a_temperature_flattens_the_prior_of_the_adaptive_one():
    scheduler = SampleScheduler({"group": {"a": 900, "b": 100}}, temperature=2.0)
    assert scheduler.shares == pytest.approx({"a": 0.75, "b": 0.25})
    cold = SampleScheduler({"group": {"a": 900, "b": 899}}, temperature=1e-6)
    assert cold.shares == {"a": 1.0, "b": 0.0}
    assert cold.allocate({"group": 2000}) == {"a": 2000, "b": 0}


@pytest.mark.parametrize("temperature", [1.0, 5.0, math.inf])
def test_a_weight_of_0_is_never_drawn(temperature):
    groups = {"group": {"a": 5, "b": 5, "none": 5}}
    scheduler = SampleScheduler(groups, prior={"none": 0}, temperature=temperature, warmup=2)
    for step in range(30):
        assert scheduler.allocate({"group": 7})["none"] == 0
        scheduler.observe({"a": 1 - 0.01 * step, "b": 1.0, "none": 1.0 + step})
    # Its slope is not one of the group's: two tasks with the floor of two.
    assert scheduler.shares["b"] == pytest.approx(slow_softmax([2 * s for s in slow_softmax([-2.0, 0.0])])[1])


# --- what is refused


@pytest.mark.parametrize("loss", [NAN, math.inf, -math.inf, -0.1])
def test_a_loss_that_cannot_be_is_refused_and_nothing_of_the_step_is_taken(loss):
    scheduler = SampleScheduler(GROUPS)
    before = json.dumps(scheduler.state_dict())
    with pytest.raises(UsageError, match="losses: b: "):
        scheduler.observe({"a": 1.0, "b": loss})
    with pytest.raises(UsageError, match="unknown task 'x'"):
        scheduler.observe({"a": 1.0, "x": 1.0})
    assert json.dumps(scheduler.state_dict()) == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"groups": {"one": {"a": 1}, "two": {"a": 1}}}, "'a' is in two groups"),
        ({"groups": {"one": {"a": 0}}}, "'a' has 0 samples"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": NAN}, "temperature is nan"),
        ({"prior": {"x": 1.0}}, "prior: unknown task 'x'"),
        ({"prior": {"a": -1.0}}, "prior: a: -1.0"),
        ({"prior": {"a": math.inf}}, "prior: a: inf"),
        ({"warmup": -1}, "warmup is -1"),
        ({"window": 1}, "window is 1"),
        ({"tau": NAN}, "tau is nan"),
        ({"cap": 0.4}, "with 2 tasks, one needs one from 0.5 to 1"),
        ({"cap": 1.1}, "cap is 1.1"),
        ({"plateau": -1.0}, "plateau is -1.0"),
    ],
)
def test_settings_that_cannot_be(settings, words):
    with pytest.raises(UsageError, match=words):
        SampleScheduler(**({"groups": GROUPS} | settings))


@pytest.mark.parametrize(
    ("totals", "words"),
    [
        ({"three": 1}, "unknown group 'three'; the groups are one, two"),
        ({"one": 3, "two": -1}, "two: -1 is no number"),
        ({"one": 0.5}, "one: 0.5 is no number"),
        ({"one": 2, "two": 1}, "two: no task has a weight above 0"),
    ],
)
def test_totals_that_cannot_be(totals, words):
    scheduler = FixedShares(GROUPS, prior={"c": 0})
    before = scheduler.state_dict()
    with pytest.raises(UsageError, match=words):
        scheduler.allocate(totals)
    assert scheduler.state_dict() == before
    assert scheduler.allocate({"two": 0}) == {"a": 0, "b": 0, "c": 0}
