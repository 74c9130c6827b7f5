"""Evaluations as one HTML page that needs nothing else: tables with intervals, plots, best and worst predictions."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined

from recfound_data.tasks import TASKS
from recfound_model.evaluation.examples import Examples
from recfound_model.evaluation.intervals import Difference, Interval
from recfound_model.evaluation.report_plots import Row, interval_plot

if TYPE_CHECKING:
    from recfound_model.evaluation.comparing import Comparison
    from recfound_model.evaluation.results import Evaluation, TaskResult

_SETTINGS = ("protocol", "keep_known", "seed", "most", "most_answers", "max_length", "fingerprint", "seconds")
_EVERYTHING = "all"
_NAME = 32
_PROTOCOLS = {
    "full": "Embedding tasks rank the whole catalogue of the query's corpus.",
    "sampled": "Embedding tasks rank one positive among 19 negatives, which is far easier than a whole catalogue.",
}


@dataclass(frozen=True)
class Cell:
    """A value of a table, and what stands small beside it."""

    value: str
    small: str = ""


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows."""

    columns: list[str]
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Section:
    """What the page says of one task."""

    task: str
    kind: str
    table: Table
    notes: list[str] = field(default_factory=list)
    plot: str | None = None
    examples: Examples | None = None


@dataclass(frozen=True)
class Page:
    """All that the template shows; plots are data URIs, texts are not escaped yet."""

    title: str
    settings: list[tuple[str, str]]
    notes: list[str]
    glance: Table
    plot: str
    sections: list[Section]
    ranks: Table | None = None
    differences: dict[str, Table] = field(default_factory=dict)


def evaluation_page(evaluation: Evaluation) -> str:
    """Return one evaluation's page: by task, corpus and domain, with the examples that it has."""
    named = {evaluation.model: evaluation}
    sections = [_own_section(result, evaluation.model) for result in evaluation.results.values()]
    against = evaluation.compared_with
    differences = {} if against is None else {f"Less {against}": _differences(evaluation.differences)}
    return _rendered(_page(f"Evaluation of {evaluation.model}", named, sections, differences=differences))


def comparison_page(comparison: Comparison) -> str:
    """Return the page of several evaluations: their metrics, average ranks, and the first less each other."""
    models = comparison.evaluations
    first, *_ = models
    tasks = [task for task in TASKS if any(task in one.results for one in models.values())]
    ranks = Table(
        ["tasks", *models],
        [[Cell(group), *(Cell(f"{rank:.2f}") for rank in found.values())] for group, found in comparison.ranks.items()],
    )
    differences = {f"{first} less {name}": _differences(found) for name, found in comparison.differences.items()}
    sections = [_shared_section(task, models) for task in tasks]
    return _rendered(_page(f"{len(models)} evaluations", models, sections, ranks if ranks.rows else None, differences))


