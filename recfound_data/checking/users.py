"""A user's held-out targets stay out of training, as its target and in what it is shown to have chosen."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recfound_data.checking.catalogue import Items
from recfound_data.checking.findings import Findings
from recfound_data.checking.keys import Keys, Lookup, hash_of, hashed, joined, paired, torn
from recfound_data.checking.rows import Rows
from recfound_data.checking.samples import group_of
from recfound_data.checking.texts import spoken
from recfound_data.cleaning import product_key
from recfound_data.samples import LETTERS

TARGETS = ("user2item", "sequential_recommendation")
SHOWN = ("user2item", "sequential_recommendation", "sentiment_analysis", "user_profile")
_CHOSEN = r"^(?:- |Item: )"
"""How a line of a prompt begins that names something the user chose."""
_RATED = r"(?: \[[^\[\]]*\])?: [0-9]+(?:\.[0-9]+)?$"
"""How such a line ends in a profile's history: what is known of the item, and its rating."""


def check_users(rows: dict[str, Rows], items: Items, findings: Findings) -> None:
    """Check the targets of all tasks that have users, together."""
    tasks = [task for task in TARGETS if task in rows]
    keys = [_targets(rows[task], items) for task in tasks]
    splits = [rows[task].splits() for task in tasks]
    if not tasks:
        return
    found = torn(joined(keys), np.concatenate(splits))
    _show_across([rows[task] for task in tasks], "leak: a user's target in more than one split", found, findings)
    held = Lookup(joined(key[split > 0] for key, split in zip(keys, splits, strict=True)))
    for task in SHOWN:
        if task in rows:
            _check_shown(rows[task], held, findings)


def _owner(*more: pl.Expr) -> pl.Expr:
    return hashed(group_of(pl.col("id")), pl.col("corpus"), *more)


def _targets(rows: Rows, items: Items) -> Keys:
    """Return a hash of each row's user, corpus and target product."""
    found = []
    columns = ("id", "corpus", "positive_id") if rows.config == "user2item" else ("id", "corpus", "label", "options")
    for batch in rows.batches(columns):
        frame = batch.frame.with_columns(pl.col("id", "corpus").fill_null(""))
        if rows.config == "user2item":
            product = items.product[items.find(hash_of(frame["positive_id"]))]
        else:
            places = {letter: place for place, letter in enumerate(LETTERS)}
            place = pl.col("label").replace_strict(places, default=None, return_dtype=pl.Int64)
            title = pl.col("options").list.get(place, null_on_oob=True)
            product = hash_of(frame.select(product_key(title)).to_series())
        found.append(paired(frame.select(_owner()).to_series().to_numpy(), product))
    return joined(found)


def _check_shown(rows: Rows, held: Lookup, findings: Findings) -> None:
    """Training samples show no held-out target of their user among what it chose."""
    column = "anchor" if rows.config == "user2item" else "prompt"
    for batch in rows.batches(("id", "corpus", column), splits=("train",)):
        frame = batch.frame.with_columns(pl.col("id", "corpus").fill_null(""))
        lines = _chosen_lines(spoken(frame, column), rows.config)
        product = hash_of(lines.select(product_key(pl.col("title"))).to_series())
        owner = frame.select(_owner()).to_series().to_numpy()
        row = lines["row"].to_numpy()
        told = held.contains(paired(owner[row], product))
        faulty = lines.filter(pl.Series(told)).with_columns(id=frame["id"][row[told]])
        findings.rows("leak: a held-out target is shown in training", rows.config, faulty, "id", "title")


def _chosen_lines(texts: pl.Series, task: str) -> pl.DataFrame:
    """Return the titles that a user is shown to have chosen: `row`, `title`."""
    lines = pl.DataFrame({"row": np.arange(len(texts)), "title": texts.str.split("\n")}).explode("title").drop_nulls()
    if task == "user2item":
        return lines
    marked = lines.filter(pl.col("title").str.contains(_CHOSEN))
    return marked.with_columns(pl.col("title").str.replace(_CHOSEN, "").str.replace(_RATED, ""))


def check_shared_groups(
    what: str, tasks: Iterable[str], rows: dict[str, Rows], groups: dict[str, Keys], findings: Findings
) -> None:
    """Groups that several tasks have are in one split of all of them."""
    having = [task for task in tasks if task in groups]
    if len(having) < 2:
        return
    keys = joined(groups[task] for task in having)
    found = torn(keys, np.concatenate([rows[task].splits() for task in having]))
    starts = np.cumsum([0, *(len(groups[task]) for task in having)])
    place = np.searchsorted(starts, found, side="right") - 1
    # A group torn within one task was reported there.
    positions = found[torn(keys[found], place)]
    _show_across([rows[task] for task in having], f"leak: {what} in more than one split", positions, findings)


def _show_across(rows: list[Rows], rule: str, positions: NDArray[np.int64], findings: Findings) -> None:
    """Report rows of several tasks by their position in all of them, one after the other."""
    if not len(positions):
        return
    starts = np.cumsum([0, *(len(part) for part in rows)])
    shown = []
    for position in positions[:3]:
        place = int(np.searchsorted(starts, position, side="right")) - 1
        shown.append(rows[place].at([int(position - starts[place])], ("task", "id")))
    where = " and ".join(part.config for part in rows)
    findings.rows(rule, where, pl.concat(shown), "task", "split", "id", count=len(positions))
