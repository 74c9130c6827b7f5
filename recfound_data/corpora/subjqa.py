"""SubjQA: questions about opinions, each with one review and the span that answers it, or none."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import ClassVar, Literal

import polars as pl

from recfound_data.corpora.amazonqa import digest
from recfound_data.records import Values, table_records
from recfound_data.sources import Unparsable
from recfound_data.tables import TABLES, Batch, People, Source, Terms

_COLUMNS = ("item_id", "domain", "question", "review", "human_ans_spans")
_NOT_FOUND = "ANSWERNOTFOUND"
_SENTINEL = re.compile(rf"\s*{_NOT_FOUND}\s*$")
_DOMAINS = {"tripadvisor": "Hotels"}


class SubjQA(Source):
    """SubjQA, any of its six domains.

    Attributes:
        questions: path, glob or URL of `SubjQA/<domain>/splits/*.csv`. Name all files of a domain: its two annotators
            are spread over `train.csv` and `dev.csv`, and only together do they show where they disagree.
    """

    corpus: Literal["subjqa"] = "subjqa"
    questions: str

    path_fields: ClassVar[tuple[str, ...]] = ("questions",)
    terms: ClassVar[Terms] = Terms(
        title="SubjQA",
        address="https://github.com/megagonlabs/SubjQA",
        licence="as is, under the terms of the review data it is made of (Amazon at UCSD, TripAdvisor, Yelp)",
        citation="Johannes Bjerva, Nikita Bhutani, Behzad Golshan, Wang-Chiew Tan, Isabelle Augenstein. SubjQA: A "
        "Dataset for Subjectivity and Review Comprehension. EMNLP 2020.",
        redistributable=False,
    )

    def batches(self, people: People) -> Iterator[Batch]:  # noqa: ARG002  (no people are read)
        """Yield a question for each review it was asked of, where its annotators agree.

        The published split is not kept: its files share products, and `dev.csv` shares questions with `train.csv`.
        Spans are no answers ("The", "my pocket"); they say that the review answers, and nothing else is made of them.
        """
        asked, found = dict[str, Values](), dict[str, set[bool]]()
        drops, bad = Counter[str](), list[Unparsable]()
        for record in table_records(self.questions, _COLUMNS):
            if isinstance(record, Unparsable):
                bad.append(record)
                continue
            item, domain, question, review, span = (record.values[name].strip() for name in _COLUMNS)
            review = _SENTINEL.sub("", review)
            if reason := _fault(item, question, review, span):
                drops[reason] += 1
                continue
            key = digest(item, review, question.lower())
            row = {"question_id": key, "item_id": item, "question": question, "evidence": [review], "answers": []}
            shown = self.domain or _DOMAINS.get(domain, domain.capitalize()) or self.label
            drops["annotation of a question read before"] += key in asked
            asked.setdefault(key, row | {"domain": shown})
            found.setdefault(key, set()).add(span != _NOT_FOUND)
        agreed = [row | {"answerable": found[key] == {True}} for key, row in asked.items() if len(found[key]) == 1]
        drops["question whose annotators disagree"] += len(asked) - len(agreed)
        drops["annotation unparsable"] += len(bad)
        yield Batch("questions", pl.DataFrame(agreed, schema=TABLES["questions"]), dict(drops), bad)


def _fault(item: str, question: str, review: str, span: str) -> str:
    for text, what in ((item, "product"), (question, "question"), (review, "review"), (span, "answer span")):
        if not text:
            return f"annotation without {what}"
    # The marker stands at the end of every review; elsewhere in one it could only be a broken row.
    return "annotation with a broken review" if _NOT_FOUND in review else ""
