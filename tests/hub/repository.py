"""What the hub keeps: repositories whose commits are immutable snapshots of their files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

#: Names that the hub stores as large files whatever they hold, as `.gitattributes` of a new repository says.
LARGE_SUFFIXES = (".arrow", ".bin", ".gz", ".npy", ".parquet", ".pt", ".safetensors", ".zip", ".zst")
#: Files from this size on are stored as large files whatever their name.
LARGE_SIZE = 10 * 2**20


def now() -> str:
    """The time in the form that the clients parse."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def git_sha1(kind: str, data: bytes) -> str:
    """The identifier that git gives an object of this kind."""
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest()


def is_large(path: str, size: int, sample: bytes) -> bool:
    """Whether the hub wants this file as a large file: by its name, its size, or because it is not text."""
    return size > 0 and (path.endswith(LARGE_SUFFIXES) or size >= LARGE_SIZE or b"\0" in sample)


@dataclass(frozen=True)
class Blob:
    """The content of one file; `large` ones are git LFS files, in git only a pointer."""

    data: bytes
    large: bool = False

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def in_git(self) -> bytes:
        if not self.large:
            return self.data
        head = "version https://git-lfs.github.com/spec/v1"
        return f"{head}\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()

    @cached_property
    def oid(self) -> str:
        return git_sha1("blob", self.in_git)

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.oid

    @property
    def pointer_size(self) -> int:
        return len(self.in_git)


@dataclass(frozen=True)
class Commit:
    """A snapshot of all files with its parent."""

    id: str
    files: Mapping[str, Blob]
    title: str
    description: str
    date: str
    parent: Commit | None

    def below(self, folder: str) -> dict[str, Blob]:
        """The files in a folder at any depth ("" is the root), by their path in the repository."""
        prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
        return {path: blob for path, blob in self.files.items() if path.startswith(prefix)}

    def entry(self, path: str, expand: bool = False) -> dict[str, Any] | None:
        """What the tree listing says of one file or folder; None where there is neither."""
        blob = self.files.get(path)
        if blob is not None:
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(blob.data), "oid": blob.oid}
            if blob.large:
                entry["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": blob.pointer_size}
        elif inside := self.below(path):
            listing = "".join(f"{name}\0{blob.oid}\n" for name, blob in sorted(inside.items()))
            entry = {"type": "directory", "path": path, "size": 0, "oid": git_sha1("tree", listing.encode())}
        else:
            return None
        if expand:
            last = self._last_change(path, entry["oid"])
            entry["lastCommit"] = {"id": last.id, "title": last.title, "date": last.date}
        return entry

    def _last_change(self, path: str, oid: str) -> Commit:
        commit = self
        while commit.parent is not None and (before := commit.parent.entry(path)) and before["oid"] == oid:
            commit = commit.parent
        return commit

    def tree(self, folder: str, recursive: bool, expand: bool) -> list[dict[str, Any]]:
        """Files and folders in a folder, sorted by path; at any depth if `recursive`."""
        depth = len(folder.strip("/").split("/")) if folder.strip("/") else 0
        paths: set[str] = set()
        for path in self.below(folder):
            parts = path.split("/")
            last = len(parts) if recursive else depth + 1
            paths.update("/".join(parts[:end]) for end in range(depth + 1, last + 1))
        return [entry for path in sorted(paths) if (entry := self.entry(path, expand))]


@dataclass
class Repository:
    """A repository: commits, branches and tags that point at commits, and the large files uploaded so far."""

    kind: str  # models, datasets or spaces, as in addresses
    id: str
    private: bool
    created: str = field(default_factory=now)
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    large_files: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        attributes = "".join(f"*{suffix} {_LARGE_ATTRIBUTES}\n" for suffix in LARGE_SUFFIXES)
        self.commit("main", {".gitattributes": Blob(attributes.encode())}, "initial commit")

    @property
    def namespace(self) -> str:
        return self.id.split("/")[0]

    @property
    def page(self) -> str:
        """The path of the repository's page."""
        return f"/{self.id}" if self.kind == "models" else f"/{self.kind}/{self.id}"

    def commit(self, branch: str, files: Mapping[str, Blob], title: str, description: str = "") -> Commit:
        """Put a new snapshot on a branch and return it."""
        parent = self.commits.get(self.branches.get(branch, ""))
        content = [(path, blob.oid) for path, blob in sorted(files.items())]
        text = repr((self.kind, self.id, len(self.commits), parent.id if parent else "", title, content))
        commit = Commit(git_sha1("commit", text.encode()), _with_attributes(files), title, description, now(), parent)
        self.commits[commit.id] = commit
        self.branches[branch] = commit.id
        return commit

    def find(self, revision: str) -> Commit | None:
        """The commit that a branch, a tag, or a commit id (shortened to no less than 5 digits) names."""
        revision = re.sub(r"^refs/(heads|tags)/", "", revision)
        commit = self.branches.get(revision) or self.tags.get(revision)
        if commit is None and re.fullmatch(r"[0-9a-f]{5,40}", revision):
            commit = next((known for known in self.commits if known.startswith(revision)), None)
        return self.commits[commit] if commit is not None else None


_LARGE_ATTRIBUTES = "filter=lfs diff=lfs merge=lfs -text"


def _with_attributes(files: Mapping[str, Blob]) -> dict[str, Blob]:
    """The files, with a line in `.gitattributes` for each large file that no pattern covers, as the Hub adds it."""
    attributes = files[".gitattributes"].data.decode() if ".gitattributes" in files else ""
    for path, blob in sorted(files.items()):
        line = f"{path} {_LARGE_ATTRIBUTES}\n"
        if blob.large and not path.endswith(LARGE_SUFFIXES) and line not in attributes:
            attributes += line
    return {**files, ".gitattributes": Blob(attributes.encode())} if attributes else dict(files)
