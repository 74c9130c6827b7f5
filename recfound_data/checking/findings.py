"""What a check found: rules that are broken, where, by how many rows, with a few of them to look at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

_EXAMPLES = 3
_EXAMPLE_CHARS = 80


@dataclass(frozen=True)
class Finding:
    """One fault: the rule it breaks, where, how many rows, and a few of them to look at."""

    rule: str
    where: str
    count: int
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = "".join(f"\n    {example}" for example in self.examples)
        return f"{self.rule}: {self.where}: {self.count:,}{shown}"


@dataclass(frozen=True)
class CheckReport:
    """What a check found; a dataset passes when there is nothing."""

    path: Path
    rows: int
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


class Findings:
    """Collects faults: those of one rule in one place are one finding, however many batches they lie in."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._examples: dict[tuple[str, str], list[str]] = {}

    def add(self, rule: str, where: str, count: int = 1, examples: Iterable[str] = ()) -> None:
        """Count faults; of their examples only the first few are kept."""
        if not count:
            return
        key = (rule, where)
        self._counts[key] = self._counts.get(key, 0) + count
        kept = self._examples.setdefault(key, [])
        kept.extend(list(examples)[: _EXAMPLES - len(kept)])

    def rows(self, rule: str, where: str, faulty: pl.DataFrame, *columns: str, count: int | None = None) -> None:
        """Count faulty rows and show `columns` of the first; `count` where `faulty` holds the first ones alone."""
        shown = faulty.select(columns).head(_EXAMPLES).rows()
        lines = (" | ".join(str(value)[:_EXAMPLE_CHARS] for value in row) for row in shown)
        self.add(rule, where, len(faulty) if count is None else count, lines)

    def all(self) -> tuple[Finding, ...]:
        """Return the findings in the order in which they were first met."""
        return tuple(
            Finding(rule, where, count, tuple(self._examples[rule, where]))
            for (rule, where), count in self._counts.items()
        )
