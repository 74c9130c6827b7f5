"""People stay out: user ids are hashed under a secret key, e-mail addresses and phone numbers leave texts."""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass, replace

import polars as pl
from polars_hash import CryptographicHashingNameSpace

KEY_VARIABLE = "RECFOUND_USER_KEY"
_NO_KEY = "recfound: no user key"

EMAIL = r"[A-Za-z0-9._%+\-]+@[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)*\.[A-Za-z]{2,}"
PHONE = (
    r"(?:\+\d{1,3}[ .\-]?)?(?:\(\d{3}\)[ .\-]?|\b\d{3}[.\-])\d{3}[ .\-]\d{4}\b"  # +1 (212) 555-0123, 212.555.0123
    r"|\+\d{1,3}(?:[ .\-]\d{2,4}){3,4}\b"  # +44 20 7946 0123
    r"|\b\d{3}-01\d{2}\b"  # 555-0123, the range kept for fiction
)
"""Phone numbers as they are written for people: grouped digits. Bare digit runs are left, they are mostly models."""


@dataclass(frozen=True)
class UserKey:
    """The secret under which user ids are hashed; `secret` is false when the environment has none."""

    key: str
    secret: bool
    corpus: str = ""

    @classmethod
    def from_environment(cls) -> UserKey:
        """Return the key in `RECFOUND_USER_KEY`, or a public stand-in whose builds cannot be published."""
        key = os.environ.get(KEY_VARIABLE, "")
        return cls(key or _NO_KEY, bool(key))

    def within(self, corpus: str) -> UserKey:
        """Return the key for one corpus: the same raw id in two corpora is two users, a query id names one history."""
        return replace(self, corpus=corpus)

    def pseudonym(self, user: pl.Expr) -> pl.Expr:
        """Return HMAC-SHA-256 of the corpus's name and `user` under the key, cut to 16 hexadecimal digits."""
        named = pl.concat_str([pl.lit(self.corpus), user.cast(pl.String)], separator="\x1f")
        return CryptographicHashingNameSpace(named).hmac_sha256(key=self.key).str.slice(0, 16)

    def fingerprint(self) -> str:
        """Return what tells two keys apart and gives neither away."""
        return hmac.new(self.key.encode(), b"recfound: which key", hashlib.sha256).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"UserKey(secret={self.secret})"


def scrub(text: pl.Expr) -> pl.Expr:
    """Return `text` with e-mail addresses and phone numbers replaced by `[email]` and `[phone]`."""
    return text.str.replace_all(EMAIL, "[email]").str.replace_all(PHONE, "[phone]")
