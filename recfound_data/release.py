"""A folder becomes a version of a repository on the Hugging Face Hub: one commit, one tag, read back and compared.

A release can be interrupted anywhere and started again: blobs come before the commit, the commit before the tag, and
the tag is set only once the commit was found to hold what the folder holds. A tag that exists is never moved.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import (
    DeviceCodeError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    OIDCError,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id

from recfound_data.errors import RecfoundError, UsageError

_LOG_IN = "set HF_TOKEN to an access token with write permission or run `hf auth login`"
_RUN_AGAIN = "then run the same command again (files that have arrived are not sent twice)"


@dataclass(frozen=True)
class Release:
    """A version of a repository, or with `dry_run` what a release would do.

    Attributes:
        repo_id: The repository, "organisation/name".
        repo_type: "dataset" or "model".
        version: The tag, as in "v1.2.0".
        commit: The commit that the tag names; None in a dry run.
        url: The page of the repository at the tag.
        uploaded: Paths that are new or that differ from `main`.
        deleted: Paths on `main` that the folder no longer has.
        uploaded_bytes: Size of the uploaded files together.
        dry_run: Whether nothing was changed.
        repo_exists: Whether the repository was there before.
        tag_exists: Whether the tag was there before; only a dry run returns then.
    """

    repo_id: str
    repo_type: Literal["dataset", "model"]
    version: str
    commit: str | None
    url: str
    uploaded: tuple[str, ...]
    deleted: tuple[str, ...]
    uploaded_bytes: int
    dry_run: bool
    repo_exists: bool
    tag_exists: bool


def release_folder(
    folder: Path,
    repo_id: str,
    *,
    repo_type: Literal["dataset", "model"],
    version: str,
    private: bool = False,
    dry_run: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
) -> Release:
    """Make `main` of a repository hold exactly what a folder holds, and tag that commit with the version.

    Hidden files and folders are not sent, and hidden files of the repository (`.gitattributes`) stay. Where `main`
    already holds the same files, no commit is added and its head is tagged.

    Args:
        folder: What to release.
        repo_id: The repository, "organisation/name"; it is created if it does not exist.
        repo_type: "dataset" or "model".
        version: X.Y.Z, with or without a leading v.
        private: Create the repository as a private one; refuse to go on if it exists and is public.
        dry_run: Change nothing and return what would happen.
        token: Access token; by default the one that huggingface_hub finds (HF_TOKEN, then `hf auth login`).
        endpoint: Address of the hub; by default HF_ENDPOINT, then https://huggingface.co.

    Returns:
        The release.

    Raises:
        UsageError: The version or the repository's name is malformed.
        RecfoundError: The folder is empty, the tag exists, there is no token, or the hub refused or could not be
            reached. `main` then holds either its former commit or the whole new one.
    """
    tag = _tag(version)
    _check_repo_id(repo_id)
    files = _local_files(Path(folder))
    repository = _Repository(repo_id, repo_type, _token(token), endpoint)

    before = repository.state()
    if before is not None and private and not before.private:
        raise RecfoundError(f"{repository} exists and is public: make it private on its settings page, or drop private")
    change = _compare(files, before.files if before else {})
    release = Release(
        repo_id=repo_id,
        repo_type=repo_type,
        version=tag,
        commit=None,
        url=repository.url(tag),
        uploaded=tuple(file.path for file in change.add),
        deleted=change.delete,
        uploaded_bytes=sum(file.size for file in change.add),
        dry_run=dry_run,
        repo_exists=before is not None,
        tag_exists=before is not None and tag in before.tags,
    )
    if dry_run:
        return release
    if before is not None and tag in before.tags:
        raise RecfoundError(
            f"{repository} already has {tag}, at commit {before.tags[tag][:7]}: a released version never changes; "
            "choose a higher one"
        )

    head = before.head if before is not None else repository.create(private)
    commit = repository.commit(change, head, f"Release {tag}") if change.add or change.delete else head
    repository.verify(files, commit)
    repository.tag(tag, commit)
    repository.verify(files, tag, f"{tag} is already set, at commit {commit[:7]}: compare it before it is used")
    return replace(release, commit=commit)


@dataclass(frozen=True)
class _LocalFile:
    """A file to release, with the two hashes by which the hub may know it, computed once when asked for."""

    path: str  # in the repository
    source: Path
    size: int

    @cached_property
    def sha256(self) -> str:
        return self._digest(hashlib.sha256())

    @cached_property
    def git_oid(self) -> str:
        return self._digest(hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False))

    def _digest(self, state: hashlib._Hash) -> str:
        try:
            with self.source.open("rb") as stream:
                while block := stream.read(2**20):
                    state.update(block)
        except OSError as error:
            raise RecfoundError(f"{self.source} cannot be read: {error.strerror}") from error
        return state.hexdigest()

    def equals(self, remote: RepoFile) -> bool:
        """Whether the hub's file has the same content."""
        if self.size != remote.size:
            return False
        return self.sha256 == remote.lfs.sha256 if remote.lfs else self.git_oid == remote.blob_id


