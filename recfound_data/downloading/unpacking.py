"""Archives, unpacked with suspicion: nothing outside of the folder, no links, no devices, no bombs.

An archive that holds one such thing is refused whole, even if nobody wants that part of it.
"""

from __future__ import annotations

import fnmatch
import gzip
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from recfound_data.errors import RecfoundError

_MOST_PARTS = 100_000
_MOST_GROWTH = 100
_SMALL = 1 << 20
_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"
_ACCOMPANY = ("README", "LICENSE")
"""How files begin that only accompany the data: a pattern of theirs may fit none."""
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, NotImplementedError)


@dataclass(frozen=True)
class _Part:
    name: str
    opened: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path, take: tuple[str, ...]) -> list[str]:
    """Unpack the files of a zip or tar archive that `take` names, and return their names in `folder`.

    Args:
        archive: `.zip`, or `.tar` however it is compressed.
        folder: where the files go; they appear there once all of them are unpacked.
        take: patterns of names, without the folder that holds everything else. `*` does not cross a `/`.

    Raises:
        RecfoundError: the archive is damaged, is hostile, or holds nothing that a pattern names.
    """
    partial = folder / f".unpacking-{archive.name}"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with _parts(archive) as parts:
            chosen = _chosen(archive, parts, take)
            left = max(archive.stat().st_size * _MOST_GROWTH, _SMALL)
            for name, part in chosen.items():
                left -= _copy(part, partial / name, left, archive)
        for name in chosen:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).replace(folder / name)
    except _DAMAGED as error:
        raise RecfoundError(f"{archive}: is a damaged archive ({error}); remove it and download it again") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return list(chosen)


def peel(path: Path) -> bool:
    """Take one layer of gzip off a file that has two, and return whether it had."""
    partial = path.with_name(f".unpacking-{path.name}")
    try:
        with gzip.open(path, "rb") as outer:
            if outer.read(len(_GZIP)) != _GZIP:
                return False
            outer.seek(0)
            with partial.open("wb") as stream:
                _pour(outer, stream, path.stat().st_size * _MOST_GROWTH, path)
        partial.replace(path)
    except _DAMAGED as error:
        raise RecfoundError(f"{path}: is a damaged archive ({error}); remove it and download it again") from None
    finally:
        partial.unlink(missing_ok=True)
    return True


@contextmanager
def _parts(archive: Path) -> Iterator[list[_Part]]:
    """Yield the files in an archive."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as packed:
            infos = packed.infolist()
            _require_few(archive, len(infos))
            for info in infos:
                mode = info.external_attr >> 16
                kind = stat.S_IFMT(mode)
                plain = kind in (0, stat.S_IFREG, stat.S_IFDIR) and not info.flag_bits & 1
                _require_harmless(archive, info.filename, plain)
            yield [_Part(info.filename, _zipped(packed, info)) for info in infos if not info.is_dir()]
    else:
        with tarfile.open(archive) as packed_tar:
            members = []
            for member in packed_tar:
                members.append(member)
                _require_few(archive, len(members))
                _require_harmless(archive, member.name, member.isreg() or member.isdir())
            yield [_Part(member.name, _tarred(packed_tar, member)) for member in members if member.isreg()]


def _zipped(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: packed.open(info)


def _tarred(packed: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], Any]:
    return lambda: packed.extractfile(member)


def _require_few(archive: Path, count: int) -> None:
    if count > _MOST_PARTS:
        raise RecfoundError(f"{archive}: holds more than {_MOST_PARTS:,} files; it was not unpacked")


def _require_harmless(archive: Path, name: str, plain: bool) -> None:
    steps = name.rstrip("/").split("/")
    inside = not any(step in ("", "..") or ":" in step or "\\" in step or "\0" in step for step in steps)
    if not plain or not inside:
        what = "leads out of the folder" if not inside else "is a link, a device or locked"
        raise RecfoundError(f"{archive}: holds {name!r}, which {what}; it was not unpacked")


def _chosen(archive: Path, parts: list[_Part], take: tuple[str, ...]) -> dict[str, _Part]:
    """Return the wanted files by their name without the folder that holds them all, in the archive's order."""
    tops = {part.name.partition("/")[0] for part in parts}
    nested = len(tops) == 1 and all("/" in part.name for part in parts)
    chosen: dict[str, _Part] = {}
    found = set()
    for part in parts:
        name = part.name.partition("/")[2] if nested else part.name
        fitting = [pattern for pattern in take if _fits(name, pattern)]
        found.update(fitting)
        if fitting and name in chosen:
            raise RecfoundError(f"{archive}: holds {name!r} twice; it was not unpacked")
        if fitting:
            chosen[name] = part
    # What only accompanies the data, such as a README, may be called otherwise.
    missing = [
        pattern for pattern in take if pattern not in found and not pattern.upper().startswith(("README", "LICENSE"))
    ]
    if missing:
        raise RecfoundError(f"{archive}: holds no {' and no '.join(missing)}; the publisher may have changed it")
    return chosen


def _fits(name: str, pattern: str) -> bool:
    steps, wanted = name.split("/"), pattern.split("/")
    return len(steps) == len(wanted) and all(map(fnmatch.fnmatchcase, steps, wanted))


def _copy(part: _Part, path: Path, most: int, archive: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.opened() as source, path.open("wb") as stream:
        return _pour(source, stream, most, archive)


def _pour(source: Any, stream: IO[bytes], most: int, archive: Path) -> int:
    """Copy at most so many bytes, and return how many there were."""
    done = 0
    while chunk := source.read(_CHUNK):
        done += len(chunk)
        if done > most:
            raise RecfoundError(f"{archive}: unpacks to more than {_MOST_GROWTH} times its size; it was not unpacked")
        stream.write(chunk)
    stream.flush()
    os.fsync(stream.fileno())
    return done
