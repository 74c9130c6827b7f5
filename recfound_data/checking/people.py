"""People stay out: no e-mail address, no phone number, no raw user id in what was written."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from recfound_data.checking.findings import Findings
from recfound_data.people import EMAIL, PHONE


def check_people(
    frame: pl.DataFrame, config: str, texts: Mapping[str, pl.Series], name: str, findings: Findings
) -> None:
    """Look for addresses and numbers in texts by the name of their column; `name` is the column shown beside them."""
    for column, series in texts.items():
        text = frame.select(name, text=series)
        for rule, pattern in (("e-mail address", EMAIL), ("phone number", PHONE)):
            faulty = text.filter(pl.col("text").str.contains(pattern))
            shown = faulty.with_columns(pl.col("text").str.extract(f"(.{{0,20}}(?:{pattern}))", 1))
            findings.rows(rule, f"{config}.{column}", shown, name, "text")
