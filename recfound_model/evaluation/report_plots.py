"""Values with their intervals, drawn for the report's page; narrow, so that a phone shows them in full size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from recfound_data.plots import plot_style
from recfound_model.evaluation.intervals import Interval
from recfound_model.plots import png

_COLOURS = ("#1f4e79", "#c8702a", "#4f8a5b", "#8a5a8f", "#b0a030", "#777777")
_MARKERS = ("o", "s", "D", "^", "v", "P")
_STYLE = {"font.size": 8, "axes.titlesize": 8, "figure.dpi": 200}
_WIDTH = 4.2
_MODEL = 60


@dataclass(frozen=True)
class Row:
    """A named row of a plot: an interval for each model, None where it has none."""

    name: str
    intervals: Sequence[Interval | None]


def interval_plot(rows: Sequence[Row], models: Sequence[str], metric: str | None = None) -> bytes:
    """Return a PNG with a line a row: each model's value as a mark, its 95 % interval as a bar.

    Args:
        rows: from the top down.
        models: what the intervals of each row are of; they are named where there are several.
        metric: what the values are; None where rows are of different metrics.
    """
    gap = min(0.22, 0.7 / len(models))
    inches = 0.55 + len(rows) * max(0.19, 0.1 * len(models)) + (0.17 * len(models) if len(models) > 1 else 0)
    with plot_style(_STYLE):
        figure = Figure(figsize=(_WIDTH, inches), layout="constrained")
        axes = figure.subplots()
        for place, name in enumerate(models):
            found = [(at, row.intervals[place]) for at, row in enumerate(rows)]
            drawn = [(at + (place - (len(models) - 1) / 2) * gap, one) for at, one in found if one is not None]
            heights, values = [at for at, _ in drawn], [one.value for _, one in drawn]
            colour = _COLOURS[place % len(_COLOURS)]
            axes.hlines(heights, [one.low for _, one in drawn], [one.high for _, one in drawn], color=colour, alpha=0.5,
                        linewidth=2.5)  # fmt: skip
            axes.plot(values, heights, linestyle="", marker=_MARKERS[place % len(_MARKERS)], markersize=4, color=colour,
                      label=_end(name), clip_on=False, zorder=3)  # fmt: skip
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, max(0.1, axes.get_xlim()[1]))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.set_xlabel(metric or "each task's own metric")
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        if len(models) > 1:
            figure.legend(loc="outside upper left", frameon=False, fontsize=7)
        return png(figure)


def _end(name: str) -> str:
    """Shorten a model's name from its beginning: the end of a path tells more."""
    return name if len(name) <= _MODEL else f"…{name[1 - _MODEL :]}"
