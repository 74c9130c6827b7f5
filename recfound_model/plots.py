"""Draw a training run, as PNG: losses, shares of samples, gates. The same run gives the same bytes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from recfound_data.errors import RecfoundError
from recfound_data.plots import plot_style
from recfound_data.progress import say
from recfound_data.tasks.catalogue import TASKS
from recfound_model.routing import GROUPS
from recfound_model.run_history import OTHER, RunHistory, StepRecord, read_history

_MEASURES = {"embedding": "contrastive loss, nats a pair", "generative": "cross entropy, nats a token"}
_COLOURS = {"embedding": "#1f4e79", "generative": "#c8702a", OTHER: "#4f8a5b"}
# Paul Tol's "muted" scheme, which people with any colour vision can tell apart, in an order that sets light by dark.
_BANDS = ("#332288", "#88CCEE", "#117733", "#DDCC77", "#882255", "#44AA99", "#CC6677", "#999933", "#AA4499", "#BBBBBB")
_MARKERS = {"validation": "D", "probe": "o"}
_MARKED: dict[str, Any] = {"color": "black", "markersize": 3.5, "markerfacecolor": "white", "markeredgewidth": 0.9}
_WIDTH = 8.0
_COLUMNS = 4
_SMALL = {"font.size": 8, "axes.titlesize": 8}

Floats = NDArray[np.float64]


def plot_run(run: str | Path) -> list[Path]:
    """Draw a run, finished or not, into `run/plots`, and return the files; without an adapter, gates are left out.

    Raises:
        RecfoundError: metrics or adapter are missing or damaged, or the plots cannot be written.
        UsageError: the run's recipe is damaged.
    """
    run = Path(run)
    history = read_history(run)
    drawn = {}
    with plot_style(_SMALL):
        for name, draw in PLOTS.items():
            figure = draw(history)
            if figure is None:
                say(f"{run}: has neither adapter nor checkpoint: {name}.png is left out")
                continue
            drawn[name] = png(figure)
    return _written(run / "plots", drawn)


def gate_similarity(g: Tensor) -> Tensor:
    """Cosine similarity of the gates of every two tasks, averaged over layers (RecFound, arXiv 2506.11999, figure 2).

    Args:
        g: [layers, tasks, experts] gates, 0 where a task must not use an expert.

    Returns:
        [tasks, tasks]; 1 where two tasks mix the experts alike, 0 where they share none.
    """
    unit = g / g.norm(dim=-1, keepdim=True)
    return (unit @ unit.transpose(-1, -2)).mean(0)


def running_median(values: Floats, window: int) -> Floats:
    """The median of each value and its neighbours.

    Args:
        values: [measurements].
        window: how many values a median is of, half of them on each side; fewer at the ends.

    Returns:
        [measurements].
    """
    half = window // 2
    return np.array([np.median(values[max(0, at - half) : at + half + 1]) for at in range(len(values))])


def windowed_shares(counts: Floats, window: int) -> Floats:
    """The share of each task in the samples of a step and its neighbours.

    Args:
        counts: [steps, tasks] samples.
        window: steps that a share is of, half of them on each side; fewer at the ends.

    Returns:
        [steps, tasks]; rows sum to 1, or are nan where the window holds no sample.
    """
    half = window // 2
    sums = np.array([counts[max(0, at - half) : at + half + 1].sum(0) for at in range(len(counts))])
    with np.errstate(invalid="ignore"):
        shares: Floats = sums / sums.sum(1, keepdims=True)
    return shares


def spread_labels(wanted: Floats, gap: float) -> Floats:
    """Places at least `gap` apart, as near to the wanted ones as pushing up, then down from 1, leaves them.

    Args:
        wanted: [labels], ascending, in [0, 1].
        gap: the least distance of two.

    Returns:
        [labels], ascending; below 0 only where `gap` leaves no other place.
    """
    places = wanted.copy()
    for at in range(1, len(places)):
        places[at] = max(places[at], places[at - 1] + gap)
    places[-1:] = np.minimum(places[-1:], 1)
    for at in range(len(places) - 2, -1, -1):
        places[at] = min(places[at], places[at + 1] - gap)
    return places


def _written(folder: Path, images: Mapping[str, bytes]) -> list[Path]:
    """Write images, each whole or not at all, and remove one of an earlier time that is not drawn now."""
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in PLOTS:
            path = folder / f"{name}.png"
            if name not in images:
                path.unlink(missing_ok=True)
                continue
            partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
            try:
                partial.write_bytes(images[name])
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
            paths.append(path)
    except OSError as error:
        raise RecfoundError(f"{folder}: cannot be written: {error.strerror or error}") from None
    return paths


def _losses(history: RunHistory) -> Figure:
    kinds = list(dict.fromkeys(history.kinds.values()))
    rows = [math.ceil(len(history.of_kind(kind)) / _COLUMNS) for kind in kinds]
    figure = Figure(figsize=(_WIDTH, 0.4 + 0.25 * len(rows) + 1.35 * sum(rows)), layout="constrained")
    panels = figure.subplots(sum(rows), _COLUMNS, squeeze=False, sharex=True)
    for place, kind in enumerate(kinds):
        _loss_panels(panels[sum(rows[:place]) : sum(rows[: place + 1])], history, kind)
    figure.supxlabel("step", fontsize=8)
    handles = [
        Line2D([], [], color="black", alpha=0.3, linewidth=0.8, label="training, each step"),
        Line2D([], [], color="black", linewidth=1.6, label="running median, first → last"),
    ]
    for label, marker in _MARKERS.items():
        if any(getattr(record, label) for record in history.steps):
            handles.append(Line2D([], [], linestyle="", marker=marker, label=label, **_MARKED))
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), frameon=False)
    return figure


def _loss_panels(panels: NDArray[Any], history: RunHistory, kind: str) -> None:
    """Draw the losses of the tasks of one kind into rows of panels, and a heading above the first."""
    tasks = history.of_kind(kind)
    for place, axes in enumerate(panels.flat):
        if place < len(tasks):
            _loss_panel(axes, history.steps, tasks[place], _COLOURS[kind])
            # An empty line, in all panels of the row, makes room for the heading.
            name = _cut(tasks[place], 27)
            axes.set_title(f"\n{name}" if place < _COLUMNS else name, fontsize=7.5)
        else:
            axes.set_visible(False)
    heading = panels[0, 0].annotate(
        f"{kind} tasks: {_MEASURES.get(kind, 'loss')}", (0, 1), (0, 17), xycoords="axes fraction",
        textcoords="offset points", fontsize=9, fontweight="bold", annotation_clip=False,
    )  # fmt: skip
    heading.set_in_layout(False)


def _loss_panel(axes: Axes, records: Sequence[StepRecord], task: str, colour: str) -> None:
    steps, losses = _measured(records, "losses", task)
    # Few points are also shown as such: a line needs two of them.
    axes.plot(steps, losses, color=colour, alpha=0.35, linewidth=0.8, marker="." if len(steps) < 30 else "", ms=3)
    if len(steps):
        smooth = running_median(losses, max(5, len(steps) // 12))
        axes.plot(steps, smooth, color=colour, linewidth=1.6)
        axes.text(0.98, 0.97, f"{smooth[0]:.2f} → {smooth[-1]:.2f}", transform=axes.transAxes, ha="right", va="top",
                  fontsize=7, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})  # fmt: skip
    for name, marker in _MARKERS.items():
        axes.plot(*_measured(records, name, task), linestyle="", marker=marker, **_MARKED)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.tick_params(labelbottom=True)
    axes.grid(alpha=0.3)


def _measured(records: Sequence[StepRecord], name: str, task: str) -> tuple[Floats, Floats]:
    """Return the steps in which a task's loss was measured, and the losses."""
    found = [(record.step, getattr(record, name)[task]) for record in records if task in getattr(record, name)]
    steps, losses = np.array(found, dtype=np.float64).reshape(-1, 2).T
    return steps, losses


