"""What a release says of itself: its section of `CHANGELOG.md` and the changes in its card.

Both are made of the release before and the folder alone, with no date, so that the same push gives the same bytes and
one that was interrupted finds its own work again.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from recfound_data.errors import RecfoundError
from recfound_data.release.local import Files, LocalFile
from recfound_data.release.versions import Difference, Version, previous_of

CARD = "README.md"
CHANGELOG = "CHANGELOG.md"
_TITLE = "# Changelog\n"
_CHANGES = "\n## Changes\n"

Read = Callable[[str], bytes | None]
"""Gives the content of a file of a release by its path; None where it has no such file."""


class Subject(Protocol):
    """What a kind of release, a dataset's or a model's, knows about its contents. `Facts` are its own business."""

    def facts(self, read: Read) -> Any:
        """Return what versions are compared by; None where the release does not hold it."""
        ...

    def differences(self, before: Any, after: Any) -> list[Difference]:
        """Return in what two releases differ, each with the level of version that it asks for."""
        ...

    def figures(self, before: Any, after: Any) -> str:
        """Return a Markdown table of the release's figures, beside the former ones where there are any."""
        ...

    def card(self, text: str, repo_id: str, version: str) -> str:
        """Return the card with the repository's name and version where its examples need them."""
        ...

    def usage(self, repo_id: str, version: str, facts: Any) -> str:
        """Return the line that loads the release."""
        ...


@dataclass(frozen=True)
class History:
    """A release beside the one before it.

    Attributes:
        previous: the highest version below; None for a first release.
        differences: in what it differs from that one.
        section: its section of the changelog.
        card_diff: how the card changes, as a unified diff.
        usage: the line that loads it; empty where nobody knows one.
        made: the files that the release makes: changelog and card.
    """

    previous: Version | None = None
    differences: tuple[Difference, ...] = ()
    section: str = ""
    card_diff: str = ""
    usage: str = ""
    made: tuple[LocalFile, ...] = ()


def history(
    subject: Subject, files: Files, repo_id: str, version: Version, others: Sequence[Version], at: Any, notes: str
) -> History:
    """Compare a folder with the release before.

    Args:
        subject: what the release is of.
        files: the folder's.
        repo_id: the repository.
        version: what is to be released.
        others: what has been released.
        at: gives for a version the function that reads its files.
        notes: what the maintainer says of the release, in Markdown.

    Raises:
        RecfoundError: the folder does not hold what versions are compared by.
    """
    previous = previous_of(version, others)
    read: Read = at(previous) if previous is not None else lambda _: None
    after = subject.facts(lambda path: files[path].read() if path in files else None)
    if after is None:
        raise RecfoundError("the folder does not say what it holds, so its version cannot be compared; build it again")
    before = subject.facts(read) if previous is not None else None
    differences = tuple(subject.differences(before, after)) if before is not None else ()
    said = _said(previous, before is not None, differences, subject.figures(before, after), notes)
    section = f"## {version}\n\n{said}"
    made = [LocalFile.made(CHANGELOG, _changelog(section, _text(read(CHANGELOG))))]
    card_diff = ""
    if CARD in files:
        card = subject.card(_text(files[CARD].read()), repo_id, str(version)).partition(_CHANGES)[0].rstrip("\n")
        card += f"\n{_CHANGES}\n{_headline(version, previous)}\n\n{said}\nAll versions: [{CHANGELOG}]({CHANGELOG}).\n"
        made.append(LocalFile.made(CARD, card))
        card_diff = _diff(_text(read(CARD)), card) if previous is not None else ""
    usage = subject.usage(repo_id, str(version), after)
    return History(previous, differences, section, card_diff, usage, tuple(made))


def _headline(version: Version, previous: Version | None) -> str:
    return f"{version}, the first release." if previous is None else f"{version}, beside {previous}."


def _said(
    previous: Version | None, comparable: bool, differences: Sequence[Difference], figures: str, notes: str
) -> str:
    parts = [notes.strip()] if notes.strip() else []
    if previous is None:
        parts.append("First release.")
    elif not comparable:
        parts.append(f"{previous} does not say what it holds: what changed since is not known.")
    elif differences:
        parts.append("\n".join(f"- {difference.text} ({difference.level})" for difference in differences))
    else:
        parts.append(f"Nothing that versions are compared by changed since {previous}.")
    return "\n\n".join([*parts, figures.strip()]) + "\n"


def _changelog(section: str, before: str) -> str:
    earlier = before.removeprefix(_TITLE).strip("\n")
    return f"{_TITLE}\n{section}" + (f"\n{earlier}\n" if earlier else "")


def _text(content: bytes | None) -> str:
    return (content or b"").decode("utf-8", errors="replace")


def _diff(before: str, after: str) -> str:
    return "\n".join(difflib.unified_diff(before.splitlines(), after.splitlines(), CARD, CARD, lineterm="", n=1))
