"""Text as people read it: entities resolved, tags and scripts gone, white space folded, people's addresses out."""

from __future__ import annotations

import html.entities

import polars as pl

from recfound_data.people import scrub

_NUMERIC = {
    f"&#{code};": chr(code)
    for code in (*range(32, 127), *range(160, 256), 8211, 8212, 8216, 8217, 8220, 8221, 8226, 8230, 8482)
}
_NAMED = {f"&{name}": text for name, text in html.entities.html5.items() if name.endswith(";")}
ENTITIES = {**_NAMED, **_NUMERIC}
OPTION_CHARS = 90
"""The longest title of an item in a history or an option."""

_SCRIPT = r"(?is)<(script|style)\b.*?</(script|style)\s*>|<!--.*?-->"
_INLINE = r"(?is)</?(?:a|b|big|em|font|i|mark|small|span|strong|sub|sup|u)\b[^<>]*>"
"""Tags that stand inside of words and sentences; where others were, a space stays."""
_TAG = r"(?s)</?[a-zA-Z][^<>]*>"
SCRIPT_JUNK = r"getTime\(\)|\bfunction\s*\(|\bvar\s+\w+\s*=|\{\s*display\s*:"
"""What is left of a page's script where a title should be, as in Amazon's 2014 and 2018 metadata."""


def clean(text: pl.Expr) -> pl.Expr:
    """Return `text` as a person reads it; an empty string where nothing is left.

    Entities are resolved before and after tags go, because the corpora escape both once and twice.
    """
    names = list(ENTITIES)
    values = list(ENTITIES.values())
    text = text.fill_null("").str.replace_many(names, values).str.replace_all(_SCRIPT, " ")
    text = text.str.replace_all(_INLINE, "").str.replace_all(_TAG, " ").str.replace_many(names, values)
    text = text.str.replace_all(_INLINE, "").str.replace_all(_TAG, " ")
    return scrub(text).str.replace_all(r"[\s\p{Cc}\x{a0}\x{200b}\x{feff}]+", " ").str.strip_chars()


def title_key(title: pl.Expr) -> pl.Expr:
    """Return what two titles of the same product share: letters and digits in lower case, nothing else.

    A title without any, such as one of symbols alone, stays as it is.
    """
    key = title.str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}]+", " ").str.strip_chars()
    return pl.when(key == "").then(title).otherwise(key)


def product_key(title: pl.Expr) -> pl.Expr:
    """Return what two offers of one product share: titles that read the same as far as a list of options shows them."""
    return title_key(shorten(title, OPTION_CHARS))


def shorten(text: pl.Expr, chars: int) -> pl.Expr:
    """Return `text` cut to at most `chars` characters, after a whole word where there is one."""
    cut = text.str.slice(0, chars)
    whole = cut.str.replace(r"\s+\S*$", "")
    return pl.when(text.str.len_chars() <= chars).then(text).otherwise(pl.when(whole == "").then(cut).otherwise(whole))
