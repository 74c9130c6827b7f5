"""The plots of an inspection, as PNG: the same inspection gives the same bytes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recfound_data.plots import plot_style
from recfound_model.inspecting.inspection import Inspection
from recfound_model.plots import borders, heat_map, long_names, png, short_names

_STYLE = {"font.size": 8, "axes.titlesize": 8}
_WIDTH = 8.0
_TICKS = 10
_LEAST = 1e-5
_COLOURS = ("#332288", "#117733", "#CC6677", "#882255", "#44AA99", "#999933", "#88CCEE", "#DDCC77")
_LINES = {"query": "-", "document": "--"}


def draw(inspection: Inspection) -> dict[str, bytes]:
    """Return the images by the names of their files; spectra only where there are some."""
    figures = {"gates": _gates, "similarity": _similarity, "norms": _norms}
    if inspection.spectra:
        figures["spectra"] = _spectra
    with plot_style(_STYLE):
        return {name: png(figure(inspection)) for name, figure in figures.items()}


def _gates(found: Inspection) -> Figure:
    """Draw a panel a task: rows are the experts that it may use, columns the layers."""
    rows = math.ceil(len(found.kinds) / 2)
    experts = [group for group, count in found.groups.items() for _ in range(count)]
    seen = [[at for at, group in enumerate(experts) if group in (kind, "shared")] for kind in found.kinds.values()]
    height = 0.32 + 0.13 * max(map(len, seen))
    figure = Figure(figsize=(_WIDTH, 0.9 + rows * height), layout="constrained")
    panels = figure.subplots(rows, 2, squeeze=False, sharex=True)
    most, image = float(found.gates.max()), None
    for place, axes in enumerate(panels.flat):
        if place >= len(found.kinds):
            axes.set_visible(False)
            continue
        own = seen[place]
        image = axes.imshow(found.gates[:, place, own].T.numpy(), cmap="viridis", vmin=0, vmax=most, aspect="auto",
                            interpolation="nearest")  # fmt: skip
        names = [experts[at] for at in own]
        _group_rows(axes, names)
        axes.set_title(long_names(list(found.kinds))[place])
        _layer_ticks(axes, found.layers)
    # The panel above an empty place is the last of its column.
    for column in range(2):
        last = [axes for axes in panels[:, column] if axes.get_visible()][-1:]
        for axes in last:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("layer", labelpad=1)
    assert image is not None, "an adapter has tasks"
    figure.colorbar(image, ax=panels, location="right", fraction=0.03, aspect=40, label="gate")
    return figure


def _group_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name each group beside the middle of its rows, and draw a line where the next begins."""
    groups = list(dict.fromkeys(names))
    middles = [float(np.mean([at for at, name in enumerate(names) if name == group])) for group in groups]
    axes.set_yticks(middles, groups, fontsize=6.5)
    axes.tick_params(length=0)
    for place in borders(names):
        axes.axhline(place - 0.5, color="white", linewidth=1)


def _layer_ticks(axes: Axes, layers: Sequence[str]) -> None:
    """Number the columns by the blocks of the model that the layers lie in, where their names hold numbers."""
    numbers = [re.search(r"\.(\d+)\.", layer) for layer in layers]
    blocks = [number[1] if number else "" for number in numbers]
    starts = [0, *borders(blocks)]
    starts = starts[:: math.ceil(len(starts) / _TICKS)]
    axes.set_xticks([start - 0.5 for start in starts], [blocks[start] for start in starts], ha="left")


def _similarity(found: Inspection) -> Figure:
    tasks, kinds = list(found.kinds), list(found.kinds.values())
    short, cell = short_names(tasks), 0.31
    figure = Figure(figsize=(max(_WIDTH, 2.4 + 2 * cell * len(tasks)), 0.9 + cell * max(len(tasks), 3)),
                    layout="constrained")  # fmt: skip
    left, right = figure.subplots(1, 2, sharey=True)
    edges = borders(kinds)
    heat_map(left, found.gate_similarity.numpy(), short, "cosine of gates, mean over layers", edges, edges)
    heat_map(right, found.embedding_similarity.numpy(), short, "cosine of task embeddings", edges, edges)
    left.set_yticks(range(len(tasks)), long_names(tasks))
    right.tick_params(labelleft=False)
    return figure


def _norms(found: Inspection) -> Figure:
    """Draw a panel a group: rows are the tasks that may use it, columns layers, the mean at the end of each row."""
    carried, tasks = found.shares, list(found.kinds)
    seen = {
        group: [at for at, kind in enumerate(found.kinds.values()) if group in (kind, "shared")]
        for group in found.groups
    }
    seen = {group: rows for group, rows in seen.items() if rows}
    heights = [0.35 + 0.16 * len(rows) for rows in seen.values()]
    figure = Figure(figsize=(_WIDTH, 0.5 + sum(heights)), layout="constrained")
    panels = figure.subplots(len(seen), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for (group, rows), axes in zip(seen.items(), panels, strict=True):
        values = carried[:, rows, list(found.groups).index(group)].T.numpy()
        image = axes.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.set_yticks(range(len(rows)), long_names([tasks[at] for at in rows]), fontsize=7)
        axes.set_title(f"{group} experts: share of the norm of the update; at the right, the mean over layers")
        for row, mean in enumerate(values.mean(1)):
            axes.annotate(f"{mean:.2f}", (1, row), (3, 0), xycoords=("axes fraction", "data"), va="center",
                          textcoords="offset points", fontsize=7)  # fmt: skip
        axes.tick_params(length=0)
        _layer_ticks(axes, found.layers)
    panels[-1].set_xlabel("layer")
    figure.colorbar(image, ax=panels, location="right", fraction=0.03, aspect=40, pad=0.02, label="share")
    return figure


def _spectra(found: Inspection) -> Figure:
    figure = Figure(figsize=(_WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    for place, (task, sides) in enumerate(found.spectra.items()):
        for side, one in sides.items():
            relative = (one.values / one.values[0]).numpy()
            label = (
                f"{task}, {side}: {one.effective_rank:.1f} of {min(one.texts, one.size)}, cosine {one.mean_cosine:.2f}"
            )
            axes.plot(np.arange(1, len(relative) + 1), relative, color=_COLOURS[place % len(_COLOURS)],
                      linestyle=_LINES[side], linewidth=1.3, label=label)  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(_LEAST, 1.3)
    axes.set_xlabel("place of the singular value")
    axes.set_ylabel("singular value by the largest")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False, fontsize=7,
                  title="effective rank, mean cosine", title_fontsize=7)  # fmt: skip
    return figure
