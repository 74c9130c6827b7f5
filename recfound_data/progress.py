"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere, always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType

from tqdm import tqdm

_LINE_SECONDS = 15.0


def say(line: str) -> None:
    """Print one line of progress."""
    tqdm.write(line, file=sys.stderr)


class Progress:
    """Counts steps of known number and shows rate and time left."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._started = self._shown = time.monotonic()
        self._bar = tqdm(total=total, desc=what, file=sys.stderr) if sys.stderr.isatty() else None

    def __enter__(self) -> Progress:
        return self

    def advance(self, count: int = 1, facts: Mapping[str, str] | None = None) -> None:
        """Count `count` more steps; `facts` are shown beside the rate."""
        self._done += count
        facts = facts or {}
        if self._bar is not None:
            self._bar.set_postfix(facts, refresh=False)
            self._bar.update(count)
            return
        now = time.monotonic()
        if now - self._shown >= _LINE_SECONDS or self._done == self._total:
            self._shown = now
            rate = self._done / max(now - self._started, 1e-9)
            left = (self._total - self._done) / max(rate, 1e-9)
            said = "".join(f", {key} {value}" for key, value in facts.items())
            say(f"{self._what}: {self._done:,}/{self._total:,}, {rate:,.1f}/s, {left:,.0f} s left{said}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
