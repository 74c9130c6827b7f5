"""Rules that samples of both kinds keep: ids, names, and no group or text on two sides of a split."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import polars as pl

from recfound_data.checking.findings import Findings
from recfound_data.checking.keys import Keys, hash_of, joined, repeated, torn
from recfound_data.checking.rows import Batch, Rows, show
from recfound_data.checking.texts import check_nulls

GROUPS_MAY_BE_TORN = ("user2item", "sequential_recommendation")
"""Tasks that split a user's history by time: the user is on all sides, its targets are not."""
_ID = r"^[0-9a-f]{16}-[0-9a-f]{16}$"


def group_of(ids: pl.Expr) -> pl.Expr:
    """Return what stands before the dash of an id."""
    return ids.str.split_exact("-", 1).struct.field("field_0").fill_null("")


class Remembered:
    """What is kept of each row of a task: named arrays of hashes, grown a batch at a time."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Keys]] = {}

    def add(self, **keys: Keys) -> None:
        """Append the keys of a batch."""
        for name, values in keys.items():
            self._parts.setdefault(name, []).append(values)

    def __getitem__(self, name: str) -> Keys:
        return joined(self._parts.get(name, []))


def check_common(
    batch: Batch, task: str, manifest: dict[str, Any], counts: Counter, findings: Findings
) -> pl.DataFrame:
    """Check ids and names of a batch, count its rows by corpus and split, and return it without missing values."""
    frame = check_nulls(batch.frame, task, "id", findings)
    findings.rows("id is not a group and a digest", task, frame.filter(~pl.col("id").str.contains(_ID)), "id")
    findings.rows("sample of another task", task, frame.filter(pl.col("task") != task), "id", "task")
    foreign = frame.filter(~pl.col("corpus").is_in(list(manifest["corpora"])))
    findings.rows("corpus not in the manifest", task, foreign, "id", "corpus")
    for corpus, rows in frame["corpus"].value_counts().iter_rows():
        counts[corpus, batch.split] += rows
    return frame


def check_counts(config: str, rows: Rows, counts: Counter, manifest: dict[str, Any], findings: Findings) -> None:
    """Compare rows by split, and by corpus and split, with the manifest."""
    entry = manifest["configs"][config]
    splits: Counter[str] = Counter()
    for part in rows.parts:
        splits[part.split] += part.rows
    found: dict[str, Any] = {"splits": dict(splits)}
    if "corpora" in entry:
        corpora: dict[str, dict[str, int]] = {}
        for (corpus, split), count in counts.items():
            corpora.setdefault(corpus, {})[split] = count
        found["corpora"] = corpora
    expected = {name: entry[name] for name in found}
    if found != expected:
        findings.add("rows differ from the manifest", config, examples=[f"found {found}", f"expected {expected}"])


def check_ids(task: str, rows: Rows, ids: Keys, groups: Keys, findings: Findings) -> None:
    """An id is there once, in all splits together; the rows of a group are in one split."""
    show(findings, "id repeated", rows, repeated(ids), "id", "split")
    if task not in GROUPS_MAY_BE_TORN:
        check_torn("group", rows, groups, findings)


def check_torn(what: str, rows: Rows, keys: Keys, findings: Findings) -> None:
    """Rows of one key are in one split; rows whose key is 0 have none."""
    having = np.flatnonzero(keys)
    found = having[torn(keys[having], rows.splits()[having])]
    show(findings, f"leak: {what} in more than one split", rows, found, "id", "split")


def check_twins(rows: Rows, twins: Keys, findings: Findings) -> None:
    """The same text with the same answer twice: within a split a duplicate, over splits a leak."""
    splits = rows.splits()
    show(findings, "leak: the same sample in more than one split", rows, torn(twins, splits), "id", "split")
    for split in np.unique(splits):
        mine = np.flatnonzero(splits == split)
        again = mine[repeated(twins[mine])]
        show(findings, "sample repeated", rows, again, "id", "split")


def ids_and_groups(frame: pl.DataFrame) -> tuple[Keys, Keys]:
    """Return hashes of a batch's ids and of their groups."""
    return hash_of(frame["id"]), hash_of(frame.select(group_of(pl.col("id"))).to_series())
