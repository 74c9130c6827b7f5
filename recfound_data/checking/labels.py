"""What a label may be, task by task."""

from __future__ import annotations

import json
from collections.abc import Callable

import polars as pl

from recfound_data.checking.findings import Findings
from recfound_data.samples import LETTERS

LABELS: dict[str, tuple[str, ...]] = {
    "sentiment_analysis": ("very negative", "negative", "neutral", "positive", "very positive"),
    "answerability_prediction": ("yes", "no"),
    "product_matching": ("yes", "no"),
    "product_relation_prediction": ("bought together", "viewed together", "similar"),
}
"""The labels of tasks that choose one of a few."""
_TRIPLE = {"attribute", "value", "source"}


def check_labels(task: str, frame: pl.DataFrame, findings: Findings) -> None:
    """Check labels and options; `frame` has the prompt's text as `said` beside its columns."""
    repeated = pl.col("options").list.n_unique() != pl.col("options").list.len()
    findings.rows("option repeated", task, frame.filter(repeated), "id")
    if task in LABELS:
        # Samples that another project made may offer letters, which its prompts explain.
        letters = pl.col("options").list.eval(pl.element().str.contains(r"^[A-Z]$")).list.all()
        lettered = (pl.col("options").list.len() > 0) & letters
        foreign = frame.filter(~lettered & ~pl.col("label").is_in(LABELS[task]))
        findings.rows("label that the task does not have", task, foreign, "id", "label")
    if task == "sequential_recommendation":
        _check_letters(task, frame, findings)
    else:
        given = frame.filter(pl.col("options").list.len() > 0)
        absent = given.filter(~pl.col("options").list.contains(pl.col("label")))
        findings.rows("label is not among the options", task, absent, "id", "label")
    if task in _OWN:
        _OWN[task](task, frame, findings)


def _check_letters(task: str, frame: pl.DataFrame, findings: Findings) -> None:
    whole = pl.col("options").list.len() == len(LETTERS)
    findings.rows("not twenty options", task, frame.filter(~whole), "id")
    wrong = frame.filter(~pl.col("label").is_in(list(LETTERS)))
    findings.rows("label is no letter of an option", task, wrong, "id", "label")
    lines = [
        pl.format("{}. {}", pl.lit(letter), pl.col("options").list.get(place)) for place, letter in enumerate(LETTERS)
    ]
    shown = pl.col("said").str.contains(pl.concat_str(lines, separator="\n"), literal=True)
    findings.rows("options are not those of the prompt", task, frame.filter(whole).filter(~shown), "id")


def _check_attributes(task: str, frame: pl.DataFrame, findings: Findings) -> None:
    """The label is a JSON list of attribute, value, source; a value stands in the prompt or is null."""
    malformed, absent = [], []
    for name, label, said in frame.select("id", "label", "said").iter_rows():
        triples = _triples(label)
        if triples is None:
            malformed.append((name, label))
            continue
        absent += [(name, triple["value"]) for triple in triples if triple["value"] and triple["value"] not in said]
    for rule, found in (
        ("label is no JSON list of attribute, value, source", malformed),
        ("attribute's value is not in the prompt", absent),
    ):
        findings.add(rule, task, len(found), (f"{name} | {what[:80]}" for name, what in found))


def _triples(label: str) -> list[dict[str, str | None]] | None:
    """Return the label parsed, or None where it is something else."""
    try:
        triples = json.loads(label)
    except ValueError:
        return None
    if not isinstance(triples, list) or not triples:
        return None
    for triple in triples:
        if not isinstance(triple, dict) or set(triple) != _TRIPLE or not isinstance(triple["attribute"], str):
            return None
        if (triple["value"], triple["source"]) == (None, None):
            continue
        if not all(isinstance(triple[key], str) and triple[key] for key in ("value", "source")):
            return None
    return triples


def _check_rewrite(task: str, frame: pl.DataFrame, findings: Findings) -> None:
    """The completion is another text than what the prompt ends with, the dialogue or its last turn."""
    same = pl.col("said").str.strip_chars().str.ends_with(pl.col("label").str.strip_chars())
    findings.rows("rewrite is the dialogue unchanged", task, frame.filter(same), "id", "label")


_OWN: dict[str, Callable[[str, pl.DataFrame, Findings], None]] = {
    "attribute_value_extraction": _check_attributes,
    "query_rewriting": _check_rewrite,
}
