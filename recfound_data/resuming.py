"""Builds that were stopped: where the finished units of one lie, whose they are, and what goes on with them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.files import expand, facts
from recfound_data.layout import canonical_json
from recfound_data.tables import Source
from recfound_data.units import StoppedError

_IDENTITY = "build.json"
"""What a folder of units is of: recipe, inputs, key."""


def inputs(reader: Source) -> list[Any]:
    """Return what tells a corpus's files apart from others: their paths, sizes and times."""
    return [[file, *facts(file)] for path in reader.paths() for file in expand(path)]


@contextmanager
def work_folder(out: Path, identity: dict[str, Any], quiet: bool) -> Iterator[Path]:
    """Yield the folder of finished units; it goes when the build ends, and stays when it is killed or interrupted.

    Raises:
        UsageError: another build writes there.
    """
    out = out.absolute()
    work = out.with_name(f".{out.name}.building")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{work}.lock", timeout=0):
            name, text = work / _IDENTITY, canonical_json(identity)
            try:
                _restore(out)
                if work.exists() and not (name.exists() and name.read_text(encoding="utf-8") == text):
                    _discard(work)  # of other inputs or another recipe
                elif work.exists() and not quiet:
                    print("going on with the build that was stopped", file=sys.stderr, flush=True)
                work.mkdir(exist_ok=True)
                name.write_text(text, encoding="utf-8")
                yield work
                _discard(work)
            except (KeyboardInterrupt, StoppedError):
                raise
            except BaseException:
                shutil.rmtree(work, ignore_errors=True)
                raise
            finally:
                Path(f"{work}.lock").unlink(missing_ok=True)
    except Timeout:
        raise UsageError(f"{out}: another build is writing it; wait for it or name another folder") from None
    except OSError as error:
        raise RecfoundError(
            f"{error.filename or out}: cannot be written: {error.strerror or error}; free space or name another folder"
        ) from None


def _discard(work: Path) -> None:
    """Remove a folder of units; what says of which build goes first, so nobody goes on with half of them."""
    (work / _IDENTITY).unlink(missing_ok=True)
    shutil.rmtree(work)


def _restore(out: Path) -> None:
    """Clear away what a build left that was killed while its dataset took its place, and bring back the one before."""
    for path in list(out.parent.iterdir()):
        before = path.name.startswith(f".{out.name}.old-")
        if before and not out.exists():
            path.rename(out)
        elif before or path.name.startswith(f".{out.name}.partial-"):
            shutil.rmtree(path)
