"""The order of a release: look, compare, send, commit, read back, tag, read back, tidy up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from recfound_data.errors import RecfoundError
from recfound_data.release.history import History, Read, Subject, history
from recfound_data.release.hub import Repository, State, access_token, check_repo_id
from recfound_data.release.local import Change, Files, LocalFile, compare, local_files, with_made
from recfound_data.release.versions import Version, refusal, released

_STAGING = "release/"
"""Before the version in the name of the branch on which a large release is gathered."""


@dataclass(frozen=True)
class Limits:
    """From which size on a release goes up in several commits, and how large each may be.

    The Hub takes 25,000 files in a commit, but a commit of many files may take it longer than the client waits; the
    client itself sends whole folders in commits of 20 to 1,000 files. A commit also fixes what has arrived.

    Attributes:
        files: a release that sends more is gathered on a branch first.
        bytes: likewise.
        batch: files of a commit on that branch; its bytes are bounded by `bytes` where a file alone is not larger.
        most: more files than this cannot become visible at once.
    """

    files: int = 1_000
    bytes: int = 50 * 10**9
    batch: int = 250
    most: int = 25_000


LIMITS = Limits()


@dataclass(frozen=True)
class Release:
    """A version of a repository, or with `dry_run` what a release would do.

    Attributes:
        repo_id: The repository, "organisation/name".
        repo_type: "dataset" or "model".
        version: The tag, as in "v1.2.0".
        commit: The commit that the tag names; None in a dry run.
        url: The page of the repository at the tag.
        uploaded: Size in bytes of each file that is new or that differs from `main`, by its path.
        deleted: Paths on `main` that the release no longer has.
        uploaded_bytes: Size of the uploaded files together.
        dry_run: Whether nothing was changed.
        repo_exists: Whether the repository was there before.
        tag_exists: Whether the tag was there before.
        staged: Whether the files go up in several commits on a branch of their own first.
        previous: The tag of the release below; None for a first one.
        differences: In what the two differ, one line each with its level.
        changelog: The section that `CHANGELOG.md` gets; empty where none is made.
        card_diff: How the card differs from the previous release's, as a unified diff.
        usage: The line that loads the release; empty where nobody knows one.
        refused: Why there would be no such release; only a dry run returns it, everything else raises.
    """

    repo_id: str
    repo_type: Literal["dataset", "model"]
    version: str
    commit: str | None
    url: str
    uploaded: dict[str, int]
    deleted: tuple[str, ...]
    uploaded_bytes: int
    dry_run: bool
    repo_exists: bool
    tag_exists: bool
    staged: bool = False
    previous: str | None = None
    differences: tuple[str, ...] = ()
    changelog: str = field(default="", repr=False)
    card_diff: str = field(default="", repr=False)
    usage: str = ""
    refused: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the release was made, or would be."""
        return self.refused is None


def release_folder(
    folder: Path,
    repo_id: str,
    *,
    repo_type: Literal["dataset", "model"],
    version: str,
    subject: Subject | None = None,
    made: Mapping[str, str] = MappingProxyType({}),
    notes: str = "",
    private: bool = False,
    dry_run: bool = False,
    limits: Limits = LIMITS,
    token: str | None = None,
    endpoint: str | None = None,
) -> Release:
    """Make `main` of a repository hold exactly what a folder holds, and tag that commit with the version.

    With a `subject` the version is checked against what changed since the release before, and the release also has
    a `CHANGELOG.md` and the changes in its card; the folder itself stays as it is. Hidden files and folders are not
    sent, and hidden files of the repository (`.gitattributes`) stay. Where `main` already holds the same files, no
    commit is added and its head is tagged. A release that was made before is read back and returned.

    Args:
        folder: What to release.
        repo_id: The repository, "organisation/name"; it is created if it does not exist.
        repo_type: "dataset" or "model".
        version: X.Y.Z, with or without a leading v.
        subject: What knows about the folder's contents; None releases the folder as it is.
        made: Texts by path that are released in the place of the folder's, or beside them.
        notes: What the maintainer says of the release, in Markdown; only with a subject.
        private: Create the repository as a private one; refuse to go on if it exists and is public.
        dry_run: Change nothing and return what would happen.
        limits: From which size on files go up in several commits.
        token: Access token; by default the one that huggingface_hub finds (HF_TOKEN, then `hf auth login`).
        endpoint: Address of the hub; by default HF_ENDPOINT, then https://huggingface.co.

    Returns:
        The release.

    Raises:
        UsageError: The version or the repository's name is malformed.
        RecfoundError: The folder is empty, the tag exists with other files, the version is not above the latest or
            too small a step, there is no token, or the hub refused or could not be reached. `main` then holds either
            its former commit or the whole new one.
    """
    number = Version.parse(version)
    check_repo_id(repo_id)
    files = with_made(local_files(Path(folder)), [LocalFile.made(path, text) for path, text in made.items()])
    repository = Repository(repo_id, repo_type, access_token(token), endpoint)
    before = repository.state()
    if before is not None and private and not before.private:
        raise RecfoundError(f"{repository} exists and is public: make it private on its settings page, or drop private")

    tags = before.tags if before is not None else {}
    others = [other for other in released(tags) if other != number]
    told = _history(subject, files, repository, number, others, before, notes)
    files = with_made(files, told.made)
    tag = str(number)
    there = before is not None and tag in tags and not compare(files, repository.files(tags[tag]))
    change = Change((), ()) if there else compare(files, before.files if before is not None else {})
    refused = None if there else _refusal(number, others, told, tags, change, limits)
    release = Release(
        repo_id=repo_id,
        repo_type=repo_type,
        version=tag,
        commit=None,
        url=repository.url(tag),
        uploaded={file.path: file.size for file in change.add},
        deleted=change.delete,
        uploaded_bytes=sum(file.size for file in change.add),
        dry_run=dry_run,
        repo_exists=before is not None,
        tag_exists=tag in tags,
        staged=_is_large(change, limits),
        previous=str(told.previous) if told.previous is not None else None,
        differences=tuple(f"{difference.text} ({difference.level})" for difference in told.differences),
        changelog=told.section,
        card_diff=told.card_diff,
        usage=told.usage,
        refused=refused,
    )
    if dry_run:
        return release
    if refused is not None:
        raise RecfoundError(f"{repository}: {refused}")
    if there:
        commit = tags[tag]
    else:
        commit = _publish(repository, before or repository.create(private), files, change, tag, limits)
    own = {f"{_STAGING}{tag}"} if release.staged else set()
    _tidy(repository, number, own.union(before.branches if before is not None else ()))
    return replace(release, commit=commit)


