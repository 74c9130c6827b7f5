"""Download releases: each into a folder of its own, `DIR/<corpus>/<version>`, with a note of where it is from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from tqdm import tqdm

from recfound_data.corpora import CORPORA
from recfound_data.downloading.fetching import Sums, fetch
from recfound_data.downloading.registry import RELEASES, Release, RemoteFile
from recfound_data.downloading.unpacking import peel, unpack
from recfound_data.errors import RecfoundError, UsageError
from recfound_data.layout import canonical_json
from recfound_data.patience import Patience
from recfound_data.progress import say
from recfound_data.recipe import nearest

NOTE = "download.json"
"""What stands beside the files of a release: where they are from, and their checksums."""


@dataclass(frozen=True)
class Download:
    """What was fetched.

    Attributes:
        path: the folder of all of it.
        files: of each release, those it has now.
        corpora: what a recipe in `path` names them by: the list under its key `corpora`.
        unverified: files whose checksum nobody knows.
    """

    path: Path
    files: dict[str, list[str]]
    corpora: list[dict[str, str]]
    unverified: list[str]

    @property
    def recipe(self) -> str:
        """The entries as they stand in a recipe."""
        return yaml.safe_dump({"corpora": self.corpora}, sort_keys=False)


def download(
    names: Iterable[str],
    out: str | Path,
    *,
    releases: tuple[Release, ...] = RELEASES,
    patience: Patience | None = None,
    quiet: bool = False,
) -> Download:
    """Fetch releases of corpora; what is there already and right is not fetched again.

    Args:
        names: `corpus/version`, or `corpus` alone where there is one version.
        out: the folder to write in.
        releases: those that there are.
        patience: with servers that fail.
        quiet: print no progress.

    Raises:
        UsageError: a name is unknown, or has to be fetched by hand; or another download writes there.
        RecfoundError: a server does not give a file, or gives another one, or the disk is full.
    """
    chosen = [_named(name, releases) for name in dict.fromkeys(names)]
    folder = Path(out)
    files: dict[str, list[str]] = {}
    corpora: list[dict[str, str]] = []
    unverified: list[str] = []
    for release in chosen:
        where = folder / release.corpus / release.version
        if release.note and not quiet:
            say(f"{release.name}: {release.note}")
        try:
            where.mkdir(parents=True, exist_ok=True)
            with FileLock(where / ".lock", timeout=0):
                found = _fetched(release, where, patience or Patience(), quiet)
            (where / ".lock").unlink(missing_ok=True)
        except Timeout:
            raise UsageError(f"{where}: another download is writing it; wait for it") from None
        except OSError as error:
            raise RecfoundError(
                f"{error.filename or where}: cannot be written: {error.strerror or error}; "
                "free space and run the same command again to go on"
            ) from None
        files[release.name] = [name for entry in found for name in entry["files"]]
        corpora.append(_entry(release))
        unverified += [f"{release.name}/{entry['name']}" for entry in found if not entry["verified"]]
    return Download(folder, files, corpora, unverified)


def listed(names: Iterable[str] = (), releases: tuple[Release, ...] = RELEASES) -> list[dict[str, Any]]:
    """Return a record of each file of the named corpora or releases, of all where none is named.

    Raises:
        UsageError: a name is unknown.
    """
    wanted = list(names)
    for name in wanted:
        _named(name, releases, one=False)
    return [
        {
            "name": release.name,
            "file": file.name if file else "",
            "address": file.address if file else "",
            "size": file.size if file else None,
            "sha256": file.sha256 if file else "",
            "md5": file.md5 if file else "",
            "tried": file.tried if file else None,
            "unpacked": bool(file and (file.take or file.peel)),
            "page": release.page,
            "note": release.note,
        }
        for release in releases
        if not wanted or release.name in wanted or release.corpus in wanted
        for file in release.files or (None,)
    ]


def _named(name: str, releases: tuple[Release, ...], one: bool = True) -> Release:
    found = [release for release in releases if name in (release.name, release.corpus)]
    if not found:
        corpus = name.partition("/")[0]
        known = [release.name for release in releases if release.corpus == corpus]
        known = known or list(dict.fromkeys(release.corpus for release in releases))
        shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
        raise UsageError(f"{name}: nothing is called so{nearest(name, known)}; there is {shown}; see --list")
    if one and len(found) > 1:
        shown = ", ".join(release.name for release in found[:8]) + (", ..." if len(found) > 8 else "")
        raise UsageError(f"{name}: has several releases, name one: {shown}; see --list {name}")
    if one and not found[0].files:
        raise UsageError(f"{name}: cannot be downloaded from here: {found[0].note} ({found[0].page})")
    return found[0]


def _fetched(release: Release, folder: Path, patience: Patience, quiet: bool) -> list[dict[str, Any]]:
    """Return the note of each file of a release, fetching those that are not there."""
    note = folder / NOTE
    try:
        known = {entry["address"]: entry for entry in json.loads(note.read_text(encoding="utf-8"))["files"]}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        known = {}
    entries: list[dict[str, Any]] = []
    for file in release.files:
        entry = known.get(file.address)
        if entry is None or not _is_there(folder, entry):
            entry = _fetch_one(release, file, folder, patience, quiet)
        entries.append(entry)
        said = {"corpus": release.corpus, "version": release.version, "terms": release.page, "files": entries}
        partial = folder / f".{NOTE}.partial"
        partial.write_text(canonical_json(said), encoding="utf-8")
        partial.replace(note)
    return entries


def _is_there(folder: Path, entry: Mapping[str, Any]) -> bool:
    try:
        return all(
            (folder / name).stat().st_size == size and Sums.of(folder / name).sha256 == sha256
            for name, (size, sha256) in entry["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _fetch_one(release: Release, file: RemoteFile, folder: Path, patience: Patience, quiet: bool) -> dict[str, Any]:
    path = folder / file.name
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(desc=file.name, total=file.size, unit="B", unit_scale=True, disable=quiet))
        if path.exists() and (file.sha256 or file.md5) and not (fault := (sums := Sums.of(path)).fault(file)):
            bar.update(sums.size)
        elif path.exists():
            why = fault if file.sha256 or file.md5 else "nothing tells whether it is the right one"
            raise RecfoundError(f"{path}: is there and was not downloaded by this command: {why}; move it away")
        else:
            sums = fetch(file, path, release.page, patience, bar.update)
    names = [file.name]
    if file.take:
        names = unpack(path, folder, file.take)
        path.unlink()
    elif file.peel:
        peel(path)
    there = {name: Sums.of(folder / name) for name in sorted(names)}
    return {
        "name": file.name,
        "address": file.address,
        "size": sums.size,
        "sha256": sums.sha256,
        "verified": "sha256" if file.sha256 else "md5" if file.md5 else None,
        "files": {name: (found.size, found.sha256) for name, found in there.items()},
    }


def _entry(release: Release) -> dict[str, str]:
    """Return the recipe's entry of a release, for a recipe in the folder of all downloads."""
    paths = CORPORA[release.corpus].path_fields
    return {"corpus": release.corpus} | {
        key: f"{release.corpus}/{release.version}/{value}" if key in paths else value
        for key, value in release.entry.items()
    }
