"""McAuley's Amazon question and answer data: Python literals, one answer a question or all of them, by category."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from recfound_data.corpora.amazonqa import digest, helpfulness
from recfound_data.records import Record, Values, in_batches, json_records, literal_records
from recfound_data.sources import Unparsable, expand, line_blocks
from recfound_data.tables import Batch, People, Source, Terms


class McAuleyQA(Source):
    """Amazon question and answer data of one or several categories.

    Attributes:
        questions: path, glob or URL of `qa_<Category>.json.gz` (one answer) or `QA_<Category>.json.gz` (all answers).
        metadata: path, glob or URL of Amazon's metadata of the same categories, 2014 or 2018, for the titles.
    """

    corpus: Literal["mcauley_qa"] = "mcauley_qa"
    questions: str
    metadata: str = ""

    path_fields: ClassVar[tuple[str, ...]] = ("questions", "metadata")
    terms: ClassVar[Terms] = Terms(
        title="Amazon question/answer data (McAuley)",
        address="https://jmcauley.ucsd.edu/data/amazon/qa/",
        licence="no licence text; made available by its authors for research",
        citation="Mengting Wan, Julian McAuley. Modeling ambiguity, subjectivity, and diverging viewpoints in opinion "
        "question answering systems. ICDM 2016. Julian McAuley, Alex Yang. Addressing complex and subjective "
        "product-related queries with customer reviews. WWW 2016.",
        redistributable=False,
    )

    def batches(self, people: People) -> Iterator[Batch]:  # noqa: ARG002  (no people are read)
        """Yield questions, then the items that they ask about; askers and answerers are not read."""
        products, seen = set[str](), set[int]()

        def question(values: Values) -> list[Values] | str:
            row = _row(values)
            if isinstance(row, str):
                return row
            # Variants of a product show the same questions under ids of their own; see amazonqa.
            key = int(digest(row["question"].lower().strip(), *(text.lower().strip() for text in row["answers"])), 16)
            if key in seen:
                return "question repeated with the same answers"
            seen.add(key)
            products.add(row["item_id"])
            return [row]

        def item(values: Values) -> list[Values] | str:
            title = values.get("title")
            if values.get("asin") not in products:
                return "item that no question is about"
            if not isinstance(title, str) or not title.strip():
                return "item without title"
            brand = values.get("brand")
            row = {"item_id": values["asin"], "title": title, "brand": brand if isinstance(brand, str) else None}
            return [row | {"domain": values["domain"]}]

        yield from in_batches("questions", _questions(self.questions, self.domain), question)
        if self.metadata:
            yield from in_batches("items", _records(self.metadata, self.domain), item)


def _records(pattern: str, domain: str) -> Iterator[Record | Unparsable]:
    """Yield the records of literals or, as the 2018 metadata and some mirrors are, JSON; with the file's category."""
    for path in expand(pattern):
        category = re.search(r"(?:qa|meta)_([A-Za-z_]+?)(?:_5)?\.json", path.rsplit("/", 1)[-1], re.IGNORECASE)
        known = {"domain": domain or (category.group(1).replace("_", " ") if category else "Products")}
        first = next(line_blocks(path, 1 << 16), None)
        quoted = first is not None and re.match(rb'\s*\{\s*"', first.data)
        for record in json_records(path) if quoted else literal_records(path):
            yield record if isinstance(record, Unparsable) else Record(path, record.line, record.values | known)


def _questions(pattern: str, domain: str) -> Iterator[Record | Unparsable]:
    """Yield a record a question: `asin`, `domain`, `question`, `answers` in the form of the file with all answers."""
    for record in _records(pattern, domain):
        if isinstance(record, Unparsable):
            yield record
            continue
        product = {name: record.values.get(name) for name in ("asin", "domain")}
        asked = record.values.get("questions")
        if asked is None:
            answer = {"answerText": record.values.get("answer")}
            yield Record(
                record.path, record.line, product | {"question": record.values.get("question"), "answers": [answer]}
            )
        elif isinstance(asked, list) and all(isinstance(one, dict) for one in asked):
            for one in asked:
                texts = {"question": one.get("questionText"), "answers": one.get("answers") or []}
                yield Record(record.path, record.line, product | texts)
        else:
            yield Unparsable(record.path, record.line, "`questions` is no list of questions")


def _row(values: Values) -> Values | str:
    asin, question = values["asin"], values["question"]
    if not isinstance(asin, str) or not asin.strip():
        return "question without product"
    if not isinstance(question, str) or not question.strip():
        return "question without text"
    given = [answer for answer in values["answers"] if isinstance(answer, dict)]
    ordered = sorted(given, key=lambda answer: -helpfulness(*_votes(answer.get("helpful"))))
    texts = [text for answer in ordered if isinstance(text := answer.get("answerText"), str) and text.strip()]
    if not texts:
        return "question without an answer"
    return {
        "question_id": digest(asin, question, texts[0]),
        "item_id": asin.strip(),
        "question": question,
        "answers": texts,
        "domain": values["domain"],
    }


def _votes(helpful: Any) -> tuple[int, int]:
    if isinstance(helpful, list) and len(helpful) == 2 and all(isinstance(votes, int) for votes in helpful):
        up = max(helpful[0], 0)
        return up, max(helpful[1], up)
    return 0, 0
