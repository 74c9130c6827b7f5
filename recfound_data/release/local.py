"""The files of a release on this side, and what has to change on the other side."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from huggingface_hub.hf_api import RepoFile

from recfound_data.errors import RecfoundError


@dataclass(frozen=True)
class LocalFile:
    """A file to release, with the two hashes by which the hub may know it, computed once when asked for."""

    path: str  # in the repository
    source: Path | bytes  # on disk, or its content where the release makes it
    size: int

    @classmethod
    def made(cls, path: str, text: str) -> LocalFile:
        """A text that is in the release but not in the folder."""
        content = text.encode()
        return cls(path, content, len(content))

    @cached_property
    def sha256(self) -> str:
        """The digest by which the hub knows a large file."""
        return self._digest(hashlib.sha256())

    @cached_property
    def git_oid(self) -> str:
        """The digest by which the hub knows a file that is kept in git itself."""
        return self._digest(hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False))

    def read(self) -> bytes:
        """Return the whole content."""
        with self._open() as stream:
            return stream.read()

    def _open(self) -> BinaryIO:
        return io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")

    def _digest(self, state: hashlib._Hash) -> str:
        try:
            with self._open() as stream:
                while block := stream.read(2**20):
                    state.update(block)
        except OSError as error:
            raise RecfoundError(f"{self.source!s} cannot be read: {error.strerror}") from error
        return state.hexdigest()

    def equals(self, remote: RepoFile) -> bool:
        """Whether the hub's file has the same content."""
        if self.size != remote.size:
            return False
        return self.sha256 == remote.lfs.sha256 if remote.lfs else self.git_oid == remote.blob_id


Files = Mapping[str, LocalFile]
"""Files by their path in the repository, sorted by it."""


@dataclass(frozen=True)
class Change:
    """What has to be sent and deleted."""

    add: tuple[LocalFile, ...]
    delete: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.add or self.delete)


def compare(files: Files, remote: Mapping[str, RepoFile]) -> Change:
    """Return what has to change for the remote files to become the local ones."""
    add = (file for path, file in files.items() if path not in remote or not file.equals(remote[path]))
    return Change(tuple(add), tuple(sorted(set(remote) - set(files))))


def local_files(folder: Path) -> dict[str, LocalFile]:
    """Return the files below a folder, sorted, without hidden files and folders.

    Raises:
        RecfoundError: there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise RecfoundError(f"{folder} is not a folder: give the folder that is to be released")
    files = {}
    for source in sorted(folder.rglob("*")):
        path = source.relative_to(folder)
        if source.is_file() and not hidden(path.as_posix()):
            files[path.as_posix()] = LocalFile(path.as_posix(), source, source.stat().st_size)
    if not files:
        raise RecfoundError(f"{folder} has no files to release (hidden ones are not sent)")
    return files


def with_made(files: Files, made: Iterable[LocalFile]) -> dict[str, LocalFile]:
    """Return the files with those that the release makes in place of, or beside, the folder's."""
    every = {**files, **{file.path: file for file in made}}
    return dict(sorted(every.items()))


def hidden(path: str) -> bool:
    """Whether a path has a part that starts with a dot."""
    return any(part.startswith(".") for part in path.split("/"))
