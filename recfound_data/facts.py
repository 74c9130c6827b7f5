"""Facts of items and users, names and values to be read, and the few that several corpora tell of people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import polars as pl

from recfound_data.cleaning import clean
from recfound_data.tables import TABLES

PRIVATE = (
    r"(?i)(^|[^a-z])(zip|zip[ _-]?code|post[ _-]?code|postal[ _-]?code|city|town|ip|street|address|e-?mail|phone|mobile"
    r"|location|residence|latitude|longitude|date[ _-]?of[ _-]?birth|birth[ _-]?da(y|te)"
    r"|(user|first|last|full|nick|sur|family|reviewer|screen|display)[ _-]?name)"
    r"($|[^a-z])|^name$"
)
"""Names of facts and columns that tell who or where a person is."""
_AGES = ((18, "under 18"), (25, "18-24"), (35, "25-34"), (45, "35-44"), (50, "45-49"), (56, "50-55"))
_OLDEST = "56 or older"


def facts(known: Mapping[str, pl.Expr]) -> pl.Expr:
    """Return a list of facts in the order of `known`, cleaned; what is null or empty is left out."""
    pairs = [pl.struct(name=pl.lit(name), value=clean(value.cast(pl.String))) for name, value in known.items()]
    dtype = TABLES["items"]["facts"]
    if not pairs:
        return pl.lit([], dtype)
    return pl.concat_list(pairs).list.filter(pl.element().struct.field("value") != "").cast(dtype)


def age_group(age: pl.Expr) -> pl.Expr:
    """Return an age in years, or the first year of a group, as MovieLens's groups; null under 5 and over 100."""
    years = age.cast(pl.Float64, strict=False)
    group = pl.lit(_OLDEST)
    for limit, name in reversed(_AGES):
        group = pl.when(years < limit).then(pl.lit(name)).otherwise(group)
    return pl.when(years.is_between(5, 100)).then(group)


def gender(code: pl.Expr) -> pl.Expr:
    """Return `male` or `female` for the usual codes, null for all else."""
    words = {"m": "male", "male": "male", "f": "female", "female": "female"}
    return code.cast(pl.String).str.to_lowercase().replace_strict(words, default=None, return_dtype=pl.String)


def private(names: Iterable[str]) -> str | None:
    """Return the first of the names of facts or columns that tells who or where a person is, if there is one."""
    return next((name for name in names if re.search(PRIVATE, name)), None)
