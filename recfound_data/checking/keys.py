"""Sets of 64-bit hashes, in arrays: what occurs again, what lies on two sides, what is known."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from polars_hash import NonCryptographicHashingNameSpace

Keys = NDArray[np.uint64]
Positions = NDArray[np.int64]
_MIX = np.uint64(0x9E3779B97F4A7C15)


def hashed(*parts: pl.Expr) -> pl.Expr:
    """Return 64 bits for each row's parts, texts without nulls."""
    text = parts[0] if len(parts) == 1 else pl.concat_str(parts, separator="\x1f")
    return NonCryptographicHashingNameSpace(text).xxh3_64()


def hash_of(texts: pl.Series) -> Keys:
    """Return 64 bits for each text; null counts as an empty text."""
    return texts.to_frame("text").select(hashed(pl.col("text").fill_null(""))).to_series().to_numpy()


def paired(left: Keys, right: Keys) -> Keys:
    """Return one key for each pair of keys; the order of the two matters."""
    mixed = (left ^ (left >> np.uint64(29))) * _MIX
    return (mixed ^ (mixed >> np.uint64(32))) + right


def joined(parts: Iterable[Keys]) -> Keys:
    """Return the keys of all parts in one array, an empty one where there is none."""
    listed = list(parts)
    return np.concatenate(listed) if listed else np.empty(0, np.uint64)


def repeated(keys: Keys) -> Positions:
    """Return where keys stand that occur more than once, equal ones side by side."""
    order, starts = _runs(keys)
    lengths = np.diff(np.append(starts, len(keys)))
    return order[np.repeat(lengths > 1, lengths)]


def torn(keys: Keys, sides: NDArray[Any]) -> Positions:
    """Return where keys stand that occur on more than one side, equal ones side by side, then by side."""
    order, starts = _runs(keys)
    if not len(keys):
        return order
    sorted_sides = sides[order]
    low, high = np.minimum.reduceat(sorted_sides, starts), np.maximum.reduceat(sorted_sides, starts)
    found = order[np.repeat(low != high, np.diff(np.append(starts, len(keys))))]
    return found[np.lexsort((sides[found], keys[found]))]


def _runs(keys: Keys) -> tuple[Positions, Positions]:
    """Return the order that sorts keys, and where in it each run of equal ones begins."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    begins = np.ones(len(keys), bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    return order, np.flatnonzero(begins)


class Lookup:
    """Known keys; asked in blocks, each sorted first so that memory is walked through once."""

    def __init__(self, keys: Keys, positions: bool = False) -> None:
        """Take the keys; `positions` keeps where each stood, which `find` needs."""
        self._order = np.argsort(keys, kind="stable") if positions else None
        self._keys = keys[self._order] if self._order is not None else np.sort(keys)

    def contains(self, keys: Keys) -> NDArray[np.bool_]:
        """Return for each key whether it is known."""
        return self._places(keys)[1]

    def find(self, keys: Keys) -> Positions:
        """Return for each key where it stood first, -1 where it is not known."""
        assert self._order is not None, "positions were not kept"
        places, known = self._places(keys)
        found = np.full(len(keys), -1, np.int64)
        found[known] = self._order[places[known]]
        return found

    def _places(self, keys: Keys) -> tuple[Positions, NDArray[np.bool_]]:
        if not len(self._keys):
            return np.zeros(len(keys), np.int64), np.zeros(len(keys), bool)
        order = np.argsort(keys)
        places = np.empty(len(keys), np.int64)
        places[order] = np.searchsorted(self._keys, keys[order])
        known = self._keys[np.minimum(places, len(self._keys) - 1)] == keys
        return places, known & (places < len(self._keys))
