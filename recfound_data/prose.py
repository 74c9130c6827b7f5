"""Sentences composed of facts, for all rows of a frame at once.

A sentence is null where one of its facts is: what is not known is not said.
"""

from __future__ import annotations

import re
from functools import reduce

import polars as pl

from recfound_data.identity import draw

SCALES = (5, 10, 100)
"""The highest ratings that corpora know."""
HIGH, GOOD, POOR, LOW = 0.84, 0.7, 0.56, 0.4
"""Ratings from here up are high or good, down to here poor or low, as shares of the scale: 4.2, 3.5, 2.8, 2 of 5."""

_NAME = re.compile(r"\{(\w+)\}")
_YEAR = r"(?i)\byear\b"
_VOWEL = r"(?i)^(?:[aeio]|u(?:[^ns]|n[^i]|$))"
_WORKS = r"(?i)film|movie|book|music|video|game|kindle"


def one_of(patterns: tuple[str, ...], seed: int, salt: str, sample: pl.Expr, **facts: pl.Expr) -> pl.Expr:
    """Return one of the patterns, drawn by the sample, with the facts in the places that bear their names."""
    at = draw(seed, salt, sample) % len(patterns)
    chosen = pl.lit(None, pl.String)
    for place, pattern in enumerate(patterns):
        chosen = pl.when(at == place).then(filled(pattern, **facts)).otherwise(chosen)
    return chosen


def filled(pattern: str, **facts: pl.Expr) -> pl.Expr:
    """Return the pattern with the facts in their places; null where one of them is."""
    return pl.format(_NAME.sub("{}", pattern), *(facts[name] for name in _NAME.findall(pattern)))


def paragraph(most: int, *sentences: pl.Expr) -> pl.Expr:
    """Return the first `most` sentences that are not null, each begun with a capital."""
    begun = [pl.concat_str(text.str.slice(0, 1).str.to_uppercase(), text.str.slice(1)) for text in sentences]
    return pl.concat_list(begun).list.drop_nulls().list.head(most).list.join(" ")


def listed(names: pl.Expr) -> pl.Expr:
    """Return a list as people write it: `a`, `a and b`, `a, b and c`; null where it is empty."""
    count = names.list.len().cast(pl.Int64)
    before = names.list.head(pl.max_horizontal(count - 1, 0)).list.join(", ")
    return pl.when(count > 1).then(pl.format("{} and {}", before, names.list.last())).otherwise(names.list.last())


def quoted(title: pl.Expr) -> pl.Expr:
    """Return a title between quotation marks that no title in inches holds."""
    return pl.format("“{}”", title)


def figure(number: pl.Expr) -> pl.Expr:
    """Return a rating or a mean with at most one decimal: `4`, `4.5`."""
    return number.cast(pl.Float64).round(1).cast(pl.String).str.strip_suffix(".0")


def agreeing(count: pl.Expr, one: str, many: str) -> pl.Expr:
    """Return the word that goes with a count."""
    return pl.when(count == 1).then(pl.lit(one)).otherwise(pl.lit(many))


def article(word: pl.Expr) -> pl.Expr:
    """Return `an` before a vowel and `a` elsewhere."""
    return pl.when(word.str.contains(_VOWEL)).then(pl.lit("an")).otherwise(pl.lit("a"))


def with_more(names: pl.Expr, total: pl.Expr) -> pl.Expr:
    """Return the list with a last entry for those of `total` that it leaves out: `3 more`; none where it has all."""
    left = total.cast(pl.Int64) - names.list.len().cast(pl.Int64)
    return pl.when(left > 0).then(pl.concat_list(names, pl.format("{} more", left))).otherwise(names)


def at_least(mean: pl.Expr, share: float, scale: int) -> pl.Expr:
    """Return whether a mean, as `figure` shows it, is at least this share of the scale."""
    return mean.cast(pl.Float64).round(1) >= share * scale - 1e-6


def at_most(mean: pl.Expr, share: float, scale: int) -> pl.Expr:
    """Return whether a mean, as `figure` shows it, is at most this share of the scale."""
    return mean.cast(pl.Float64).round(1) <= share * scale + 1e-6


def things(domain: pl.Expr) -> pl.Expr:
    """Return what the choices of a domain are called: `titles` where they are works, `items` elsewhere."""
    works = domain.fill_null("").str.contains(_WORKS)
    return pl.when(works).then(pl.lit("titles")).otherwise(pl.lit("items"))


def kind(domain: pl.Expr) -> pl.Expr:
    """Return what one thing of a domain is called: `film`, `book`, or `item` elsewhere."""
    domain = domain.fill_null("")
    named = pl.when(domain.str.contains(r"(?i)film|movie")).then(pl.lit("film"))
    return named.when(domain.str.contains(r"(?i)book")).then(pl.lit("book")).otherwise(pl.lit("item"))


def year(facts: pl.Expr) -> pl.Expr:
    """Return the first of a list of facts that is called a year, as four digits; null where there is none."""
    name, value = pl.element().struct.field("name"), pl.element().struct.field("value")
    years = facts.list.eval(value.filter(name.str.contains(_YEAR)).str.extract(r"^\s*(1\d{3}|20\d{2})\b"))
    return years.list.drop_nulls().list.first()


def rating_scale(item_stats: pl.DataFrame | None) -> int:
    """Return the highest rating that the corpus knows, by the mean ratings of its items in the training period."""
    highest = None if item_stats is None or item_stats.is_empty() else item_stats["rating_mean"].cast(pl.Float64).max()
    return next((scale for scale in SCALES if not isinstance(highest, float) or highest <= scale), SCALES[-1])


def joined(parts: list[pl.Expr], separator: str) -> pl.Expr:
    """Return the parts that are not null, joined; null where all are."""
    text = pl.concat_str(parts, separator=separator, ignore_nulls=True)
    return pl.when(reduce(lambda some, part: some | part.is_not_null(), parts, pl.lit(False))).then(text)


def not_empty(text: pl.Expr) -> pl.Expr:
    """Return a text, null where it is empty."""
    return pl.when(text != "").then(text)