def _rendered(page: Page) -> str:
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=True)
    text = files("recfound_model.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    return environment.from_string(text).render(page=page)


def _page(
    title: str,
    models: Mapping[str, Evaluation],
    sections: list[Section],
    ranks: Table | None = None,
    differences: dict[str, Table] | None = None,
) -> Page:
    first = next(iter(models.values()))
    settings = [("data", first.data), ("split", first.split)]
    settings += [(key.replace("_", " "), str(first.facts[key])) for key in _SETTINGS if _told(first, key, models)]
    versions = first.facts.get("versions") or {}
    settings += [("versions", ", ".join(f"{name} {number}" for name, number in versions.items()))] if versions else []
    notes = [_PROTOCOLS[protocol]] if (protocol := first.facts.get("protocol")) in _PROTOCOLS else []
    rows = [(section.task, _own_intervals(section.task, models)) for section in sections]
    glance = Table(
        ["task", "metric", "queries", *models],
        [
            [
                Cell(task),
                Cell(TASKS[task].metric if found is None else found[0]),
                Cell(str(max(len(one.results[task].scores) for one in models.values() if task in one.results))),
                *(_cell(one) for one in (found[1] if found else [None] * len(models))),
            ]
            for task, found in rows
        ],
    )
    drawn = [Row(f"{TASKS[task].abbreviation} · {task}", found[1]) for task, found in rows if found is not None]
    return Page(title, settings, notes, glance, _uri(interval_plot(drawn, list(models))), sections, ranks,
                differences or {})  # fmt: skip


def _told(first: Evaluation, key: str, models: Mapping[str, Evaluation]) -> bool:
    """Is a setting one that somebody chose, and that all models share?"""
    value = first.facts.get(key)
    return value is not None and value is not False and all(one.facts.get(key) == value for one in models.values())


def _own_intervals(task: str, models: Mapping[str, Evaluation]) -> tuple[str, list[Interval | None]] | None:
    """Return the first metric that all results of a task have, and its interval for each model; None without one."""
    results = [one.results.get(task) for one in models.values()]
    having = [result for result in results if result is not None]
    shared = [name for name in having[0].summary if all(name in result.summary for result in having)]
    if not shared:
        return None
    return shared[0], [None if result is None else result.summary[shared[0]] for result in results]


def _own_section(result: TaskResult, model: str) -> Section:
    """Return the section of one model's task, by corpus and domain."""
    parts: list[tuple[str, Mapping[str, Interval], int]] = [(_EVERYTHING, result.summary, len(result.scores))]
    for column in ("corpus", "domain"):
        values = sorted(result.scores[column].unique().to_list())
        for value in values if len(values) > 1 else []:
            rows = len(result.scores.filter(**{column: value}))
            parts.append((f"{column} {value}", result.intervals(**{column: value}), rows))
    metric = result.metrics[0]
    table = Table(
        ["part", "queries", *result.metrics],
        [
            [Cell(name), Cell(str(rows)), *(_cell(found.get(one)) for one in result.metrics)]
            for name, found, rows in parts
        ],
    )
    drawn = [Row(f"{name[:_NAME]} ({rows})", [found.get(metric)]) for name, found, rows in parts]
    plot = _uri(interval_plot(drawn, [model], metric)) if len(parts) > 1 else None
    return Section(result.task, TASKS[result.task].kind, table, _notes(result), plot, result.examples)


def _shared_section(task: str, models: Mapping[str, Evaluation]) -> Section:
    """Return the section of a task that several models did."""
    results = {name: one.results[task] for name, one in models.items() if task in one.results}
    metrics = list(dict.fromkeys(name for result in results.values() for name in result.summary))
    rows = [
        [Cell(name), Cell(str(len(result.scores))), *(_cell(result.summary.get(metric)) for metric in metrics)]
        for name, result in results.items()
    ]
    return Section(task, TASKS[task].kind, Table(["model", "queries", *metrics], rows))


def _notes(result: TaskResult) -> list[str]:
    """Return what a reader of a task's table should know besides."""
    facts, notes = result.facts, []
    if facts.get("queries_with_fewer_negatives"):
        notes.append(f"{facts['queries_with_fewer_negatives']} queries found fewer than 19 negatives.")
    if facts.get("prompts_cut"):
        notes.append(f"{facts['prompts_cut']} prompts were too long for the model and lost their beginnings.")
    if sources := facts.get("label_sources"):
        notes.append("Labels by source: " + ", ".join(f"{source} {rows}" for source, rows in sources.items()) + ".")
    return notes


def _differences(found: Mapping[str, Mapping[str, Difference]]) -> Table:
    rows = [
        [
            Cell(task),
            Cell(metric),
            Cell(f"{one.value:+.3f}", f"{one.low:+.3f} to {one.high:+.3f}"),
            Cell(f"{one.p:.4f}"),
            Cell(f"{one.wins}/{one.ties}/{one.losses}"),
        ]
        for task in TASKS
        for metric, one in found.get(task, {}).items()
    ]
    return Table(["task", "metric", "difference", "p", "wins/ties/losses"], rows)


def _cell(found: Interval | None) -> Cell:
    return Cell("–") if found is None else Cell(f"{found.value:.3f}", f"{found.low:.3f} to {found.high:.3f}")


def _uri(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"
