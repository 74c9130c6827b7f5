"""What the commands of `recfound` share: how one is added, and how its result is said."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recfound_data.errors import UsageError

Command = Callable[[argparse.Namespace], Any]


def command(
    group: Any, name: str, run: Command, text: str, show: Callable[[Any], str | None]
) -> argparse.ArgumentParser:
    """Add a command to a group: `run` does it, `show` says its result to a person."""
    added: argparse.ArgumentParser = group.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    added.add_argument("--json", action="store_true", help="print the result as one JSON object")
    added.set_defaults(run=run, show=show)
    return added


def release_options(push: argparse.ArgumentParser) -> None:
    """Add what both kinds of release take."""
    push.add_argument("path", metavar="DIR")
    push.add_argument("--repo", required=True, metavar="ORG/NAME")
    push.add_argument("--version", required=True, metavar="X.Y.Z")
    push.add_argument("--private", action="store_true", help="create the repository as a private one")
    push.add_argument("--dry-run", action="store_true", help="say what would happen and change nothing")
    push.add_argument("--notes", default="", metavar="TEXT|FILE", help="what the changelog says of the release first")


def notes_of(given: str) -> str:
    """Return the text, or what the file of that name holds."""
    is_file = "\n" not in given and len(given) < 256 and given != "" and Path(given).is_file()
    return Path(given).read_text(encoding="utf-8") if is_file else given


def positive(text: str) -> int:
    """Return an option's whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def show_release(release: Any) -> str:
    """Return what a release did, or would do."""
    from recfound_data.release import describe

    return describe(release)


def show_paths(result: Any) -> str:
    """Return the paths that were written, a line each."""
    return "\n".join(result["paths"])


def plain(value: Any) -> Any:
    """Return `value` as what JSON can hold."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return fields | ({"passed": value.passed} if hasattr(value, "passed") else {})
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def load_model_side() -> None:
    """Make ready for commands that need torch.

    Raises:
        UsageError: the model side is not installed.
    """
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("peft") is None:
        raise UsageError("this command needs the model side; install it with: pip install 'recfound[model]'")
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
