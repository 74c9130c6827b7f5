"""Contextual product question answering: ePQA (graded candidates, written answers) and hetPQA (toys and games)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import polars as pl
from pydantic import model_validator

from recfound_data.corpora.amazonqa import digest, published_split
from recfound_data.records import Values, table_records
from recfound_data.sources import Unparsable
from recfound_data.tables import TABLES, Batch, People, Source, Terms

NEAREST = 5
"""How many candidates of a question are shown. ePQA lists its retriever's nearest five first, which people graded; what
follows is irrelevant throughout or, in the test file by its readme, was searched for because none of the five answers.
With all of them shown, their number or kind would tell the label."""


class ContextualPQA(Source):
    """ePQA, hetPQA, or both.

    Attributes:
        questions: path, glob or URL of ePQA's `train.csv`, `dev.csv`, `test.csv`; the split is read from the name.
        answers: path, glob or URL of the files of `hetPQA/answer_generation`.
        ranking: path, glob or URL of the files of `hetPQA/evidence_ranking`.
    """

    corpus: Literal["contextual_pqa"] = "contextual_pqa"
    questions: str = ""
    answers: str = ""
    ranking: str = ""

    path_fields: ClassVar[tuple[str, ...]] = ("questions", "answers", "ranking")
    terms: ClassVar[Terms] = Terms(
        title="Contextual product question answering (ePQA, hetPQA)",
        address="https://github.com/amazon-science/contextual-product-qa",
        licence="CDLA-Sharing-1.0",
        citation="Xiaoyu Shen, Gianni Barlacchi, Marco Del Tredici, Weiwei Cheng, Bill Byrne, Adrià de Gispert. "
        "Product Answer Generation from Heterogeneous Sources: A New Benchmark and Best Practices. ECNLP 2022. "
        "Xiaoyu Shen, Akari Asai, Bill Byrne, Adrià de Gispert. xPQA: Cross-Lingual Product Question Answering across "
        "12 Languages. arXiv:2305.09249 (2023).",
        redistributable=True,
    )

    @model_validator(mode="after")
    def _names_a_file(self) -> Self:
        if not any(getattr(self, name) for name in self.path_fields):
            raise ValueError("names no file; give `questions`, `answers` or `ranking`")
        return self

    def batches(self, people: People) -> Iterator[Batch]:  # noqa: ARG002  (no people are read)
        """Yield the questions of ePQA, then those of hetPQA."""
        if self.questions:
            yield _graded(self.questions, self.domain or self.label)
        if self.answers or self.ranking:
            yield _written(self.answers, self.ranking, self.domain or "Toys and Games")


@dataclass
class _Question:
    item: str
    text: str
    title: str | None = None
    split: str | None = None
    candidates: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Candidate to label and answer, in the file's order."""

    def add(self, candidate: str, label: int, answer: str) -> None:
        # A candidate that is listed twice has the higher of its labels.
        if label > self.candidates.get(candidate, (-1, ""))[0]:
            self.candidates[candidate] = (label, answer)

    def row(self, key: str, full: int, domain: str) -> Values:
        """Return the question with its nearest candidates, in an order that tells nothing; `full` answers it."""
        nearest = list(self.candidates.items())[:NEAREST]
        labels = [label for _, (label, _) in nearest]
        return {
            "question_id": key,
            "item_id": self.item,
            "title": self.title,
            "question": self.text,
            "evidence": sorted((text for text, _ in nearest), key=lambda text: digest(key, text)),
            "answers": [answer for _, (label, answer) in nearest if label == full and answer],
            "answerable": full in labels,
            "split": self.split,
            "domain": domain,
        }


def _graded(pattern: str, domain: str) -> Batch:
    """Return ePQA's questions: label 2 answers in full, 1 helps, 0 is irrelevant."""
    asked, drops, bad = dict[str, _Question](), Counter[str](), list[Unparsable]()
    for record in table_records(pattern, ("qid", "question", "ASIN", "candidate", "label", "answer")):
        if isinstance(record, Unparsable):
            bad.append(record)
            continue
        cells = _cells(record.values)
        if reason := _fault(cells, ("0", "1", "2")):
            drops[reason] += 1
            continue
        split = published_split(record.path)
        question = _Question(cells["ASIN"], cells["question"], cells.get("title") or None, split)
        key = digest(split or "", cells["qid"], cells["ASIN"], cells["question"].lower())
        asked.setdefault(key, question).add(cells["candidate"], int(cells["label"]), cells["answer"])
    return _batch([question.row(key, 2, domain) for key, question in asked.items()], drops, bad)


def _written(answers: str, ranking: str, domain: str) -> Batch:
    """Return hetPQA's questions: relevant candidates, each with its answer, among those of the ranking files.

    Its split is not kept, since its files share three of four products; nor is its label, since a candidate that is
    called relevant may only help, so that nobody said whether a question is answered.
    """
    asked, drops, bad = dict[str, _Question](), Counter[str](), list[Unparsable]()
    for pattern, columns in ((answers, ("answer",)), (ranking, ("label",))):
        records = table_records(pattern, ("ASIN", "question", "candidate", *columns), delimiter="\t") if pattern else ()
        for record in records:
            if isinstance(record, Unparsable):
                bad.append(record)
                continue
            cells = {"label": "1", "answer": ""} | _cells(record.values)
            if reason := _fault(cells, ("0", "1")):
                drops[reason] += 1
                continue
            key = digest(cells["ASIN"], cells["question"].lower())
            question = asked.setdefault(key, _Question(cells["ASIN"], cells["question"]))
            question.add(cells["candidate"], int(cells["label"]), cells["answer"])
    rows = [question.row(key, 1, domain) | {"answerable": None} for key, question in asked.items()]
    return _batch(rows, drops, bad)


def _cells(values: Values) -> dict[str, str]:
    """Return a row's texts; the publisher's files escape quotes twice, so that inches are left with a backslash."""
    return {name: re.sub(r'\\+"', '"', value).strip() for name, value in values.items()}


def _fault(cells: dict[str, str], labels: tuple[str, ...]) -> str:
    for column, reason in (("ASIN", "product"), ("question", "question"), ("candidate", "text")):
        if not cells[column]:
            return f"candidate without {reason}"
    return "" if cells["label"] in labels else "candidate without a known label"


def _batch(rows: list[Values], drops: Counter[str], bad: list[Unparsable]) -> Batch:
    drops["candidate unparsable"] += len(bad)
    return Batch("questions", pl.DataFrame(rows, schema=TABLES["questions"]), dict(drops), bad)
