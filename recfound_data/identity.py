"""Ids and draws that stay the same over machines, versions and workers.

SHA-256 names things; xxHash3 draws. Both come from `polars-hash`, which documents them as stable; polars' own `hash`
may change with its version.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray
from polars_hash import CryptographicHashingNameSpace, NonCryptographicHashingNameSpace

ID_CHARS = 16


def stable_id(*parts: pl.Expr | str) -> pl.Expr:
    """Return 16 hexadecimal digits of SHA-256 over the parts, joined by a unit separator; a bare str is a literal."""
    joined = pl.concat_str(
        [pl.lit(part) if isinstance(part, str) else part.cast(pl.String) for part in parts], separator="\x1f"
    )
    return CryptographicHashingNameSpace(joined).sha2_256().str.slice(0, ID_CHARS)


def draw(seed: int, salt: str, *parts: pl.Expr) -> pl.Expr:
    """Return a uniform 64-bit draw that depends on the seed, the salt and the parts alone."""
    joined = pl.concat_str([pl.lit(f"{seed}\x1f{salt}"), *(part.cast(pl.String) for part in parts)], separator="\x1f")
    return NonCryptographicHashingNameSpace(joined).xxh3_64()


def hash64(text: pl.Expr) -> pl.Expr:
    """Return the 64 bits of xxHash3 of a text."""
    return NonCryptographicHashingNameSpace(text).xxh3_64()


def share(seed: int, salt: str, *parts: pl.Expr) -> pl.Expr:
    """Return a uniform draw in [0, 1) that depends on the seed, the salt and the parts alone."""
    return (draw(seed, salt, *parts) // 2048).cast(pl.Float64) / float(1 << 53)


def sample_id(group: pl.Expr, *parts: pl.Expr | str) -> pl.Expr:
    """Return `<group>-<digest>`: what a split must not tear apart, then a hash of what the sample is made of."""
    return pl.concat_str([group, stable_id(*parts)], separator="-")


def seeds_of(ids: pl.Series, seed: int, purpose: str = "") -> NDArray[np.uint64]:
    """Return what the draws of each sample come from: 64 bits of its id, the recipe's seed and the purpose."""
    return ids.to_frame("id").select(hash64(pl.concat_str(pl.lit(f"{seed}{purpose}"), "id"))).to_series().to_numpy()


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return SplitMix64's output function of each value: a bijection whose results look drawn.

    Source: Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def drawn(seeds: NDArray[np.uint64], count: int, first: int = 0) -> NDArray[np.uint64]:
    """Return the `count` draws from number `first` on of each row's own stream: `[rows, count]` of 64 bits."""
    steps = np.arange(first + 1, first + count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return mixed(seeds[:, None] + steps[None, :])


def combined(values: NDArray[np.uint64], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return one 64-bit hash for each run of `values`, which depends on their order: `[runs]`.

    Args:
        values: hashes, run after run.
        starts: where each run begins.
        lengths: how many values each run has; 0 gives 0.
    """
    place = np.arange(len(values), dtype=np.int64) - np.repeat(starts, lengths)
    salted = mixed(values + mixed(place.astype(np.uint64) + np.uint64(1)))
    total = np.concatenate(([np.uint64(0)], np.cumsum(salted, dtype=np.uint64)))
    return total[starts + lengths] - total[starts]
