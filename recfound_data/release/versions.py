"""Semantic versions of releases: which one is the least that a set of differences allows.

What users rely on breaks: major. They get more: minor. Everything else: patch. Below 1.0.0 nothing is promised yet, so
there a break asks for a minor only. The rules for datasets are those of `recfound_data.release.dataset`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from recfound_data.errors import UsageError


class Level(IntEnum):
    """How much of a version a difference asks for."""

    PATCH = 0
    MINOR = 1
    MAJOR = 2

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Difference:
    """One thing in which a release differs from the one before, said in one line."""

    level: Level
    text: str


@dataclass(frozen=True, order=True)
class Version:
    """A version X.Y.Z; its text is the tag `vX.Y.Z`."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"v{self.major}.{self.minor}.{self.patch}"

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read a version, with or without a leading v.

        Raises:
            UsageError: it is not of the form X.Y.Z.
        """
        found = cls.of_tag(f"v{text.removeprefix('v')}")
        if found is None:
            raise UsageError(f"version {text!r} is not of the form X.Y.Z, as in 1.2.0")
        return found

    @classmethod
    def of_tag(cls, tag: str) -> Version | None:
        """The version that a tag names; None where it is no tag of a release."""
        number = r"(0|[1-9][0-9]*)"
        match = re.fullmatch(rf"v{number}\.{number}\.{number}", tag)
        return cls(*map(int, match.groups())) if match else None

    def least_after(self, level: Level) -> Version:
        """The least version that may follow this one when what changed is of this level."""
        if level is Level.MAJOR and self.major > 0:
            return Version(self.major + 1, 0, 0)
        if level is not Level.PATCH:
            return Version(self.major, self.minor + 1, 0)
        return Version(self.major, self.minor, self.patch + 1)


def released(tags: Iterable[str]) -> list[Version]:
    """Return the versions among tags, ascending."""
    return sorted(version for tag in tags if (version := Version.of_tag(tag)) is not None)


def previous_of(version: Version, others: Iterable[Version]) -> Version | None:
    """Return the highest version below this one."""
    return max((other for other in others if other < version), default=None)


def refusal(version: Version, others: Sequence[Version], differences: Sequence[Difference]) -> str | None:
    """Say why a version may not be released, and which may; None where it may.

    Args:
        version: what is to be released.
        others: what has been released.
        differences: from the highest version below `version`.
    """
    latest = max(others, default=None)
    if latest is None:
        return None
    level = max((difference.level for difference in differences), default=Level.PATCH)
    if version <= latest:
        return f"{version} is not above {latest}, the latest release; choose a higher version"
    least = latest.least_after(level)
    if version >= least:
        return None
    reasons = [difference.text for difference in differences if difference.level is level]
    listed = "; ".join(reasons[:5]) + (f"; and {len(reasons) - 5} more" if len(reasons) > 5 else "")
    what = f"{version} is too small a step from {latest} for a {level} change"
    return f"{what}: {listed}; the least that is right is {least}"