@dataclass(frozen=True)
class _Change:
    add: tuple[_LocalFile, ...]
    delete: tuple[str, ...]


@dataclass(frozen=True)
class _State:
    head: str  # commit of main
    private: bool
    tags: Mapping[str, str]  # name -> commit
    files: Mapping[str, RepoFile]  # on main, without hidden ones


def _compare(files: Mapping[str, _LocalFile], remote: Mapping[str, RepoFile]) -> _Change:
    """What has to change for the remote files to become the local ones."""
    add = (file for path, file in files.items() if path not in remote or not file.equals(remote[path]))
    return _Change(tuple(add), tuple(sorted(set(remote) - set(files))))


def _tag(version: str) -> str:
    number = r"(0|[1-9][0-9]*)"
    if re.fullmatch(rf"v?{number}\.{number}\.{number}", version) is None:
        raise UsageError(f"version {version!r} is not of the form X.Y.Z, as in 1.2.0")
    return f"v{version.removeprefix('v')}"


def _check_repo_id(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UsageError(f"repository {repo_id!r} has no valid name: {error}") from error
    if "/" not in repo_id:
        raise UsageError(f"repository {repo_id!r} lacks its user or organisation: write ORG/NAME")


def _local_files(folder: Path) -> dict[str, _LocalFile]:
    """The files below a folder by their path in the repository, sorted, without hidden files and folders."""
    if not folder.is_dir():
        raise RecfoundError(f"{folder} is not a folder: give the folder that is to be released")
    files = {}
    for source in sorted(folder.rglob("*")):
        path = source.relative_to(folder)
        if source.is_file() and not _hidden(path.as_posix()):
            files[path.as_posix()] = _LocalFile(path.as_posix(), source, source.stat().st_size)
    if not files:
        raise RecfoundError(f"{folder} has no files to release (hidden ones are not sent)")
    return files


def _hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _token(given: str | None) -> str:
    """The access token, checked here because the HTTP client quotes a malformed one in its error."""
    try:
        token = given or get_token()
    except (OIDCError, DeviceCodeError):
        raise RecfoundError(f"the login at the hub could not be renewed: {_LOG_IN}") from None
    if not token:
        raise RecfoundError(f"there is no access token for the hub: {_LOG_IN}")
    if re.fullmatch(r"[!-~]+", token.strip()) is None:
        raise RecfoundError(f"the access token holds a space, a line break or a letter outside ASCII: {_LOG_IN}")
    return token.strip()


def _endpoint(given: str | None) -> str | None:
    """The hub's address from the argument or the environment; None leaves it to the client."""
    endpoint = given or os.environ.get("HF_ENDPOINT")
    if not endpoint:
        return None
    try:
        address = urlsplit(endpoint)
        valid = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise RecfoundError(f"HF_ENDPOINT is {endpoint!r}, which is not an address of the form https://host")
    return endpoint.rstrip("/")


class _Repository:
    """One repository on the hub; every method turns the client's errors into a RecfoundError."""

    def __init__(self, repo_id: str, repo_type: str, token: str, endpoint: str | None) -> None:
        self._api = HfApi(endpoint=_endpoint(endpoint), token=token)
        self._token = token
        self.repo_id, self.repo_type = repo_id, repo_type

    def __str__(self) -> str:
        return f"{self.repo_type} {self.repo_id} at {self._api.endpoint}"

    def url(self, tag: str) -> str:
        """The page of the repository at a tag."""
        prefix = "datasets/" if self.repo_type == "dataset" else ""
        return f"{self._api.endpoint}/{prefix}{self.repo_id}/tree/{tag}"

    def state(self) -> _State | None:
        """What the repository holds now; None where there is none that the token may see."""
        with self._errors("read"):
            try:
                info = self._api.repo_info(self.repo_id, repo_type=self.repo_type)
            except RepositoryNotFoundError as error:  # the client's name for a 401 as well: the status decides
                if error.response.status_code == 404:
                    return None
                raise
            refs = self._api.list_repo_refs(self.repo_id, repo_type=self.repo_type)
        if info.sha is None:
            raise RecfoundError(f"could not read {self}: the hub does not name the commit of main")
        tags = {ref.name: ref.target_commit for ref in refs.tags}
        return _State(info.sha, bool(info.private), tags, self.files(info.sha))

    def files(self, revision: str, then: str = _RUN_AGAIN) -> dict[str, RepoFile]:
        """The files at a revision by path, without hidden ones."""
        with self._errors(f"list the files at {revision[:12]} of", then):
            tree = self._api.list_repo_tree(self.repo_id, repo_type=self.repo_type, revision=revision, recursive=True)
            return {file.path: file for file in tree if isinstance(file, RepoFile) and not _hidden(file.path)}

    def create(self, private: bool) -> str:
        """Create the repository and return its first commit."""
        with self._errors("create"):
            self._api.create_repo(self.repo_id, repo_type=self.repo_type, private=private, exist_ok=True)
        state = self.state()
        if state is None:
            raise RecfoundError(f"{self} exists, but the access token may not read it; {_LOG_IN}")
        return state.head

    def commit(self, change: _Change, parent: str, message: str) -> str:
        """Send the files, then one commit on top of `parent`; return the commit."""
        additions = []
        for file in change.add:
            additions.append(CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=file.source))
            additions[-1].upload_info.sha256 = bytes.fromhex(file.sha256)  # so that the client does not hash it again
        with self._errors("send files to"):
            self._api.preupload_lfs_files(
                self.repo_id, additions, repo_type=self.repo_type, revision="main", free_memory=False
            )
        # Deletions first: a path may have become a folder, and the client warns where an addition is then deleted.
        deletions = [CommitOperationDelete(path_in_repo=path, is_folder=False) for path in change.delete]
        with self._errors("commit to"):
            info = self._api.create_commit(
                self.repo_id,
                [*deletions, *additions],
                repo_type=self.repo_type,
                revision="main",
                commit_message=message,
                parent_commit=parent,
            )
        return info.oid

    def tag(self, tag: str, commit: str) -> None:
        """Tag a commit."""
        with self._errors(f"set the tag {tag} on"):
            self._api.create_tag(self.repo_id, repo_type=self.repo_type, tag=tag, revision=commit, tag_message=tag)

    def verify(self, files: Mapping[str, _LocalFile], revision: str, then: str = _RUN_AGAIN) -> None:
        """Read a revision back and raise if it is not the folder."""
        found = self.files(revision, then)
        change = _compare(files, found)
        wrong = [f"{file.path} {'differs' if file.path in found else 'is missing'}" for file in change.add]
        wrong += [f"{path} is in excess" for path in change.delete]
        if wrong:
            listed = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
            raise RecfoundError(f"{self} at {revision[:12]} is not the folder: {listed}; {then}")

    @contextmanager
    def _errors(self, doing: str, then: str = _RUN_AGAIN) -> Iterator[None]:
        """Turn what the client raises into one line without the token; `then` is its end.

        The cause is dropped: the text of the client's exceptions may quote the request or what the hub said about it.
        """
        try:
            yield
        except (HTTPError, OSError, ValueError, RuntimeError) as error:
            line = " ".join(f"could not {doing} {self}: {self._reason(error)}; {then}".split())
            raise RecfoundError(line.replace(self._token, "<token>")) from None

    def _reason(self, error: BaseException) -> str:
        """What went wrong and what to do about it."""
        if isinstance(error, RuntimeError) and error.__cause__ is not None:  # the client's "Error while uploading ..."
            return self._reason(error.__cause__)
        if isinstance(error, HfHubHTTPError):
            said = (error.server_message or "no reason given").rstrip(".")[:300]
            return f"HTTP {error.response.status_code} ({said}): {self._advice(error)}"
        if isinstance(error, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set: unset it"
        if isinstance(error, HTTPError):
            return f"no answer ({type(error).__name__}): check the network and HF_ENDPOINT"
        if isinstance(error, json.JSONDecodeError):
            return "the answer is not JSON: check that HF_ENDPOINT is a hub"
        return str(error)

    def _advice(self, error: HfHubHTTPError) -> str:
        """What to do about an HTTP status."""
        status = error.response.status_code
        if status == 429:
            seconds = error.response.headers.get("Retry-After")
            return f"too many requests, wait {f'{seconds} seconds' if seconds else 'some minutes'}"
        if status >= 500:
            return "the hub is in trouble, wait a little"
        return {
            401: f"the access token was not accepted, {_LOG_IN}",
            403: f"the access token may not do this, use one that may write to {self.repo_id.split('/')[0]}",
            404: "it does not exist or the access token may not see it, check the name and the token",
            409: "it exists already or another change is under way, look at the repository",
            412: "main has moved since the release began and was left as it is, look at what is new on it",
        }.get(status, "the hub refused the request")


def describe(release: Release) -> str:
    """Return what a release did, or would do, for a person to read."""
    size = f"{release.uploaded_bytes / 1e6:,.1f} MB"
    if release.dry_run:
        return "\n".join(
            [
                f"dry run, nothing was changed: {release.url}",
                f"the repository {'exists' if release.repo_exists else 'would be created'}",
                f"would send {len(release.uploaded)} files, {size}: {', '.join(release.uploaded) or 'none'}",
                f"would delete {len(release.deleted)} files: {', '.join(release.deleted) or 'none'}",
                f"the tag {release.version} "
                + ("exists already: choose another version" if release.tag_exists else "would be set"),
            ]
        )
    sent = f"{len(release.uploaded)} files sent, {size}, {len(release.deleted)} deleted"
    return f'{release.url}\ncommit {release.commit}: {sent}; load it with revision="{release.version}"'
