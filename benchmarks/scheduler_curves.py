"""How S2Sched splits a group on known loss curves, what its guards change, and how it ends beside fixed shares.

    python benchmarks/scheduler_curves.py --out docs/plots

Three parts: tasks whose losses do not depend on the split, one kind of curve at a time; a closed loop in which a task's
loss falls with the samples that it got; and the time that a step of the scheduler takes. The plots and the first two
tables are the same in every run.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.random import Generator

from recfound_data.plots import plot_style
from recfound_model.scheduling.allocation import bounded_shares
from recfound_model.scheduling.scheduler import FixedShares, SampleScheduler

Curve = Callable[[int], float]
Sizes = Mapping[str, Mapping[str, int]]

WARMUP, WINDOW = 60, 64
CAP, PLATEAU = 0.4, 3e-4
GUARDS: dict[str, dict[str, float]] = {
    "S2Sched": {},
    "with cap": {"cap": CAP},
    "with plateau": {"plateau": PLATEAU},
    "with both": {"cap": CAP, "plateau": PLATEAU},
}
COLOURS = ("#8fb3d4", "#c8702a", "#2f6a3b", "#8a1f5f")
PALE = "#9fb4c7"
# --- curves that do not depend on the split


@dataclass(frozen=True)
class Scenario:
    """A task x beside four that fall: its curve, the noise on all of them, and how often x is measured."""

    title: str
    curve: Curve
    noise: float = 0.0
    every: int = 1


def falling(scale: float, end: float = 0.4, start: float = 2.0) -> Curve:
    """Return an exponential fall."""
    return lambda step: end + (start - end) * math.exp(-step / scale)


TURN, STEPS, LAST = 250, 600, 100
OTHERS = {f"task{number}": falling(scale) for number, scale in enumerate((100.0, 150.0, 250.0, 400.0))}
SCENARIOS = [
    Scenario("falls slowly", falling(1500.0)),
    Scenario("falls fast", falling(60.0)),
    Scenario("stops after 100 steps", lambda step: falling(60.0)(min(step, 100))),
    Scenario("falls, then rises", lambda step: falling(150.0)(min(step, TURN)) + 0.002 * max(0, step - TURN)),
    Scenario("rises steadily", lambda step: 2.0 + 0.002 * step),
    Scenario("falls slowly, noisy losses", falling(1500.0), noise=0.1),
    Scenario("falls slowly, measured at every 16th step", falling(1500.0), every=16),
]


def shares_of_x(scenario: Scenario, guards: Mapping[str, float]) -> list[float]:
    """Return the share of x after each step; all tasks have the same prior."""
    random = np.random.default_rng(0)
    curves = {**OTHERS, "x": scenario.curve}
    scheduler = SampleScheduler({"group": dict.fromkeys(curves, 1000)}, warmup=WARMUP, window=WINDOW, **guards)
    found = []
    for step in range(STEPS):
        noise = dict(zip(curves, scenario.noise * random.standard_normal(len(curves)), strict=True))
        losses = {task: max(curve(step) + noise[task], 0.01) for task, curve in curves.items()}
        if step % scenario.every:
            del losses["x"]
        scheduler.observe(losses)
        found.append(scheduler.shares["x"])
    return found


def share_plot(shares: Mapping[str, Mapping[str, list[float]]]) -> Figure:
    """Draw each scenario's losses above the shares of x."""
    columns = 4
    rows = math.ceil(len(SCENARIOS) / columns)
    figure = Figure(figsize=(13, 4.2 * rows), layout="constrained")
    panels = figure.subplots(2 * rows, columns, sharex=True, gridspec_kw={"height_ratios": [2, 3] * rows})
    for panel in panels.flat[2 * rows * columns - columns :]:
        panel.set_xlabel("step")
    for place, scenario in enumerate(SCENARIOS):
        row, column = divmod(place, columns)
        _losses(panels[2 * row, column], scenario)
        _shares(panels[2 * row + 1, column], shares[scenario.title], scenario.noise > 0)
        if not column:
            panels[2 * row, column].set_ylabel("relative loss")
            panels[2 * row + 1, column].set_ylabel("share of x, %")
    for place in range(len(SCENARIOS), rows * columns):
        row, column = divmod(place, columns)
        for panel in panels[2 * row : 2 * row + 2, column]:
            panel.set_axis_off()
    (lines, names), (handles, labels) = (panels[row, 0].get_legend_handles_labels() for row in (0, 1))
    handles, labels = lines[-2:] + handles, names[-2:] + labels
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False)
    return figure