def _history(
    subject: Subject | None,
    files: Files,
    repository: Repository,
    version: Version,
    others: Sequence[Version],
    before: State | None,
    notes: str,
) -> History:
    if subject is None:
        return History()

    def at(other: Version) -> Read:
        assert before is not None, "there are no versions without a repository"
        commit = before.tags[str(other)]
        return lru_cache(maxsize=None)(lambda path: repository.read(path, commit))

    return history(subject, files, repository.repo_id, version, others, at, notes)


def _refusal(
    version: Version,
    others: Sequence[Version],
    told: History,
    tags: Mapping[str, str],
    change: Change,
    limits: Limits,
) -> str | None:
    """Why there can be no such release; None where there can."""
    if str(version) in tags:
        return (
            f"{version} is set already, at commit {tags[str(version)][:7]}, with other files: a released version "
            "never changes; choose a higher one"
        )
    if len(change.add) + len(change.delete) > limits.most:
        return (
            f"{len(change.add) + len(change.delete):,} files change, and the Hub takes {limits.most:,} in one commit; "
            "build fewer and larger files"
        )
    return refusal(version, others, told.differences)


def _publish(repository: Repository, before: State, files: Files, change: Change, tag: str, limits: Limits) -> str:
    """Bring the files to `main` in one commit, tag it and return it; it is read back before and after."""
    commit = before.head
    message = f"Release {tag}"
    if _is_large(change, limits):
        commit = _commit_staged(repository, before, change, tag, message, limits)
    elif change:
        commit = repository.commit(message, "main", before.head, add=change.add, delete=change.delete)
    repository.verify(files, commit)
    repository.tag(tag, commit)
    repository.verify(files, tag, f"{tag} is already set, at commit {commit[:7]}: compare it before it is used")
    return commit


def _is_large(change: Change, limits: Limits) -> bool:
    return len(change.add) > limits.files or sum(file.size for file in change.add) > limits.bytes


def _commit_staged(
    repository: Repository, before: State, change: Change, tag: str, message: str, limits: Limits
) -> str:
    """Gather the files on a branch in several commits, then copy them to `main` in one.

    A branch that an interrupted push left is gone on with: what it already holds is not sent again, and what else it
    holds stays there, since each file is copied by its path. Files that are no large ones in git are part of the commit
    on `main` itself, as a copy would send them too.
    """
    branch = f"{_STAGING}{tag}"
    head = repository.branch(branch, before.head)
    there = repository.files(head)
    missing = [file for file in change.add if file.path not in there or not file.equals(there[file.path])]
    batches = list(_batches(missing, limits))
    for number, batch in enumerate(batches, start=1):
        head = repository.commit(f"{message}, part {number} of {len(batches)}", branch, head, add=batch)
    there = repository.files(head)
    large = {path for path, file in there.items() if file.lfs}
    copied = [file for file in change.add if file.path in large and file.equals(there[file.path])]
    sent = [file for file in change.add if file.path not in large]
    return repository.commit(
        message,
        "main",
        before.head,
        add=sent,
        copy=[file.path for file in copied],
        copy_from=head,
        delete=change.delete,
    )


def _batches(files: Sequence[LocalFile], limits: Limits) -> Iterator[list[LocalFile]]:
    """Cut files into runs of at most `batch` files and `bytes` bytes; a larger file is a run of its own."""
    batch: list[LocalFile] = []
    for file in files:
        if batch and (len(batch) == limits.batch or sum(one.size for one in batch) + file.size > limits.bytes):
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


def _tidy(repository: Repository, version: Version, branches: Iterable[str]) -> None:
    """Delete the branch on which the release was gathered, and those of versions that can no longer be released."""
    for branch in sorted(branches):
        other = Version.of_tag(branch.removeprefix(_STAGING)) if branch.startswith(_STAGING) else None
        if other is not None and other <= version:
            repository.delete_branch(branch, f"{version} is released; the branch is of no use, delete it")
