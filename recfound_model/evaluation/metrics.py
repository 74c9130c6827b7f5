"""What results are told by: each metric as a function of sums over a task's queries.

A mean is the sum of a column by the number of queries; F1 comes from sums of hits, false alarms and misses, so that it
is resampled, swapped and cut by corpus in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from recfound_data.tasks import TASKS
from recfound_model.evaluation.intervals import Floats, Statistic, mean, mean_terms

KEYS = ("query_id", "corpus", "domain")
COUNTS = ("hits", "false_alarms", "misses")
"""Columns of a set task: predicted and right, predicted and wrong, right and not predicted."""
LIKELIHOOD = "_likelihood"
"""What the names of metrics end with that come from the likeliest option rather than from the generated answer."""


@dataclass(frozen=True)
class Metric:
    """One metric of a task.

    Attributes:
        name: as results call it.
        terms: from the queries' scores to what is summed, [queries, terms].
        statistic: from sums to the value.
        each: the column by which two models are compared query by query.
    """

    name: str
    terms: Callable[[pl.DataFrame], Floats]
    statistic: Statistic
    each: str


def metrics_of(task: str, scores: pl.DataFrame) -> list[Metric]:
    """Return the metrics of a task's scores, the task's own first.

    Args:
        task: its name.
        scores: a row a query, with `query_id`, `corpus` and `domain`. Columns of floats are means; `label` with
            `answer` (generated) and `likeliest` (by likelihood), or the columns of `COUNTS`, give F1.
    """
    own = TASKS[task].metric
    found = []
    if own == "micro_f1":
        found.append(Metric(own, _counts, f1, "sample_f1"))
    elif own in ("macro_f1", "f1_yes"):
        for column, ending in (("answer", ""), ("likeliest", LIKELIHOOD)):
            if column in scores.columns:
                terms, statistic = _label_f1(own, column, scores)
                found.append(Metric(own + ending, terms, statistic, f"accuracy{ending}"))
    means = [name for name, kind in scores.schema.items() if kind == pl.Float64 and name not in KEYS]
    means.sort(key=lambda name: name != own)
    return found + [Metric(name, _values(name), mean, name) for name in means]


def f1(sums: Floats) -> Floats:
    """Return F1 [...] from hits, false alarms and misses [..., 3]; 0 where all three are 0."""
    hits, wrong = sums[..., 0], sums[..., 1] + sums[..., 2]
    return 2 * hits / np.maximum(2 * hits + wrong, np.finfo(np.float64).tiny)


def macro_f1(sums: Floats) -> Floats:
    """Return the mean F1 [...] over classes from [..., 3 classes], of those classes that the labels hold.

    A class is in the labels where hits and misses are not both 0; what is predicted of others counts as a miss of the
    right class alone.
    """
    classes = sums.reshape(*sums.shape[:-1], -1, 3)
    held = (classes[..., 0] + classes[..., 2]) > 0
    return f1(classes).sum(axis=-1) / np.maximum(held.sum(axis=-1), 1)


def _values(name: str) -> Callable[[pl.DataFrame], Floats]:
    return lambda scores: mean_terms(scores[name].to_numpy())


def _counts(scores: pl.DataFrame) -> Floats:
    return scores.select(COUNTS).to_numpy().astype(np.float64)


def _label_f1(metric: str, column: str, scores: pl.DataFrame) -> tuple[Callable[[pl.DataFrame], Floats], Statistic]:
    classes = ["yes"] if metric == "f1_yes" else sorted(scores["label"].unique())

    def terms(scores: pl.DataFrame) -> Floats:
        counted = []
        for name in classes:
            held, said = pl.col("label") == name, pl.col(column) == name
            counted += [held & said, said & ~held, held & ~said]
        return scores.select(one.cast(pl.Float64).alias(str(at)) for at, one in enumerate(counted)).to_numpy()

    return terms, f1 if metric == "f1_yes" else macro_f1
