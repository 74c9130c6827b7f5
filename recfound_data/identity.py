"""Ids and draws that stay the same over machines, versions and workers.

SHA-256 names things; xxHash3 draws. Both come from `polars-hash`, which documents them as stable; polars' own `hash`
may change with its version.
"""

from __future__ import annotations

import polars as pl
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


def share(seed: int, salt: str, *parts: pl.Expr) -> pl.Expr:
    """Return a uniform draw in [0, 1) that depends on the seed, the salt and the parts alone."""
    return (draw(seed, salt, *parts) // 2048).cast(pl.Float64) / float(1 << 53)


def sample_id(group: pl.Expr, *parts: pl.Expr | str) -> pl.Expr:
    """Return `<group>-<digest>`: what a split must not tear apart, then a hash of what the sample is made of."""
    return pl.concat_str([group, stable_id(*parts)], separator="-")
