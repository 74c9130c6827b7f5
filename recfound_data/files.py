"""Files by path, glob or URL: which there are, what they hold, and how they are opened.

A name that ends in `.gz`, `.zst`, `.zstd` or `.bz2` is decompressed on the way. `archive.zip/folder/name.csv` is a file
in an archive (it may be a glob), `archive.zip` alone is the one file in it. Nothing is extracted to disk.
"""

from __future__ import annotations

import bz2
import fnmatch
import gzip
import re
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa

from recfound_data.errors import RecfoundError

_COMPRESSIONS = ("gz", "zst", "zstd", "bz2")
_ARCHIVE = re.compile(r"(?i)(.+?\.zip)(?:/(.+))?")


def expand(pattern: str) -> list[str]:
    """Return the files that a path, glob or URL names, sorted; those in an archive as `archive.zip/name`.

    Raises:
        RecfoundError: there is none.
    """
    if not pattern:
        raise RecfoundError("a path in the recipe is empty; name the file, or leave the key out")
    archive, member = _archived(pattern)
    if not archive:
        return _found(pattern)
    return [f"{path}/{name}" for path in _found(archive) for name in _members(path, member)]


def _archived(path: str) -> tuple[str, str]:
    """Return the archive and the member that a path names, both empty where it is no path into an archive."""
    parts = _ARCHIVE.fullmatch(path)
    if parts is None or "::" in path or Path(parts[1]).is_dir():
        return "", ""
    return parts[1], parts[2] or ""


def _found(pattern: str) -> list[str]:
    try:
        system, path = fsspec.core.url_to_fs(pattern)
        files = [pattern]
        try:
            if system.info(path)["type"] == "directory":
                raise RecfoundError(f"{pattern}: is a folder; name its files, as in {pattern.rstrip('/')}/*")
        except FileNotFoundError as error:
            files = _matching(system, path, pattern)
            if error.__cause__ is not None and not files:
                raise RecfoundError(f"{pattern}: cannot be opened: {said(error.__cause__)}") from None
    except RecfoundError:
        raise
    except Exception as error:  # a file system's driver raises what it likes
        raise RecfoundError(f"{pattern}: cannot be opened: {said(error)}") from None
    if not files:
        raise RecfoundError(f"{pattern}: no such file; check the path in the recipe")
    return files


def _matching(system: Any, path: str, pattern: str) -> list[str]:
    if not any(mark in path for mark in "*?["):
        return []
    # Of `zip://*.csv::archive.zip` only the part before `::` is found again in the names that match.
    inner, link, archive = pattern.partition("::")
    url, chain = "://" in pattern, link + archive if "://" in inner else ""
    names = [name for name in sorted(system.glob(path)) if system.isfile(name)]
    return [system.unstrip_protocol(name) + chain if url else name for name in names]


def _members(archive: str, member: str) -> list[str]:
    try:
        names = fsspec.filesystem("zip", fo=archive).find("")
    except Exception as error:  # as above
        raise RecfoundError(f"{archive}: is not a readable zip archive ({said(error)}); download it again") from None
    names = sorted(name for name in names if not name.startswith("__MACOSX/"))
    found = names if not member else [member] if member in names else fnmatch.filter(names, member)
    if not found or (not member and len(found) > 1):
        what = f"has no file {member!r}" if member else f"holds {len(names)} files"
        listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise RecfoundError(f"{archive}: {what}; name one of {archive}/ {listed}")
    return found


def opened(path: str) -> Any:
    """Return the file that `expand` named, as a context that gives its bytes as they are stored."""
    archive, member = _archived(path)
    return fsspec.open(f"zip://{member}::{archive}" if archive else path, "rb")


class Meter:
    """Counts the stored bytes that this process has read, so that long readings can say how far they are."""

    def __init__(self) -> None:
        self.bytes = 0

    def follow(self, raw: Any, before: int) -> int:
        """Count what was read of an open file since place `before`, and return the place where it is."""
        place = int(raw.tell())
        self.bytes += place - before
        return place


METER = Meter()


def size(path: str) -> int:
    """Return how many bytes `opened(path)` gives; 0 where the file's system does not tell."""
    archive, member = _archived(path)
    try:
        system, name = fsspec.core.url_to_fs(f"zip://{member}::{archive}" if archive else path)
        return int(system.info(name).get("size") or 0)
    except FileNotFoundError:  # a member whose name no archive should have, such as `/etc/x`: reading it says so
        return 0


def facts(path: str) -> list[str]:
    """Return what changes when a file that `expand` named does: size, time and tag, as far as its system tells."""
    system, name = fsspec.core.url_to_fs(_archived(path)[0] or path)
    info = system.info(name)
    return [str(info.get(key)) for key in ("size", "mtime", "created", "ETag", "etag", "LastModified", "last_commit")]


def said(error: BaseException) -> str:
    """Return what an error says, on one line; its name where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def _suffixes(path: str) -> list[str]:
    link = next((link for link in path.split("::") if "://" in link), path)
    name = link.partition("?")[0] if "://" in link else link
    return name.rpartition("/")[2].lower().split(".")[1:]


def form(path: str) -> str:
    """Return the last suffix of a file's name in lower case, compression left out: `csv`, `json`, `parquet`."""
    suffixes = [suffix for suffix in _suffixes(path) if suffix not in _COMPRESSIONS]
    return suffixes[-1] if suffixes else ""


def decompressed(raw: Any, path: str) -> Any:
    """Return the open file `raw` as a stream of what it holds, decompressed as its name says."""
    match _suffixes(path)[-1:]:
        case ["gz"]:
            return gzip.GzipFile(fileobj=raw)
        case ["bz2"]:
            return bz2.BZ2File(raw)
        case ["zst" | "zstd"]:
            return pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")
    return raw
