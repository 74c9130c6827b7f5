"""Evaluations beside each other: paired differences on the same queries, and average ranks over tasks.

The average rank is that of the paper's tables: the models are ranked on each task by the task's own metric, the best
first, equal ones at the mean of their ranks, and the ranks of a model are averaged over the tasks that all have. Where
not all have BERTScore, tasks with free text are ranked by ROUGE-L.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.layout import canonical_json
from recfound_data.tasks import TASKS
from recfound_model.evaluation.intervals import Difference, paired_difference
from recfound_model.evaluation.metrics import metrics_of
from recfound_model.evaluation.report import comparison_page
from recfound_model.evaluation.results import PAGE, Evaluation, TaskResult, read_evaluation, results_table
from recfound_model.folders import write_folder

_WITHOUT_BERTSCORE = "rougeL_f1"
_SAME = ("split", "protocol", "keep_known", "seed")
KINDS = ("embedding", "generative")


def differences(ours: TaskResult, theirs: TaskResult, metrics: Sequence[str] | None = None) -> dict[str, Difference]:
    """Return ours minus theirs for each metric that both have (of `metrics`, where named).

    Raises:
        RecfoundError: they are results of different queries.
    """
    keys = ["query_id", "corpus"]
    order = ours.scores.select(keys)
    other = order.join(theirs.scores, on=keys, how="inner", maintain_order="left")
    if len(other) != len(order) or len(other) != len(theirs.scores):
        raise RecfoundError(f"was evaluated on other queries of {ours.task}; evaluate both on the same data")
    have = {metric.name for metric in metrics_of(ours.task, other)}
    found = {}
    for metric in metrics_of(ours.task, ours.scores):
        if metric.name in have and (metrics is None or metric.name in metrics):
            each = (ours.scores[metric.each].to_numpy(), other[metric.each].to_numpy())
            found[metric.name] = paired_difference(
                metric.terms(ours.scores), metric.terms(other), metric.statistic, each
            )
    return found


def require_comparable(ours: Mapping[str, Any], theirs: Mapping[str, Any], name: str) -> None:
    """Raise unless two evaluations asked the same in the same way.

    Raises:
        RecfoundError: `theirs`, of the folder `name`, differs in split, protocol or seed.
    """
    for key in _SAME:
        if key in theirs and ours.get(key) != theirs[key] and (key != "seed" or ours.get("protocol") == "sampled"):
            raise RecfoundError(
                f"{name}: was evaluated on {key} {theirs[key]}, and this is {ours.get(key)}; evaluate both on the same"
            )


def average_ranks(evaluations: Mapping[str, Evaluation]) -> dict[str, dict[str, float]]:
    """Return each model's average rank over the embedding tasks, the generative ones, and all, where there are any."""
    shared = [task for task in TASKS if all(task in one.results for one in evaluations.values())]
    ranks: dict[str, dict[str, float]] = {task: {} for task in shared}
    for task in shared:
        results = {name: one.results[task] for name, one in evaluations.items()}
        metric = ranked_by(list(results.values()))
        values = pl.Series([round(result.summary[metric].value, 12) for result in results.values()])
        ranks[task] = dict(zip(results, values.rank("average", descending=True).to_list(), strict=True))
    groups = {kind: [task for task in shared if TASKS[task].kind == kind] for kind in KINDS} | {"all": shared}
    return {
        group: {name: float(np.mean([ranks[task][name] for task in tasks])) for name in evaluations}
        for group, tasks in groups.items()
        if tasks
    }


def ranked_by(results: Sequence[TaskResult]) -> str:
    """Return the metric that models are ranked by on a task: its own, or ROUGE-L where not all have BERTScore."""
    own = TASKS[results[0].task].metric
    return own if all(own in result.metrics for result in results) else _WITHOUT_BERTSCORE


@dataclass(frozen=True)
class Comparison:
    """Several evaluations of the same queries; differences are those of the first to each of the others."""

    evaluations: dict[str, Evaluation]
    ranks: dict[str, dict[str, float]]
    differences: dict[str, dict[str, dict[str, Difference]]]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        paired = {
            name: {task: {metric: asdict(one) for metric, one in found.items()} for task, found in tasks.items()}
            for name, tasks in self.differences.items()
        }
        first = next(iter(self.evaluations))
        reports = {name: evaluation.to_json()["tasks"] for name, evaluation in self.evaluations.items()}
        return {"first": first, "average_ranks": self.ranks, "differences": paired, "evaluations": reports}

    def __str__(self) -> str:
        first, *others = self.evaluations
        lines = [results_table(self.evaluations), "Average rank by each task's own metric, the best is 1:", ""]
        lines += ["| tasks | " + " | ".join(self.evaluations) + " |", "|---|" + "--:|" * len(self.evaluations)]
        for group, found in self.ranks.items():
            lines.append(f"| {group} | " + " | ".join(f"{rank:.2f}" for rank in found.values()) + " |")
        lines += ["", f"{first} less each other, 95 % interval, p of a randomisation test, wins/ties/losses:", ""]
        lines += ["| task | metric | " + " | ".join(others) + " |", "|---|---|" + "---|" * len(others)]
        for task in self.evaluations[first].results:
            cells = [self.differences[name].get(task, {}) for name in others]
            for metric in dict.fromkeys(name for found in cells for name in found):
                shown = (str(found[metric]) if metric in found else "" for found in cells)
                lines.append(f"| {task} | {metric} | " + " | ".join(shown) + " |")
        return "\n".join(lines)


def compare(folders: Sequence[str | Path]) -> Comparison:
    """Return the comparison of evaluations by their folders, named by model, or by folder where models repeat.

    Raises:
        UsageError: fewer than two folders.
        RecfoundError: one is no evaluation, or not of the same queries, split or protocol.
    """
    if len(folders) < 2:
        raise UsageError("a comparison takes two evaluations or more")
    read = [read_evaluation(Path(folder)) for folder in folders]
    names = [one.model for one in read]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise UsageError("an evaluation is named twice")
    evaluations = dict(zip(names, read, strict=True))
    first = read[0]
    paired: dict[str, dict[str, dict[str, Difference]]] = {}
    for name, folder, other in zip(names[1:], folders[1:], read[1:], strict=True):
        require_comparable({"split": first.split, **first.facts}, {"split": other.split, **other.facts}, str(folder))
        both = [task for task in first.results if task in other.results]
        try:
            paired[name] = {
                task: differences(
                    first.results[task], other.results[task], [ranked_by([first.results[task], other.results[task]])]
                )
                for task in both
            }
        except RecfoundError as error:
            raise RecfoundError(f"{folder}: {error}") from None
    return Comparison(evaluations, average_ranks(evaluations), paired)


def write_comparison(comparison: Comparison, out: str | Path) -> None:
    """Write a comparison as `comparison.json`, `comparison.md` and `report.html`, all or none.

    Raises:
        RecfoundError: `out` holds something else; see `write_folder`.
    """
    with write_folder(out) as folder:
        (folder / "comparison.json").write_text(canonical_json(comparison.to_json()), encoding="utf-8")
        (folder / "comparison.md").write_text(f"{comparison}\n", encoding="utf-8")
        (folder / PAGE).write_text(comparison_page(comparison), encoding="utf-8")
