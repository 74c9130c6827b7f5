"""Draw what a description says, as PNG: the same description gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from recfound_data.describe import Description, Labels, Quantiles
from recfound_data.samples import SPLITS
from recfound_data.tasks.catalogue import TASKS

_COLOURS = ("#1f4e79", "#c8702a", "#4f8a5b", "#8a5a8f")
_PALE = "#9fb4c7"
_WIDTH = 8.0
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "figure.dpi": 110,
}
"""How all plots of this project look."""


@contextmanager
def plot_style(changes: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Draw in the block with the project's settings: a user's own matplotlibrc must not change the bytes.

    Args:
        changes: settings that take the place of some in `STYLE`.
    """
    with rc_context():
        rcdefaults()
        settings: dict[Any, Any] = {**STYLE, **(changes or {})}
        rcParams.update(settings)
        yield


def write_plots(description: Description, folder: Path) -> list[Path]:
    """Write the plots that a description has something for, and return their paths.

    Args:
        description: of a dataset.
        folder: to write in; it is made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[Path] = []
    with plot_style():
        for name, draw in PLOTS.items():
            figure = draw(description)
            if figure is not None:
                path = folder / f"{name}.png"
                # The version of matplotlib is left out of the file.
                FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})
                drawn.append(path)
    return drawn


def _rows(description: Description) -> Figure | None:
    tasks = [task for task in TASKS if any(found.config == task for found in description.rows)]
    if not tasks:
        return None
    figure, axes = _figure(len(tasks))
    for place, split in enumerate(SPLITS):
        counts = [
            sum(found.rows for found in description.rows if (found.config, found.split) == (task, split))
            for task in tasks
        ]
        at = [row + (place - 1) * 0.26 for row in range(len(tasks))]
        axes.barh(at, counts, height=0.24, color=_COLOURS[place], label=split)
        for y, count in zip(at, counts, strict=True):
            if count:
                axes.annotate(f"{count:,}", (count, y), (3, 0), textcoords="offset points", va="center", fontsize=7)
    _log_scale(axes)
    axes.set_xlim(0.8, axes.get_xlim()[1] * 3)
    _named(axes, tasks, "samples")
    _split_key(figure)
    return figure


def _lengths(description: Description) -> Figure | None:
    train = [found for found in description.lengths if found.split == SPLITS[0]]
    if not train:
        return None
    figure, axes = _figure(len(train), each=0.27)
    names = []
    for place, found in enumerate(train):
        _range(axes, place, found.tokens, _COLOURS[0] if found.text in ("anchor", "prompt") else _COLOURS[1])
        names.append(f"{found.task}: {found.text}")
    _log_scale(axes)
    _named(axes, names, "tokens in training samples (words and punctuation marks)")
    _legend(figure, _range_key([("given to the model", _COLOURS[0]), ("to be found or written", _COLOURS[1])]))
    return figure


def _histories(description: Description) -> Figure | None:
    found = [entry for entry in description.numbers if entry.what == "choices"]
    if not found:
        return None
    figure = Figure(figsize=(_WIDTH, 3.0), layout="constrained")
    axes = figure.subplots()
    for entry in found:
        place = SPLITS.index(entry.split)
        lengths = [int(number) + (place - 1) * 0.27 for number in entry.counts]
        axes.bar(lengths, [100 * rows / entry.sampled for rows in entry.counts.values()], 0.25, color=_COLOURS[place])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=20))
    axes.set_xlabel("choices that a history shows")
    axes.set_ylabel("share of samples, %")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    _split_key(figure)
    return figure


def _labels(description: Description) -> Figure | None:
    tasks = [task for task in TASKS if any(found.task == task for found in description.labels)]
    if not tasks:
        return None
    sizes = [max(len(found.rows) for found in description.labels if found.task == task) for task in tasks]
    figure = Figure(
        figsize=(_WIDTH, 0.8 + sum(0.35 + 0.24 * size for size in sizes) + 0.4 * len(tasks)), layout="constrained"
    )
    panels = figure.subplots(len(tasks), 1, squeeze=False, gridspec_kw={"height_ratios": [size + 1 for size in sizes]})
    for axes, task in zip(panels[:, 0], tasks, strict=True):
        _label_panel(axes, task, [found for found in description.labels if found.task == task])
    panels[-1, 0].set_xlabel("share of the split's samples, %")
    _split_key(figure)
    return figure


def _label_panel(axes: Axes, task: str, splits: Sequence[Labels]) -> None:
    labels = list(dict.fromkeys(label for found in splits for label in found.rows))
    if all(len(label) == 1 for label in labels):
        labels.sort()  # letters, of which a small split may lack some
    for place, split in enumerate(SPLITS):
        rows = next((found.rows for found in splits if found.split == split), {})
        total = sum(rows.values()) or 1
        at = [row + (place - 1) * 0.26 for row in range(len(labels))]
        axes.barh(at, [100 * rows.get(label, 0) / total for label in labels], height=0.24, color=_COLOURS[place])
    _named(axes, labels, "")
    axes.set_title(task)


def _popularity(description: Description) -> Figure | None:
    tasks = list(dict.fromkeys(found.task for found in description.popularity))
    if not tasks:
        return None
    figure = Figure(figsize=(_WIDTH, 3.5), layout="constrained")
    panels = figure.subplots(1, len(tasks), squeeze=False, sharey=True)[0]
    for axes, task in zip(panels, tasks, strict=True):
        for found in (entry for entry in description.popularity if entry.task == task):
            place = SPLITS.index(found.split)
            at = [tenth + (place - 1) * 0.27 for tenth in (*range(1, 11), 12)]
            shares = [100 * share for share in (*found.tenths, found.unseen)]
            axes.bar(at, shares, width=0.25, color=_COLOURS[place])
        gini = next((f"\nGini of training {found.gini:.2f}" for found in description.popularity
                     if (found.task, found.split) == (task, SPLITS[0])), "")  # fmt: skip
        axes.set_title(task + gini)
        axes.set_xticks([*range(1, 11), 12], [*map(str, range(1, 11)), "not\nseen"])
        axes.set_xlabel("tenth of the items seen in training,\nmost popular first")
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    panels[0].set_ylabel("share of positives, %")
    _split_key(figure)
    return figure


PLOTS: dict[str, Callable[[Description], Figure | None]] = {
    "rows": _rows,
    "lengths": _lengths,
    "labels": _labels,
    "popularity": _popularity,
    "histories": _histories,
}
"""What draws each plot, by the name of its file; None where a dataset has nothing to draw."""


def _figure(rows: int, each: float = 0.45) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, 1.1 + each * max(rows, 2)), layout="constrained")
    return figure, figure.subplots()


def _log_scale(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else ""))


def _range(axes: Axes, place: int, found: Quantiles, colour: str) -> None:
    """Draw 5 % to 95 % as a bar, half as a dot, the most as a line's end."""
    axes.plot([found.high, found.most], [place, place], color=_PALE, linewidth=1, zorder=1)
    axes.plot([found.most], [place], marker="|", color=_PALE, markersize=7, zorder=1)
    axes.plot([max(found.low, 1), max(found.high, 1)], [place, place], color=colour, linewidth=6, alpha=0.55,
              solid_capstyle="butt", zorder=2)  # fmt: skip
    axes.plot([max(found.median, 1)], [place], marker="o", color=colour, markersize=5, zorder=3)
    axes.annotate(f"{found.median:,}", (max(found.median, 1), place), (0, 4), textcoords="offset points", ha="center",
                  va="bottom", fontsize=6.5)  # fmt: skip


def _range_key(colours: Sequence[tuple[str, str]]) -> list[Line2D | Patch]:
    key: list[Line2D | Patch] = [Patch(color=colour, alpha=0.55, label=label) for label, colour in colours]
    return [
        *key,
        Line2D([], [], marker="o", linestyle="", color="black", markersize=5, label="median"),
        Line2D([], [], linewidth=6, color="black", alpha=0.3, label="5 % to 95 %"),
        Line2D([], [], linewidth=1, marker="|", markersize=7, color=_PALE, label="longest"),
    ]


def _named(axes: Axes, names: Sequence[str], what: str) -> None:
    axes.set_yticks(range(len(names)), [name if len(name) <= 48 else f"{name[:47]}…" for name in names])
    axes.set_ylim(len(names) - 0.4, -0.7)
    axes.set_xlabel(what)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)


def _split_key(figure: Figure) -> None:
    _legend(figure, [Patch(color=_COLOURS[place], label=split) for place, split in enumerate(SPLITS)])


def _legend(figure: Figure, handles: Sequence[Line2D | Patch]) -> None:
    figure.legend(handles=list(handles), loc="outside upper right", ncols=len(handles), frameon=False, fontsize=8)
