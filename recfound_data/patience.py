"""How long to wait for servers that fail: growing waits with some chance in them, or what the server asks for."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


@dataclass(frozen=True)
class Patience:
    """How often a request is repeated, and after how long.

    Attributes:
        attempts: most requests for one thing.
        first_wait: seconds before the second; each further wait is twice as long, and each is cut by chance to between
            half and all of it, so that requests that failed together do not come back together.
        longest_wait: most seconds of one wait; a server that asks for more is asked again after these.
    """

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 120.0

    def wait(self, attempt: int, asked: float | None) -> float:
        """Return the seconds to wait after failure number `attempt` (from 1); `asked` is what the server asked for."""
        if asked is not None:
            return min(asked, self.longest_wait)
        return min(self.first_wait * 2 ** (attempt - 1), self.longest_wait) * (0.5 + secrets.randbelow(501) / 1000)


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, as a number or a date; None where it says nothing."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = (date - (now or datetime.now(UTC))).total_seconds()
    return max(seconds, 0.0) if seconds < float("inf") else None