def _shares(history: RunHistory) -> Figure:
    groups = {kind: _drawn(history, kind) for kind in dict.fromkeys(history.kinds.values())}
    # The first task on top: bands are stacked from below.
    groups = {kind: tasks[::-1] for kind, tasks in groups.items() if tasks}
    heights = [max(1.7, 0.6 + 0.19 * len(tasks)) for tasks in groups.values()]
    figure = Figure(figsize=(_WIDTH, 0.4 + sum(heights)), layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False, sharex=True, height_ratios=heights)
    for axes, (kind, tasks) in zip(panels[:, 0], groups.items(), strict=True):
        _share_panel(axes, history, kind, tasks)
    panels[-1, 0].set_xlabel("step")
    return figure


def _drawn(history: RunHistory, kind: str) -> list[str]:
    return [task for task in history.of_kind(kind) if any(record.samples.get(task) for record in history.steps)]


def _share_panel(axes: Axes, history: RunHistory, kind: str, tasks: Sequence[str]) -> None:
    counts = np.array([[record.samples.get(task, 0) for task in tasks] for record in history.steps], dtype=np.float64)
    steps = np.array([record.step for record in history.steps], dtype=np.float64)
    window = max(5, len(steps) // 30)
    colours = [_BANDS[place % len(_BANDS)] for place in range(len(tasks))]
    found: list[Floats] = []
    for stretch in _stretches(steps, history.warmup):
        shares = windowed_shares(counts[stretch], window)
        # Each step reaches half a step to both sides: a stretch of one step is seen too.
        x = np.concatenate([steps[stretch][:1] - 0.5, steps[stretch], steps[stretch][-1:] + 0.5])
        y = np.concatenate([shares[:1], shares, shares[-1:]])
        axes.stackplot(x, 100 * y.T, colors=colours, edgecolor="white", linewidth=0.5)
        found += [row for row in shares if not np.isnan(row).any()]
    title = f"{kind} tasks: mean of {min(window, len(steps))} steps, first → last"
    if history.warmup and steps[0] <= history.warmup < steps[-1]:
        axes.axvline(history.warmup + 0.5, color="black", linewidth=1, linestyle="--")
        title += "; dashed: the warm-up ends"
    axes.set_title(title, fontweight="bold")
    axes.set_ylabel("share of samples, %")
    axes.set_xlim(steps[0] - 0.5, steps[-1] + 0.5)
    axes.set_ylim(0, 100)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _name_bands(axes, tasks, colours, found[0], found[-1])


def _stretches(steps: Floats, warmup: int | None) -> Iterator[NDArray[np.bool_]]:
    """Yield the steps of the warm-up and those after it: no share is of both."""
    warm = steps <= (warmup or 0)
    yield from (chosen for chosen in (warm, ~warm) if chosen.any())


def _name_bands(axes: Axes, tasks: Sequence[str], colours: Sequence[str], first: Floats, last: Floats) -> None:
    """Name each band beside its end, with its first and last share."""
    middles = np.cumsum(last) - last / 2
    places = spread_labels(middles, min(0.12, 0.8 / len(tasks)))
    for task, colour, before, share, middle, place in zip(tasks, colours, first, last, middles, places, strict=True):
        axes.annotate(
            f"{_cut(task, 27)}  {100 * before:.0f} → {100 * share:.0f} %",
            xy=(1, middle),
            xytext=(1.05, place),
            xycoords="axes fraction",
            va="center",
            fontsize=7,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 2, "shrinkA": 1, "shrinkB": 0,
                        "relpos": (0, 0.5)},
        )  # fmt: skip


