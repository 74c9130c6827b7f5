"""Tasks that are not in the catalogue: what kind their columns make them, and what columns they may leave out.

An embedding sample has `anchor` and `positive`, a generative one `prompt` and `completion`, lists of chat messages. All
other columns are optional.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from recfound_data.errors import RecfoundError
from recfound_data.tasks.catalogue import Kind
from recfound_model.templates import instruction_of

REQUIRED: dict[Kind, tuple[str, str]] = {"embedding": ("anchor", "positive"), "generative": ("prompt", "completion")}
_MESSAGE = {"role", "content"}
_LISTS = (pa.types.is_list, pa.types.is_large_list)
_TEXTS = (pa.types.is_string, pa.types.is_large_string)


def kind_of(columns: Collection[str]) -> Kind | None:
    """Return the kind of task whose samples have these columns, None where they are no samples."""
    return next((kind for kind, required in REQUIRED.items() if set(required) <= set(columns)), None)


def completed(samples: Dataset, task: str, kind: Kind, where: str) -> Dataset:
    """Return the samples of an own task with all columns that training reads.

    For what is left out: the instruction is the task's default one; there is no hard negative; an id is made of the
    text, so that equal texts are one document.

    Args:
        samples: as they were loaded.
        task: its name.
        kind: its kind.
        where: the dataset, for messages.

    Raises:
        RecfoundError: a column holds something else than it should.
    """
    for column in REQUIRED[kind]:
        values = samples.data.column(column)
        fault = _text_fault(values) if kind == "embedding" else _messages_fault(values)
        if fault:
            raise RecfoundError(f"{where}: {task}: column {column!r} {fault}")
    fill = _embedding if kind == "embedding" else _generative
    return samples.with_transform(partial(fill, task))


def frequent_instruction(samples: Dataset, task: str) -> str:
    """Return the phrasing that most samples of an own embedding task have, the first of them where several do."""
    if "instruction" not in samples.column_names:
        return instruction_of(task)
    counts = Counter(value or instruction_of(task) for value in samples.data.column("instruction").to_pylist())
    return counts.most_common(1)[0][0]


def paired(samples: Dataset) -> dict[str, frozenset[str]]:
    """Return all positives of each anchor of an own embedding task, by `anchor_id`."""
    found: dict[str, set[str]] = {}
    for columns in samples.iter(1000):
        for anchor, positive in zip(columns["anchor_id"], columns["positive_id"], strict=True):
            found.setdefault(anchor, set()).add(positive)
    return {anchor: frozenset(positives) for anchor, positives in found.items()}


def _text_fault(values: pa.ChunkedArray) -> str | None:
    if not any(is_kind(values.type) for is_kind in _TEXTS):
        return f"holds {values.type}, not text"
    blank = pc.equal(pc.utf8_trim_whitespace(values), "")
    return _row_fault(pc.or_(pc.is_null(values), blank), "no text")


def _messages_fault(values: pa.ChunkedArray) -> str | None:
    kind = values.type
    if not any(is_kind(kind) for is_kind in _LISTS) or not pa.types.is_struct(kind.value_type):
        return f"holds {kind}, not lists of chat messages, {{role, content}}"
    names = {kind.value_type.field(number).name for number in range(kind.value_type.num_fields)}
    if not names >= _MESSAGE:
        return f"holds messages of {', '.join(sorted(names))}, not of role and content"
    return _row_fault(pc.equal(pc.fill_null(pc.list_value_length(values), 0), 0), "no message")


def _row_fault(faulty: pa.ChunkedArray, what: str) -> str | None:
    first = pc.index(pc.fill_null(faulty, True), True).as_py()
    return None if first < 0 else f"has {what} in row {first}"


Columns = dict[str, list[Any]]


def _embedding(task: str, columns: Columns) -> Columns:
    count = len(columns["anchor"])
    given = {
        name: columns.get(name) or [None] * count
        for name in ("id", "instruction", "negative", "more_negatives", "anchor_id", "positive_id", "negative_ids")
    }
    rows = [dict(zip(given, values, strict=True)) for values in zip(*given.values(), strict=True)]
    filled = [
        _embedding_row(task, row, anchor, positive)
        for row, anchor, positive in zip(rows, columns["anchor"], columns["positive"], strict=True)
    ]
    return {name: [row[name] for row in filled] for name in ("anchor", "positive", *given)}


def _embedding_row(task: str, given: Mapping[str, Any], anchor: str, positive: str) -> dict[str, Any]:
    negatives = [text for text in (given["negative"], *(given["more_negatives"] or [])) if text]
    sample = _text_id(given["id"], f"{anchor}\n{positive}")
    ids = given["negative_ids"] or [None] * len(negatives)
    if len(ids) != len(negatives):
        raise RecfoundError(f"{task}: sample {sample}: {len(ids)} negative_ids for {len(negatives)} negatives")
    return {
        "id": sample,
        "instruction": given["instruction"] or instruction_of(task),
        "anchor": anchor,
        "positive": positive,
        "negative": next(iter(negatives), None),
        "more_negatives": negatives[1:],
        "anchor_id": _text_id(given["anchor_id"], anchor),
        "positive_id": _text_id(given["positive_id"], positive),
        "negative_ids": [_text_id(one, text) for one, text in zip(ids, negatives, strict=True)],
    }


def _generative(task: str, columns: Columns) -> Columns:  # noqa: ARG001  (one signature for both kinds)
    prompts: Sequence[Any] = columns["prompt"]
    given = columns.get("id") or [None] * len(prompts)
    ids = [_text_id(one, repr(prompt)) for one, prompt in zip(given, prompts, strict=True)]
    return {"id": ids, "prompt": list(prompts), "completion": columns["completion"]}


def _text_id(given: object, text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16] if given is None else str(given)
