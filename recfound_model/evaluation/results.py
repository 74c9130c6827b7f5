"""An evaluation's results: scores of every query, what they come to, and the folder that holds them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recfound_data.errors import RecfoundError
from recfound_data.layout import canonical_json, require_replaceable
from recfound_data.tasks import TASKS
from recfound_model.evaluation.examples import Examples
from recfound_model.evaluation.intervals import Difference, Interval, percentile_interval, resampled_sums
from recfound_model.evaluation.metrics import metrics_of
from recfound_model.evaluation.report import evaluation_page

RESULTS, TABLE, SCORES, MARKER = "results.json", "results.md", "scores", ".evaluation"
EXAMPLES, PAGE = "examples.json", "report.html"
_NOT_FACTS = ("model", "data", "split", "tasks", "compared_with")


@dataclass(frozen=True)
class TaskResult:
    """One task's scores.

    Attributes:
        task: its name.
        scores: a row a query with `query_id`, `corpus`, `domain`, and what its metrics come from (see `metrics`).
        facts: how the task was evaluated, as JSON values.
        examples: the best and the worst queries; None where an evaluation kept none.
    """

    task: str
    scores: pl.DataFrame
    facts: Mapping[str, Any] = field(default_factory=dict)
    examples: Examples | None = None

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics, the task's own first."""
        return [metric.name for metric in metrics_of(self.task, self.scores)]

    def intervals(self, **only: str) -> dict[str, Interval]:
        """Return each metric with its interval, over all queries or those where columns have the given values."""
        rows = self.scores.filter(**only) if only else self.scores
        metrics = metrics_of(self.task, rows)
        terms = [metric.terms(rows) for metric in metrics]
        sums = resampled_sums(np.concatenate(terms, axis=1))
        found, first = {}, 0
        for metric, own in zip(metrics, terms, strict=True):
            drawn = sums[:, first : first + own.shape[1]]
            found[metric.name] = percentile_interval(metric.statistic(own.sum(axis=0)), metric.statistic(drawn))
            first += own.shape[1]
        return found

    @cached_property
    def summary(self) -> dict[str, Interval]:
        """Each metric over all queries."""
        return self.intervals()

    def to_json(self) -> dict[str, Any]:
        """Return metrics with intervals, over all queries, by corpus and by domain."""
        parts: dict[str, Any] = {}
        for key, column in (("corpora", "corpus"), ("domains", "domain")):
            parts[key] = {}
            for value, rows in sorted(self.scores.group_by(column), key=lambda pair: str(pair[0][0])):
                only = self.summary if len(rows) == len(self.scores) else self.intervals(**{column: str(value[0])})
                parts[key][value[0]] = {"queries": len(rows)} | _plain(only)
        return {"queries": len(self.scores), "metrics": _plain(self.summary), **parts, **self.facts}


def _plain(intervals: Mapping[str, Interval]) -> dict[str, Any]:
    return {name: asdict(found) for name, found in intervals.items()}


@dataclass(frozen=True)
class Evaluation:
    """What was evaluated on what, and the results by task.

    Attributes:
        facts: how, as JSON values: protocol, seed, limits, versions, time.
        compared_with: the model of an earlier evaluation.
        differences: to that model, by task and metric.
    """

    model: str
    data: str
    split: str
    results: dict[str, TaskResult]
    facts: Mapping[str, Any] = field(default_factory=dict)
    compared_with: str | None = None
    differences: Mapping[str, Mapping[str, Difference]] = field(default_factory=dict)

    @cached_property
    def _report(self) -> dict[str, Any]:
        report = {"model": self.model, "data": self.data, "split": self.split, **self.facts}
        report["tasks"] = {task: result.to_json() for task, result in self.results.items()}
        if self.compared_with is not None:
            report["compared_with"] = self.compared_with
            for task, found in self.differences.items():
                report["tasks"][task]["difference"] = _plain(found)
        return report

    def to_json(self) -> dict[str, Any]:
        """Return values and intervals, over all queries, by corpus and by domain, as JSON values."""
        return self._report


