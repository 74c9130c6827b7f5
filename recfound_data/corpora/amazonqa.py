"""AmazonQA: community questions with review snippets, answers and an answerability label; its SQuAD forms too."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, Self

import polars as pl
from pydantic import model_validator

from recfound_data.cleaning import title_key
from recfound_data.identity import draw, stable_id
from recfound_data.records import Record, Values, in_batches, json_document, json_records
from recfound_data.sources import Unparsable, expand, json_lines, line_blocks
from recfound_data.tables import TABLES, Batch, People, Source, Terms

_QUESTION = {
    "qid": pl.String,
    "asin": pl.String,
    "category": pl.String,
    "questionText": pl.String,
    "review_snippets": pl.List(pl.String),
    "answers": pl.List(pl.Struct({"answerText": pl.String, "helpful": pl.List(pl.Int64)})),
    "gold_answer": pl.String,
    "is_answerable": pl.String,
}
_SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation",
           "dev": "validation", "test": "test"}  # fmt: skip
_SPLIT_NAME = re.compile(rf"(?<![a-z])({'|'.join(_SPLITS)})(?![a-z])")


class AmazonQA(Source):
    """AmazonQA.

    Attributes:
        questions: path, glob or URL of `train-qar.jsonl` and its like; the split is read from the name.
        squad: path, glob or URL of the span-based form: JSON lines, or one JSON document with `paragraphs`.
    """

    corpus: Literal["amazonqa"] = "amazonqa"
    questions: str = ""
    squad: str = ""

    path_fields: ClassVar[tuple[str, ...]] = ("questions", "squad")
    terms: ClassVar[Terms] = Terms(
        title="AmazonQA",
        address="https://github.com/amazonqa/amazonqa",
        licence="none stated; made of Amazon reviews and questions that UCSD makes available for research",
        citation="Mansi Gupta, Nitish Kulkarni, Raghuveer Chanda, Anirudha Rayasam, Zachary C. Lipton. AmazonQA: "
        "A Review-Based Question Answering Task. IJCAI 2019.",
        redistributable=False,
    )

    @model_validator(mode="after")
    def _names_a_file(self) -> Self:
        if not (self.questions or self.squad):
            raise ValueError("names no file; give `questions` or `squad`")
        return self

    def batches(self, people: People) -> Iterator[Batch]:  # noqa: ARG002  (no people are read)
        """Yield questions, the most helpful answer first."""
        seen = pl.Series(dtype=pl.UInt64)
        for block in line_blocks(self.questions) if self.questions else ():
            frame, bad = json_lines(block, _QUESTION)
            product = frame.filter(_filled("asin"))
            asked = product.filter(_filled("questionText"))
            rows = _rows(asked, published_split(block.path), self.domain or self.label).with_columns(key=_key())
            # Variants of a product show the same questions under ids of their own; one of them is enough, and two
            # could come to lie in two splits.
            fresh = rows.filter(~pl.col("key").is_in(seen.implode())).unique("key", keep="first", maintain_order=True)
            seen = seen.append(fresh["key"])
            drops = {
                "question unparsable": len(bad),
                "question without product": len(frame) - len(product),
                "question without text": len(product) - len(asked),
                "question repeated with the same answers": len(rows) - len(fresh),
            }
            yield Batch("questions", fresh.drop("key"), drops, bad)
        if self.squad:
            yield from in_batches("questions", _paragraphs(self.squad, self.domain or self.label), _squad_rows)


def helpfulness(helpful: Any, votes: Any) -> Any:
    """Return how helpful an answer is: the share of helpful votes, with one vote either way added.

    An answer nobody voted on has 0.5, below 9 of 10 (0.83) and above 0 of 3 (0.2). Takes numbers or expressions.
    """
    return (helpful + 1) / (votes + 2)


def published_split(path: str) -> str | None:
    """Return the split that a file's name tells (`train-qar.jsonl`, `dev.csv`), or None."""
    name = path.partition("::")[0].rsplit("/", 1)[-1].lower()
    found = _SPLIT_NAME.search(name)
    return _SPLITS[found.group(1)] if found else None