def _losses(axes: Axes, scenario: Scenario) -> None:
    steps = range(STEPS)
    for curve in OTHERS.values():
        axes.plot(
            steps, [curve(step) / curve(0) for step in steps], color=PALE, linewidth=1, label="loss of another task"
        )
    axes.plot(
        steps,
        [scenario.curve(step) / scenario.curve(0) for step in steps],
        color="black",
        linewidth=1.6,
        label="loss of x",
    )
    axes.set_title(f"x {scenario.title}")
    axes.set_ylim(0, 1.65)


def _shares(axes: Axes, shares: Mapping[str, list[float]], noisy: bool) -> None:
    widths, styles = (4.0, 1.5, 1.2, 1.8), ("-", "--", "-", ":")
    for (name, found), colour, width, style in zip(shares.items(), COLOURS, widths, styles, strict=True):
        if noisy and name != "S2Sched":
            continue  # four lines that jump hide one another
        percent = [100 * share for share in found]
        axes.plot(range(STEPS), percent, style, color=colour, linewidth=0.8 if noisy else width, label=name)
    axes.axhline(100 / (len(OTHERS) + 1), color="black", linewidth=0.8, linestyle=(0, (1, 3)), label="prior")
    axes.axvline(WARMUP, color=PALE, linewidth=0.8, label="end of warm-up")
    axes.set_ylim(0, 100)