def require_out(out: Path) -> None:
    """Raise unless an evaluation can be written to `out`: it is new, empty, or an earlier one's.

    Raises:
        UsageError: it holds something else.
    """
    require_replaceable(out, marker=RESULTS if (out / RESULTS).exists() else MARKER)


def write_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Write results into an evaluation's folder; `results.json` comes last, so that with it everything is there.

    Raises:
        RecfoundError: the disk is full or cannot be written.
    """
    fresh = out / ".new"
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        (fresh / SCORES).mkdir(parents=True)
        (out / MARKER).touch()
        for task, result in evaluation.results.items():
            result.scores.write_parquet(fresh / SCORES / f"{task}.parquet")
        examples = {task: one.examples.to_json() for task, one in evaluation.results.items() if one.examples}
        (fresh / EXAMPLES).write_text(canonical_json(examples), encoding="utf-8")
        (fresh / TABLE).write_text(shown(evaluation), encoding="utf-8")
        (fresh / PAGE).write_text(evaluation_page(evaluation), encoding="utf-8")
        (fresh / RESULTS).write_text(canonical_json(evaluation.to_json()), encoding="utf-8")
        (out / RESULTS).unlink(missing_ok=True)
        shutil.rmtree(out / SCORES, ignore_errors=True)
        for name in (SCORES, EXAMPLES, TABLE, PAGE, RESULTS):
            (fresh / name).replace(out / name)
        fresh.rmdir()
    except OSError as error:
        raise RecfoundError(
            f"{out}: cannot be written: {error.strerror or error}; free space or name another folder"
        ) from None


def read_evaluation(folder: Path) -> Evaluation:
    """Return the evaluation in a folder.

    Raises:
        RecfoundError: it holds none that can be read.
    """
    try:
        report = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        # What is compared or released needs no examples: an evaluation without them is one, too.
        kept = json.loads((folder / EXAMPLES).read_text(encoding="utf-8")) if (folder / EXAMPLES).exists() else {}
        results = {}
        for task in report["tasks"]:
            examples = Examples.from_json(kept[task]) if task in kept else None
            results[task] = TaskResult(task, pl.read_parquet(folder / SCORES / f"{task}.parquet"), examples=examples)
        facts = {key: report[key] for key in report if key not in _NOT_FACTS}
        return Evaluation(str(report["model"]), str(report["data"]), str(report["split"]), results, facts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pl.exceptions.PolarsError):
        raise RecfoundError(f"{folder}: is no evaluation with a readable {RESULTS} and its scores") from None


def shown(evaluation: Evaluation) -> str:
    """Return an evaluation as Markdown: its table, and its differences to another model where it has any."""
    table = results_table({evaluation.model: evaluation})
    return table if evaluation.compared_with is None else f"{table}\n{differences_table(evaluation)}"


def results_table(evaluations: Mapping[str, Evaluation]) -> str:
    """Return a Markdown table: a row a task and metric, a column an evaluation, each value with its 95 % interval."""
    lines = ["| task | metric | queries | " + " | ".join(evaluations) + " |"]
    lines.append("|---|---|--:|" + "---|" * len(evaluations))
    for task in TASKS:
        having = [evaluation.results[task] for evaluation in evaluations.values() if task in evaluation.results]
        names = list(dict.fromkeys(name for result in having for name in result.summary))
        for name in names:
            cells = []
            for evaluation in evaluations.values():
                result = evaluation.results.get(task)
                cells.append(str(result.summary[name]) if result is not None and name in result.summary else "")
            lines.append(f"| {task} | {name} | {len(having[0].scores)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def differences_table(evaluation: Evaluation) -> str:
    """Return a Markdown table of the differences to the model that an evaluation was compared with."""
    lines = [f"| task | metric | less {evaluation.compared_with} | p | wins/ties/losses |", "|---|---|---|--:|--:|"]
    for task, found in evaluation.differences.items():
        for metric, one in found.items():
            value, p, counts = str(one).split(", p ")[0], f"{one.p:.4f}", f"{one.wins}/{one.ties}/{one.losses}"
            lines.append(f"| {task} | {metric} | {value} | {p} | {counts} |")
    return "\n".join(lines) + "\n"
