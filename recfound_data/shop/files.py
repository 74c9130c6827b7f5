"""How the shop's files reach the disk: compressed without a clock, and a whole folder at once or not at all."""

import gzip
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from recfound_data.errors import RecfoundError, UsageError

_COMPRESSION = 1


@contextmanager
def gzip_writer(path: Path) -> Iterator[IO[bytes]]:
    """Open a gzip file for writing with neither a time nor a name in its header: equal content is equal bytes."""
    with path.open("wb") as raw, gzip.GzipFile("", "wb", _COMPRESSION, raw, mtime=0) as file:
        yield cast(IO[bytes], file)


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield a folder beside `out` that becomes `out` if all goes well, and is removed if anything fails.

    Raises:
        UsageError: `out` exists and is not an empty folder.
        RecfoundError: A file could not be written.
    """
    out = Path(os.path.realpath(out))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not an empty folder: remove it, or give --out another path")
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if out.exists():
            out.rmdir()
        partial.replace(out)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RecfoundError(
            f"the shop could not be written to {out}: {reason}; nothing was left there, "
            "so make room or choose another --out and run it again"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
