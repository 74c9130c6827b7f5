"""Generative samples: messages, labels and options, and the same prompt answered in two ways."""

from __future__ import annotations

from collections import Counter
from typing import Any

import polars as pl

from recfound_data.checking.findings import Findings
from recfound_data.checking.keys import Keys, hash_of, hashed, paired, repeated, torn
from recfound_data.checking.labels import check_labels
from recfound_data.checking.people import check_people
from recfound_data.checking.rows import Rows, show
from recfound_data.checking.samples import (
    Remembered,
    check_common,
    check_counts,
    check_ids,
    check_twins,
    ids_and_groups,
)
from recfound_data.checking.texts import COMPLETION_CHARS, PROMPT_CHARS, spoken

LABEL_SOURCES = ("corpus", "composed")
_ROLES = ("system", "user", "assistant")


def asked(prompt: pl.Expr) -> pl.Expr:
    """Return what a prompt asks about: all after its first line break of two, so without the phrasing."""
    return prompt.str.replace(r"(?s)^.*?\n\n", "")


def check_generative(rows: Rows, manifest: dict[str, Any], findings: Findings) -> Keys:
    """Check one generative task and return the hash of each row's group."""
    task, counts, kept = rows.config, Counter[tuple[str, str]](), Remembered()
    sources = (*LABEL_SOURCES, *manifest.get("label_sources", ()))
    for batch in rows.batches():
        frame = check_common(batch, task, manifest, counts, findings)
        frame = frame.with_columns(said=spoken(frame, "prompt"), answer=spoken(frame, "completion"))
        _check_messages(task, frame, findings)
        unknown = frame.filter(~pl.col("label_source").is_in(sources))
        findings.rows("label source not in the manifest", task, unknown, "id", "label_source")
        check_labels(task, frame, findings)
        ids, groups = ids_and_groups(frame)
        body = frame.select(hashed(asked(pl.col("said")))).to_series().to_numpy()
        kept.add(ids=ids, groups=groups, body=body, label=hash_of(frame["label"]))
    check_counts(task, rows, counts, manifest, findings)
    check_ids(task, rows, kept["ids"], kept["groups"], findings)
    check_twins(rows, paired(kept["body"], kept["label"]), findings)
    _check_contradictions(rows, kept["body"], kept["label"], findings)
    return kept["groups"]


def _check_messages(task: str, frame: pl.DataFrame, findings: Findings) -> None:
    # What a letter stands for is in the prompt too.
    options = {} if task == "sequential_recommendation" else {"options": spoken(frame, "options")}
    check_people(frame, task, {"prompt": frame["said"], "completion": frame["answer"]} | options, "id", findings)
    roles = pl.col("prompt").list.eval(pl.element().struct.field("role"))
    answered = pl.col("completion").list.eval(pl.element().struct.field("role"))
    fits = (
        roles.list.eval(pl.element().is_in(_ROLES)).list.all()
        & (roles.list.last() == "user").fill_null(False)
        & (answered.list.join(" ") == "assistant")
    )
    findings.rows("prompt does not end with a user, or completion is not one answer", task, frame.filter(~fits), "id")
    findings.rows("completion is not the label", task, frame.filter(pl.col("answer") != pl.col("label")), "id", "label")
    empty = (pl.col("said").str.strip_chars() == "") | (pl.col("answer").str.strip_chars() == "")
    findings.rows("empty text", task, frame.filter(empty), "id")
    for column, limit in (("said", PROMPT_CHARS), ("answer", COMPLETION_CHARS)):
        # Characters are at most as many as bytes, and bytes need no counting.
        long = frame.filter(pl.col(column).str.len_bytes() > limit).filter(pl.col(column).str.len_chars() > limit)
        what = {"said": "prompt", "answer": "completion"}[column]
        findings.rows(f"{what} longer than {limit:,} characters", task, long, "id")


def _check_contradictions(rows: Rows, body: Keys, label: Keys, findings: Findings) -> None:
    """The same question with two answers; which splits they are in does not matter."""
    again = repeated(body)
    show(
        findings, "the same prompt has two labels", rows, again[torn(body[again], label[again])], "id", "label", "split"
    )