def _gates(history: RunHistory) -> Figure | None:
    found = history.gates
    if found is None:
        return None
    tasks, kinds = list(found.kinds), list(found.kinds.values())
    groups = [group for group in GROUPS for _ in range(found.experts[group])]
    experts = [f"{group} {number + 1}" for group in GROUPS for number in range(found.experts[group])]
    short, names = short_names(tasks), long_names(tasks)
    cell = 0.28
    width = max(_WIDTH, 2.7 + cell * (len(tasks) + len(experts)))
    figure = Figure(figsize=(width, 1.5 + cell * max(len(tasks), 3)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[max(len(tasks), 4), max(len(experts), 4)], sharey=True)
    similar, mean = gate_similarity(found.values).numpy(), found.values.mean(0).numpy()
    heat_map(left, similar, short, "cosine similarity of gates", borders(kinds), borders(kinds))
    heat_map(right, mean, experts, "mean gate", borders(groups), borders(kinds))
    left.set_yticks(range(len(tasks)), names)
    right.tick_params(labelleft=False)
    title = f"Gates in {found.source}: means over {len(found.values)} adapted layers"
    figure.suptitle(title, x=0.01, ha="left", fontsize=9, fontweight="bold")
    return figure


PLOTS: dict[str, Callable[[RunHistory], Figure | None]] = {"losses": _losses, "shares": _shares, "gates": _gates}
"""What draws each plot, by the name of its file; None where a run has nothing to draw."""


def short_names(tasks: Sequence[str]) -> list[str]:
    """Return what tasks are called above columns: their abbreviations, or the beginnings of own names."""
    return [TASKS[task].abbreviation if task in TASKS else _cut(task, 13) for task in tasks]


def long_names(tasks: Sequence[str]) -> list[str]:
    """Return what tasks are called beside rows: name and abbreviation, or the beginnings of own names."""
    return [f"{task} · {TASKS[task].abbreviation}" if task in TASKS else _cut(task, 32) for task in tasks]


def png(figure: Figure) -> bytes:
    """Return a figure's image; the same figure gives the same bytes."""
    image = BytesIO()
    # The version of matplotlib is left out of the file.
    FigureCanvasAgg(figure).print_png(image, metadata={"Software": None})
    return image.getvalue()


def _cut(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def borders(names: Sequence[str]) -> list[int]:
    """Return the places where a name differs from the one before it."""
    return [place for place in range(1, len(names)) if names[place] != names[place - 1]]


def heat_map(
    axes: Axes, values: NDArray[Any], columns: Sequence[str], title: str, down: Sequence[int], across: Sequence[int]
) -> None:
    """Draw values with a number in each cell, and lines where kinds or groups change.

    Args:
        axes: to draw in.
        values: [rows, columns]; where some are below 0, colours tell their signs.
        columns: their names.
        title: of the axes.
        down: columns that a line stands before.
        across: rows that a line stands above.
    """
    most = np.abs(values).max()
    signed = bool((values < 0).any())
    axes.imshow(values, cmap="RdBu" if signed else "Blues", vmin=-most if signed else 0, vmax=most, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if abs(value) > 0.55 * most else "black"
        text = f"{value:.2f}" if value else "–"
        axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color=colour)
    for place in down:
        axes.axvline(place - 0.5, color="black", linewidth=1)
    for place in across:
        axes.axhline(place - 0.5, color="black", linewidth=1)
    axes.set_xticks(range(len(columns)), columns, rotation=90)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
