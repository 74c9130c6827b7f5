"""Scores of what a model writes: overlap with a reference, attribute values as JSON, one of several options."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import CHRF

_LETTER = re.compile(r"\W*([A-Za-z])(?![^\W_])")


def overlaps(answers: Sequence[str], references: Sequence[str]) -> dict[str, list[float]]:
    """Return ROUGE-L F1 (rouge-score, no stemming) and chrF (sacrebleu, by 100) of each answer."""
    rouge, chrf = RougeScorer(["rougeL"]), CHRF()
    pairs = list(zip(answers, references, strict=True))
    return {
        "rougeL_f1": [float(rouge.score(reference, answer)["rougeL"].fmeasure) for answer, reference in pairs],
        "chrf": [float(chrf.sentence_score(answer, [reference]).score) / 100 for answer, reference in pairs],
    }


def attribute_values(answer: str) -> set[tuple[str, str]] | None:
    """Return the pairs of attribute and value that a JSON list of objects states, or None where it is no such list.

    The list is what stands between the first `[` and the last `]`, whatever is said around it. Case and white space do
    not count; an object whose value is null or empty states that there is none, and gives no pair.
    """
    first, last = answer.find("["), answer.rfind("]")
    try:
        listed = json.loads(answer[first : last + 1]) if first >= 0 else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(listed, list) or not all(isinstance(one, dict) and "attribute" in one for one in listed):
        return None
    pairs = {(_plain(one["attribute"]), _plain(one.get("value"))) for one in listed}
    return {pair for pair in pairs if pair[1]}


def _plain(value: Any) -> str:
    return "" if value is None else " ".join(str(value).casefold().split())


def chosen_option(answer: str, options: Sequence[str]) -> str | None:
    """Return the option that an answer begins with, or None.

    Quotes, brackets and the like before it do not count, nor does case; after it, no letter or digit may follow, so
    that `none` is not `no`. Letters are options of one character. Of options that begin alike the longest counts.
    """
    if all(len(option) == 1 for option in options):
        found = _LETTER.match(answer)
        return found[1].upper() if found and found[1].upper() in options else None
    said = re.sub(r"^\W+", "", answer).casefold()
    for option in sorted(options, key=len, reverse=True):
        begun = option.casefold()
        if said.startswith(begun) and not said[len(begun) : len(begun) + 1].isalnum():
            return option
    return None
