"""Embedding samples against the catalogue and the judgements: positives, negatives, and what holds a pair together."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfound_data.checking.catalogue import Items, Judgements
from recfound_data.checking.findings import Findings
from recfound_data.checking.keys import Keys, hash_of, hashed, paired, repeated
from recfound_data.checking.people import check_people
from recfound_data.checking.rows import Batch, Rows
from recfound_data.checking.samples import (
    Remembered,
    check_common,
    check_counts,
    check_ids,
    check_torn,
    check_twins,
    ids_and_groups,
)
from recfound_data.checking.texts import ANCHOR_CHARS
from recfound_data.cleaning import title_key


def check_embedding(
    rows: Rows, items: Items, judgements: Judgements, manifest: dict[str, Any], findings: Findings
) -> Keys:
    """Check one embedding task and return the hash of each row's group."""
    task, counts, kept = rows.config, Counter[tuple[str, str]](), Remembered()
    for batch in rows.batches():
        frame = check_common(batch, task, manifest, counts, findings)
        _check_texts(task, frame, findings)
        ids, groups = ids_and_groups(frame)
        anchors, positives = _check_pairs(task, frame, batch, items, judgements, findings)
        _check_negatives(task, frame, anchors, positives, items, judgements, findings)
        twins = paired(hash_of(frame["anchor"]), hash_of(frame["positive"]))
        kept.add(ids=ids, groups=groups, twins=twins, ends=_ends(task, frame, anchors, positives, items))
    check_counts(task, rows, counts, manifest, findings)
    check_ids(task, rows, kept["ids"], kept["groups"], findings)
    what = {"item2item": "pair of items", "query2item": "query"}.get(task)
    if what:
        check_torn(what, rows, kept["ends"], findings)
    check_twins(rows, kept["twins"], findings)
    return kept["groups"]


def _check_texts(task: str, frame: pl.DataFrame, findings: Findings) -> None:
    # Positives and negatives are their items' texts, which are looked through where the items are.
    check_people(frame, task, {name: frame[name] for name in ("instruction", "anchor")}, "id", findings)
    columns = ("instruction", "anchor", "positive", "negative")
    empty = pl.any_horizontal(pl.col(column).str.strip_chars() == "" for column in columns)
    empty |= pl.col("more_negatives").list.contains("")
    findings.rows("empty text", task, frame.filter(empty), "id")
    long = frame.filter(pl.col("anchor").str.len_chars() > ANCHOR_CHARS)
    findings.rows(f"anchor longer than {ANCHOR_CHARS:,} characters", task, long, "id")
    if task == "user2item":
        raw = frame.filter(~pl.col("anchor_id").str.contains(r"^[0-9a-f]{16}$"))
        findings.rows("user id is not a hash", task, raw, "id", "anchor_id")


def _check_pairs(
    task: str, frame: pl.DataFrame, batch: Batch, items: Items, judgements: Judgements, findings: Findings
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Check anchors with their positives; return where both stand among the items, -1 for what is none."""
    queries, answers = hash_of(frame["anchor_id"]), hash_of(frame["positive_id"])
    anchors, positives = items.find(queries), items.find(answers)

    def fault(rule: str, mask: NDArray[np.bool_], *columns: str) -> None:
        findings.rows(rule, task, frame.filter(pl.Series(mask)), "id", *columns)

    fault("positive is not its item's text", _differs(items, positives, frame["positive"]), "positive_id")
    if task == "item2item":
        fault("anchor is not its item's text", _differs(items, anchors, frame["anchor"]), "anchor_id")
    both = (anchors >= 0) & (positives >= 0)
    same = (queries == answers) | (both & (items.product[anchors] == items.product[positives]))
    fault("anchor is the positive or its duplicate", same, "positive_id")
    place = hash_of(frame.select(pl.concat_str("corpus", "domain", separator="\x1f")).to_series())
    fault("sample is not of its positive's corpus and domain", (positives >= 0) & (items.place[positives] != place))
    fault("query not in queries of its split", ~judgements.asked(queries, batch.split), "anchor_id")
    fault("positive not in qrels of its split", ~judgements.listed(queries, answers, batch.split), "positive_id")
    return anchors, positives


def _differs(items: Items, found: NDArray[np.int64], texts: pl.Series) -> NDArray[np.bool_]:
    """Return whether a text is another than that of the item found, or no item was."""
    return (found < 0) | (items.text[found] != hash_of(texts))


def _check_negatives(
    task: str,
    frame: pl.DataFrame,
    anchors: NDArray[np.int64],
    positives: NDArray[np.int64],
    items: Items,
    judgements: Judgements,
    findings: Findings,
) -> None:
    lengths = frame["negative_ids"].list.len().to_numpy().astype(np.int64)
    whole = lengths == frame["more_negatives"].list.len().to_numpy().astype(np.int64) + 1
    findings.rows("negatives and their ids differ in number", task, frame.filter(pl.Series(~whole)), "id")
    if not whole.all():
        frame, anchors, positives = frame.filter(pl.Series(whole)), anchors[whole], positives[whole]
        lengths = lengths[whole]
    if not len(frame):
        return
    row = np.repeat(np.arange(len(frame)), lengths)
    first = np.zeros(len(row), bool)
    first[np.cumsum(lengths) - lengths] = True
    text = np.empty(len(row), np.uint64)
    text[first] = hash_of(frame["negative"])
    text[~first] = hash_of(frame["more_negatives"].explode(empty_as_null=False))
    named = frame["negative_ids"].explode()
    ids, queries, answers = hash_of(named), hash_of(frame["anchor_id"])[row], hash_of(frame["positive_id"])[row]
    found, anchor, positive = items.find(ids), anchors[row], positives[row]

    def fault(rule: str, mask: NDArray[np.bool_]) -> None:
        if mask.any():
            at = np.flatnonzero(mask)
            shown = pl.DataFrame({"id": frame["id"][row[at]], "negative_id": named[at]})
            findings.rows(rule, task, shown, "id", "negative_id")

    fault("negative is not its item's text", (found < 0) | (items.text[found] != text))
    both = (found >= 0) & (positive >= 0)
    fault("negative of another corpus or domain", both & (items.place[found] != items.place[positive]))
    product = items.product
    fault(
        "negative is the positive or its duplicate", (ids == answers) | (both & (product[found] == product[positive]))
    )
    both = (found >= 0) & (anchor >= 0)
    fault("negative is the anchor or its duplicate", (ids == queries) | (both & (product[found] == product[anchor])))
    fault("negative is a known positive", judgements.known(task, queries, ids))
    again = np.zeros(len(row), bool)
    again[repeated(paired(row.astype(np.uint64), ids))] = True
    fault("negative repeated", again)


def _ends(
    task: str, frame: pl.DataFrame, anchors: NDArray[np.int64], positives: NDArray[np.int64], items: Items
) -> Keys:
    """Return what must be in one split beside the group: the two products of a pair, a query's words; 0 for nothing."""
    if task == "query2item":
        words = frame.select(hashed(pl.col("corpus"), pl.col("domain"), title_key(pl.col("anchor"))))
        return words.to_series().to_numpy()
    none = np.zeros(len(frame), np.uint64)
    if task != "item2item":
        return none
    # Two offers of one product are one end of a pair.
    ends = items.product[anchors], items.product[positives]
    keys = paired(paired(np.minimum(*ends), np.maximum(*ends)), items.place[positives])
    return np.where((anchors >= 0) & (positives >= 0), keys, none)