def share_table(shares: Mapping[str, Mapping[str, list[float]]]) -> str:
    """Return the mean share of x in the last steps, and around the turn, as markdown."""
    rows = [[f"x {title}, last {LAST} steps"] + [_mean(found[-LAST:]) for found in all_of.values()]
            for title, all_of in shares.items()]  # fmt: skip
    turning = shares["falls, then rises"]
    for first, last in ((WINDOW // 2, WINDOW), (2 * WINDOW, 3 * WINDOW)):
        label = f"x falls, then rises: steps {first} to {last} after the turn"
        rows.append([label] + [_mean(found[TURN + first : TURN + last]) for found in turning.values()])
    jumps = [
        statistics.fmean(abs(now - before) for before, now in pairwise(found[WARMUP:]))
        for found in shares["falls slowly, noisy losses"].values()
    ]
    rows.append(["x falls slowly, noisy losses: change from step to step", *(f"{100 * jump:.1f}" for jump in jumps)])
    return _table(["share of x, %; its prior is 20", *GUARDS], rows)


def _mean(shares: list[float]) -> str:
    return f"{100 * statistics.fmean(shares):.1f}"


# --- the closed loop


@dataclass(frozen=True)
class Task:
    """A task whose loss is a power law of the samples that it got.

    Attributes:
        size: samples of an epoch.
        scale: samples after which the reducible part has fallen to 1 / 2 ** power.
        power: of the fall.
        end: the part of the loss that does not fall; 1 for a task that cannot be learned.
        overfit: rise an epoch after the third.
        drift: rise a step, whatever it gets.
    """

    size: int
    scale: float
    power: float
    end: float
    overfit: float
    drift: float = 0.0

    def loss(self, samples: int, step: int) -> float:
        """Return the loss, relative to the start."""
        fallen = self.end + (1 - self.end) * (1 + samples / self.scale) ** -self.power
        return fallen + self.overfit * max(0.0, samples / self.size - 3) + self.drift * step


def world(seed: int, troubled: bool) -> dict[str, Task]:
    """Return ten tasks; in a troubled world one of them drifts up and one cannot be learned."""
    random = np.random.default_rng(seed)
    tasks = {f"task{number}": _task(random) for number in range(10)}
    if troubled:
        tasks["task0"] = Task(5000, 1000.0, 0.5, 1.0, 0.0, drift=0.001)
        tasks["task1"] = Task(5000, 1000.0, 0.5, 1.0, 0.0)
    return tasks


def _task(random: Generator) -> Task:
    return Task(
        size=int(10 ** random.uniform(2.7, 4.7)),
        scale=10 ** random.uniform(2.0, 4.0),
        power=random.uniform(0.3, 1.0),
        end=random.uniform(0.1, 0.5),
        overfit=random.uniform(0.0, 0.05),
    )


def _floored(sizes: Mapping[str, int]) -> dict[str, float]:
    """Return the shares by size with S2Sched's floor: what it does where all slopes are equal."""
    shares = bounded_shares(np.array(list(sizes.values()), dtype=np.float64), 1 / (5 * len(sizes)), 1.0)
    return dict(zip(sizes, shares.tolist(), strict=True))


BATCH, RUN, SEEDS = 128, 300, 12
SPLITS: dict[str, Callable[[Sizes], FixedShares]] = {
    "proportional": FixedShares,
    "proportional with the floor": lambda groups: FixedShares(groups, prior=_floored(groups["group"])),
    "temperature 2": lambda groups: FixedShares(groups, temperature=2.0),
    "uniform": lambda groups: FixedShares(groups, temperature=math.inf),
    "S2Sched": lambda groups: SampleScheduler(groups, warmup=RUN // 10),
    "with cap": lambda groups: SampleScheduler(groups, warmup=RUN // 10, cap=CAP),
    "with plateau": lambda groups: SampleScheduler(groups, warmup=RUN // 10, plateau=PLATEAU),
    "with both": lambda groups: SampleScheduler(groups, warmup=RUN // 10, cap=CAP, plateau=PLATEAU),
    "S2Sched, uniform prior": lambda groups: SampleScheduler(groups, warmup=RUN // 10, temperature=math.inf),
}
SIGNALS = {"losses": (1, 0), "probe": (8, 128)}
"""Steps between measurements, and samples of each; 0 for those that the step drew."""


@dataclass(frozen=True)
class Outcome:
    """Relative losses at the end of a run, mean and worst of the tasks that can be learned, and samples given away."""

    mean: float
    worst: float
    wasted: float


def run(tasks: Mapping[str, Task], scheduler: FixedShares, signal: str, seed: int) -> Outcome:
    """Train in the closed loop; a loss that is measured on n samples has a noise of 0.3 / sqrt(n)."""
    random = np.random.default_rng((seed, 1))
    every, probed = SIGNALS[signal]
    got = dict.fromkeys(tasks, 0)
    for step in range(RUN):
        counts = scheduler.allocate({"group": BATCH})
        noise = dict(zip(tasks, 0.3 * random.standard_normal(len(tasks)), strict=True))
        losses = {}
        for task, count in counts.items():
            measured = probed or count
            if measured and step % every == 0:
                losses[task] = max(tasks[task].loss(got[task], step) + noise[task] / math.sqrt(measured), 0.01)
            got[task] += count
        scheduler.observe(losses)
    useful = [task for task in tasks if tasks[task].end < 1]
    ends = [tasks[task].loss(got[task], RUN) for task in useful]
    wasted = 1 - sum(got[task] for task in useful) / (RUN * BATCH)
    return Outcome(statistics.fmean(ends), max(ends), wasted)


def closed_loop() -> dict[tuple[str, str, str], list[Outcome]]:
    """Return the outcomes of all seeds by world, signal and split."""
    found: dict[tuple[str, str, str], list[Outcome]] = {}
    for kind in ("healthy", "troubled"):
        for signal in SIGNALS:
            for name, make in SPLITS.items():
                if signal == "probe" and not name.startswith(("S2Sched", "with")):
                    continue  # fixed shares see no signal
                outcomes = []
                for seed in range(SEEDS):
                    tasks = world(seed, kind == "troubled")
                    sizes = {"group": {task: found_task.size for task, found_task in tasks.items()}}
                    outcomes.append(run(tasks, make(sizes), signal, seed))
                found[kind, signal, name] = outcomes
    return found


def closed_table(outcomes: Mapping[tuple[str, str, str], list[Outcome]]) -> str:
    """Return the closed loop's figures as markdown; differences are paired by seed."""
    rows = []
    for (kind, signal, name), found in outcomes.items():
        base = outcomes[kind, "losses", "proportional"]
        difference, error = _paired(found, base)
        rows.append([
            kind, "" if not name.startswith(("S2Sched", "with")) else signal, name,
            f"{statistics.fmean(outcome.mean for outcome in found):.3f}",
            "" if found is base else f"{difference:+.3f} ± {error:.3f}",
            f"{statistics.fmean(outcome.worst for outcome in found):.3f}",
            f"{100 * statistics.fmean(outcome.wasted for outcome in found):.0f}" if kind == "troubled" else "",
        ])  # fmt: skip
    head = ["world", "signal", "split", "mean loss", "beside proportional", "worst task", "given to the two, %"]
    return _table(head, rows)


def _paired(found: list[Outcome], base: list[Outcome]) -> tuple[float, float]:
    """Return the mean difference of the mean losses and its standard error."""
    differences = [outcome.mean - other.mean for outcome, other in zip(found, base, strict=True)]
    return statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(len(differences))


def closed_plot(outcomes: Mapping[tuple[str, str, str], list[Outcome]]) -> Figure:
    """Draw each split's difference to the proportional one, a panel a world."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    names = [name for name in SPLITS if name != "proportional"]
    panels = figure.subplots(1, 2, sharey=True, sharex=True)
    for axes, kind in zip(panels, ("healthy", "troubled"), strict=True):
        base = outcomes[kind, "losses", "proportional"]
        for place, signal in enumerate(SIGNALS):
            shown = [
                (at, outcomes[kind, signal, name]) for at, name in enumerate(names) if (kind, signal, name) in outcomes
            ]
            pairs = [_paired(found, base) for _, found in shown]
            axes.errorbar(
                [difference for difference, _ in pairs],
                [at + 0.24 * place - 0.12 for at, _ in shown],
                xerr=[error for _, error in pairs],
                fmt="os"[place],
                color=("#1f4e79", "#c8702a")[place],
                label="training losses, or no signal" if signal == "losses" else "probe every 8 steps",
            )
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_title("all tasks can be learned" if kind == "healthy" else "one of ten drifts up, one is unlearnable")
        axes.set_xlabel("mean final loss less that of the\nproportional split; left is better")
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)
    return figure


# --- the cost of a step


def cost() -> str:
    """Return what a step of thirteen tasks takes, as a sentence: median and 99th percentile."""
    groups = {"embedding": {f"e{number}": 4000 for number in range(3)},
              "generative": {f"g{number}": 900 for number in range(10)}}  # fmt: skip
    scheduler = SampleScheduler(groups)
    random = np.random.default_rng(0)
    taken = []
    for step in range(2000):
        tasks = [task for found in groups.values() for task in found]
        losses = dict(zip(tasks, (2 * math.exp(-step / 500) + 0.1 * random.random(len(tasks))).tolist(), strict=True))
        started = time.perf_counter()
        scheduler.observe(losses)
        scheduler.allocate({"embedding": 64, "generative": 32})
        taken.append(1000 * (time.perf_counter() - started))
    taken = sorted(taken[200:])
    return (f"A step (observe + allocate, 13 tasks, window 64): median {statistics.median(taken):.2f} ms, "
            f"99th percentile {taken[int(0.99 * len(taken))]:.2f} ms")  # fmt: skip


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _write(figure: Figure, path: Path) -> None:
    # The version of matplotlib is left out of the file.
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})


def main() -> None:
    """Write the plots into a folder and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the plots' folder")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    shares = {
        scenario.title: {name: shares_of_x(scenario, guards) for name, guards in GUARDS.items()}
        for scenario in SCENARIOS
    }
    outcomes = closed_loop()
    with plot_style():
        _write(share_plot(shares), out / "scheduler-shares.png")
        _write(closed_plot(outcomes), out / "scheduler-closed-loop.png")
    print(f"{share_table(shares)}\n\n{closed_table(outcomes)}\n\n{cost()}")


if __name__ == "__main__":
    main()
