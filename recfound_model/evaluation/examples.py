"""Examples for a report: of each task the queries that a model does best and worst, what was asked, right and given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from recfound_model.evaluation.answering import Asked
from recfound_model.evaluation.metrics import metrics_of
from recfound_model.evaluation.ranking import CatalogueRanking
from recfound_model.training.streams import seed_of

FEW = 3
"""The best, and as many of the worst."""
_MOST_RIGHT = 5
_CHARACTERS = 2_000


@dataclass(frozen=True)
class Answer:
    """A ranked item or a generated answer; `right` is None where free text is neither right nor wrong."""

    text: str
    right: bool | None = None


@dataclass(frozen=True)
class Example:
    """A query and what came of it.

    Attributes:
        query_id: of the query.
        corpus: of the query.
        score: its own, by which it is one of the best or worst.
        asked: the query's text, or the prompt.
        right: the right answers, at most five.
        given: the items ranked first, in their order, or the answer.
    """

    query_id: str
    corpus: str
    score: float
    asked: str
    right: list[str]
    given: list[Answer]


@dataclass(frozen=True)
class Examples:
    """The best and the worst queries of a task, the extremes first; `metric` names their scores."""

    metric: str
    best: list[Example]
    worst: list[Example]

    def to_json(self) -> dict[str, Any]:
        """Return them as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Examples:
        """Return what `to_json` was made of."""
        read = {
            side: [Example(**one | {"given": [Answer(**given) for given in one["given"]]}) for one in found[side]]
            for side in ("best", "worst")
        }
        return cls(str(found["metric"]), **read)


def extremes(task: str, scores: pl.DataFrame, few: int = FEW) -> tuple[list[int], list[int]]:
    """Return the rows of the best and of the worst queries, the extremes first.

    None is in both, a score of 0 is not one of the best and a score of 1 not one of the worst; of equal ones some are
    drawn by their ids.
    """
    values = scores[metrics_of(task, scores)[0].each].to_list()
    drawn = [seed_of(0, task, corpus, query) for query, corpus in scores.select("query_id", "corpus").iter_rows()]
    order = sorted(range(len(values)), key=lambda row: (-values[row], drawn[row]))
    best = [row for row in order[:few] if values[row] > 0]
    return best, [row for row in order[len(best) :][::-1] if values[row] < 1][:few]


def ranking_examples(task: str, rankings: Sequence[CatalogueRanking], scores: pl.DataFrame) -> Examples:
    """Return the extremes of a task's rankings, from its scores with `ranked`, the items ranked first."""
    metric = metrics_of(task, scores)[0].each
    by_corpus = {ranking.corpus: ranking for ranking in rankings}

    def example(row: int) -> Example:
        found = scores.row(row, named=True)
        ranking = by_corpus[found["corpus"]]
        query = found["query_id"]
        relevant = ranking.relevant[query]
        named = _titles(ranking, {*relevant, *found["ranked"]})
        return Example(
            query,
            found["corpus"],
            found[metric],
            _cut(ranking.queries[ranking.query_ids.index(query)]),
            [named[item] for item in sorted(relevant)[:_MOST_RIGHT]],
            [Answer(named[item], item in relevant) for item in found["ranked"]],
        )

    best, worst = extremes(task, scores)
    return Examples(metric, [example(row) for row in best], [example(row) for row in worst])


def answer_examples(asked: Asked, scores: pl.DataFrame) -> Examples:
    """Return the extremes of the answers to a generative task, from its scores, which are in the samples' order."""
    metric = metrics_of(asked.task, scores)[0].each

    def example(row: int) -> Example:
        found = scores.row(row, named=True)
        right = found["answer"] == found["label"] if any(asked.options) else None
        given = Answer(_cut(found.get("written", found["answer"])), right)
        prompt = "\n\n".join(message["content"] for message in asked.samples["prompt"][row])
        key, corpus, label = found["query_id"], found["corpus"], found["label"]
        return Example(key, corpus, found[metric], _cut(prompt), [_cut(label)], [given])

    best, worst = extremes(asked.task, scores)
    return Examples(metric, [example(row) for row in best], [example(row) for row in worst])


def _titles(ranking: CatalogueRanking, wanted: set[str]) -> dict[str, str]:
    """Return what items are called: by their titles, or the first line of their texts."""
    rows = zip(ranking.item_ids, ranking.titles, ranking.items, strict=True)
    return {item: _cut(title or text.split("\n", 1)[0]) for item, title, text in rows if item in wanted}


def _cut(text: str) -> str:
    return text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]}…"