def digest(*parts: str) -> str:
    """Return 16 hexadecimal digits that name the parts."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def _filled(column: str) -> pl.Expr:
    return pl.col(column).fill_null("").str.strip_chars() != ""


def _rows(frame: pl.DataFrame, split: str | None, domain: str) -> pl.DataFrame:
    text = pl.element().struct.field("answerText")
    up = _vote(0)
    votes = pl.max_horizontal(_vote(1), up)
    ordered = pl.col("answers").list.eval(
        text.sort_by(helpfulness(up, votes), descending=True, maintain_order=True, nulls_last=True)
    )
    own = ordered.list.filter(pl.element().fill_null("").str.strip_chars() != "")
    gold = pl.when(_filled("gold_answer")).then(pl.concat_list("gold_answer"))
    answers = pl.when(own.list.len() > 0).then(own).otherwise(gold)
    label = pl.col("is_answerable").replace_strict(
        {"0": False, "false": False, "1": True, "true": True}, default=None, return_dtype=pl.Boolean
    )
    category = pl.col("category").str.replace_all("_", " ").str.strip_chars()
    return frame.select(
        question_id=pl.coalesce("qid", stable_id("question", pl.col("asin"), pl.col("questionText"))),
        item_id=pl.col("asin").str.strip_chars(),
        title=pl.lit(None, pl.String),
        question=pl.col("questionText"),
        evidence=pl.col("review_snippets"),
        answers=answers,
        answerable=label,
        split=pl.lit(split, pl.String),
        domain=pl.when(category != "").then(category).otherwise(pl.lit(domain)),
    ).cast(pl.Schema(TABLES["questions"]))


def _vote(place: int) -> pl.Expr:
    return pl.element().struct.field("helpful").list.get(place, null_on_oob=True).fill_null(0).clip(0)


def _key() -> pl.Expr:
    said = pl.coalesce("answers", "evidence").fill_null([]).list.join(" ", ignore_nulls=True)
    return draw(0, "question", title_key(pl.col("question")), title_key(said))


def _paragraphs(pattern: str, domain: str) -> Iterator[Record | Unparsable]:
    for path in expand(pattern):
        split = published_split(path)
        lines = json_records(path) if ".jsonl" in path.lower() else (Record(path, 1, d) for _, d in json_document(path))
        for record in lines:
            if isinstance(record, Unparsable):
                yield record
                continue
            try:
                for context, qa in _asked(record.values):
                    given = {"split": split, "domain": domain, "context": context}
                    yield Record(path, record.line, qa | given)
            except (KeyError, TypeError, ValueError, AttributeError):
                yield Unparsable(path, record.line, "expected `context` and `qas`, or `paragraphs` of them")


def _asked(values: Any) -> list[tuple[str, Values]]:
    articles = values.get("data", [values])
    paragraphs = [paragraph for article in articles for paragraph in article.get("paragraphs", [article])]
    return [(str(paragraph["context"]), dict(qa)) for paragraph in paragraphs for qa in paragraph["qas"]]


def _squad_rows(values: Values) -> list[Values] | str:
    question, context = str(values.get("question") or "").strip(), values["context"]
    if not question:
        return "question without text"
    # The spans in `answers` were cut out by a score of shared words ("the", "for"), and `is_impossible` is false
    # throughout: only what people answered is of use.
    answers = [text for text in values.get("human_answers") or [] if isinstance(text, str) and text.strip()]
    if not answers:
        return "question with answer spans cut out by machine only"
    return [
        {
            "question_id": digest(context, question),
            "item_id": digest(context),
            "question": question,
            "evidence": [context],
            "answers": answers,
            "split": values["split"],
            "domain": values["domain"],
        }
    ]
