"""One repository on the hub: what it holds, what can be done to it, and errors that a person can act on.

The client itself repeats preupload, large-file and listing requests up to five times, and waits as long as a
`Retry-After` asks. Everything else it tries once; of that, what is refused with HTTP 429 is repeated here, since it was
not done, if the hub asks for a wait of at most `MOST_WAIT` seconds together.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import (
    DeviceCodeError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    OIDCError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import parse_ratelimit_headers, validate_repo_id

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.release.local import Files, LocalFile, compare, hidden

MOST_WAIT = 300
"""Seconds that one request waits for a hub that asks for fewer requests; the Hub counts in windows of five minutes."""
LOG_IN = "set HF_TOKEN to an access token with write permission or run `hf auth login`"
RUN_AGAIN = "then run the same command again (files that have arrived are not sent twice)"

_T = TypeVar("_T")


@dataclass(frozen=True)
class State:
    """What a repository holds: the commit of `main`, tags and other branches with theirs, files without hidden ones."""

    head: str
    private: bool
    tags: Mapping[str, str]
    branches: Mapping[str, str]
    files: Mapping[str, RepoFile]


class Repository:
    """One repository on the hub; every method turns the client's errors into a RecfoundError."""

    def __init__(self, repo_id: str, repo_type: str, token: str, endpoint: str | None) -> None:
        self._api = HfApi(endpoint=hub_address(endpoint), token=token)
        self._token = token
        self.repo_id, self.repo_type = repo_id, repo_type

    def __str__(self) -> str:
        return f"{self.repo_type} {self.repo_id} at {self._api.endpoint}"

    def url(self, tag: str) -> str:
        """The page of the repository at a tag."""
        prefix = "datasets/" if self.repo_type == "dataset" else ""
        return f"{self._api.endpoint}/{prefix}{self.repo_id}/tree/{tag}"

    def state(self) -> State | None:
        """What the repository holds now; None where there is none that the token may see."""
        with self._errors("read"):
            try:
                info = _patient(lambda: self._api.repo_info(self.repo_id, repo_type=self.repo_type))
            except RepositoryNotFoundError as error:  # the client's name for a 401 as well: the status decides
                if error.response.status_code == 404:
                    return None
                raise
            refs = _patient(lambda: self._api.list_repo_refs(self.repo_id, repo_type=self.repo_type))
        if info.sha is None:
            raise RecfoundError(f"could not read {self}: the hub does not name the commit of main")
        tags = {ref.name: ref.target_commit for ref in refs.tags}
        branches = {ref.name: ref.target_commit for ref in refs.branches if ref.name != "main"}
        return State(info.sha, bool(info.private), tags, branches, self.files(info.sha))

    def files(self, revision: str, then: str = RUN_AGAIN) -> dict[str, RepoFile]:
        """The files at a revision by path, without hidden ones."""
        with self._errors(f"list the files at {revision[:12]} of", then):
            tree = self._api.list_repo_tree(self.repo_id, repo_type=self.repo_type, revision=revision, recursive=True)
            return {file.path: file for file in tree if isinstance(file, RepoFile) and not hidden(file.path)}

    def read(self, path: str, commit: str) -> bytes | None:
        """The content of a file at a commit; None where it has no such file."""
        with self._errors(f"read {path} at {commit[:7]} of"), tempfile.TemporaryDirectory() as folder:
            try:
                file = self._api.hf_hub_download(
                    self.repo_id, path, repo_type=self.repo_type, revision=commit, cache_dir=folder
                )
            except RemoteEntryNotFoundError:
                return None
            return Path(file).read_bytes()

    def create(self, private: bool) -> State:
        """Create the repository and return what it holds at first."""
        with self._errors("create"):
            _patient(
                lambda: self._api.create_repo(self.repo_id, repo_type=self.repo_type, private=private, exist_ok=True)
            )
        state = self.state()
        if state is None:
            raise RecfoundError(f"{self} exists, but the access token may not read it; {LOG_IN}")
        return state

    def commit(
        self,
        message: str,
        branch: str,
        parent: str,
        *,
        add: Sequence[LocalFile] = (),
        copy: Sequence[str] = (),
        copy_from: str = "",
        delete: Sequence[str] = (),
    ) -> str:
        """Send files, then make one commit on top of `parent`, the head of `branch`; return the commit.

        Paths to `copy` are taken from the revision `copy_from` of this repository; nothing is sent for large ones.
        """
        additions = []
        for file in add:
            additions.append(CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=file.source))
            additions[-1].upload_info.sha256 = bytes.fromhex(file.sha256)  # so that the client does not hash it again
        if additions:
            with self._errors("send files to"):
                self._api.preupload_lfs_files(
                    self.repo_id, additions, repo_type=self.repo_type, revision=branch, free_memory=False
                )
        # Deletions first: a path may have become a folder, and the client warns where an addition is then deleted.
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
            *(CommitOperationDelete(path_in_repo=path, is_folder=False) for path in delete),
            *(CommitOperationCopy(path, path, src_revision=copy_from) for path in copy),
            *additions,
        ]
        with self._errors(f"commit to {'' if branch == 'main' else f'branch {branch} of '}"):
            info = _patient(
                lambda: self._api.create_commit(
                    self.repo_id,
                    operations,
                    repo_type=self.repo_type,
                    revision=branch,
                    commit_message=message,
                    parent_commit=parent,
                )
            )
        return info.oid

    def branch(self, name: str, commit: str) -> str:
        """Create a branch at a commit; return the commit at which it is, another one if it was there before."""
        with self._errors(f"create the branch {name} of"):
            _patient(
                lambda: self._api.create_branch(
                    self.repo_id, repo_type=self.repo_type, branch=name, revision=commit, exist_ok=True
                )
            )
            refs = _patient(lambda: self._api.list_repo_refs(self.repo_id, repo_type=self.repo_type))
        return next((ref.target_commit for ref in refs.branches if ref.name == name), commit)

    def delete_branch(self, name: str, then: str) -> None:
        """Delete a branch; that it is gone already is as well."""
        with self._errors(f"delete the branch {name} of", then):
            try:
                _patient(lambda: self._api.delete_branch(self.repo_id, repo_type=self.repo_type, branch=name))
            except HfHubHTTPError as error:
                if error.response.status_code != 404:
                    raise

    def tag(self, tag: str, commit: str) -> None:
        """Tag a commit."""
        with self._errors(f"set the tag {tag} on"):
            _patient(
                lambda: self._api.create_tag(
                    self.repo_id, repo_type=self.repo_type, tag=tag, revision=commit, tag_message=tag
                )
            )

    def verify(self, files: Files, revision: str, then: str = RUN_AGAIN) -> None:
        """Read a revision back and raise if it is not what is released."""
        found = self.files(revision, then)
        change = compare(files, found)
        wrong = [f"{file.path} {'differs' if file.path in found else 'is missing'}" for file in change.add]
        wrong += [f"{path} is in excess" for path in change.delete]
        if wrong:
            listed = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
            raise RecfoundError(f"{self} at {revision[:12]} is not what was released: {listed}; {then}")

    @contextmanager
    def _errors(self, doing: str, then: str = RUN_AGAIN) -> Iterator[None]:
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
        # The client's "Error while uploading ..." and "cannot find the requested files in the local cache".
        if isinstance(error, (RuntimeError, LocalEntryNotFoundError)) and error.__cause__ is not None:
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
            seconds = _asked_wait(error)
            return f"too many requests, wait {'some minutes' if seconds is None else f'{seconds} seconds'}"
        if status >= 500:
            return "the hub is in trouble, wait a little"
        return {
            401: f"the access token was not accepted, {LOG_IN}",
            403: f"the access token may not do this, use one that may write to {self.repo_id.split('/')[0]}",
            404: "it does not exist or the access token may not see it, check the name and the token",
            409: "it exists already or another change is under way, look at the repository",
            412: "the branch has moved since the release began and was left as it is, look at what is new on it",
        }.get(status, "the hub refused the request")


def _patient(call: Callable[[], _T]) -> _T:
    """Call; where the hub says that it is asked too much, wait as long as it says and call again, within bounds."""
    left = MOST_WAIT
    while True:
        try:
            return call()
        except HfHubHTTPError as error:
            seconds = _asked_wait(error)
            if error.response.status_code != 429 or seconds is None or seconds >= left:
                raise
            left -= seconds + 1
            time.sleep(seconds + 1)  # one more: the hub rounds


def _asked_wait(error: HfHubHTTPError) -> int | None:
    """The seconds that the hub asks to wait; None where it does not say."""
    headers = error.response.headers
    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds
    asked = headers.get("Retry-After", "")
    return int(asked) if re.fullmatch(r"[0-9]{1,9}", asked) else None


def check_repo_id(repo_id: str) -> None:
    """Raise unless this is a name of the form organisation/name.

    Raises:
        UsageError: it is not.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UsageError(f"repository {repo_id!r} has no valid name: {error}") from error
    if "/" not in repo_id:
        raise UsageError(f"repository {repo_id!r} lacks its user or organisation: write ORG/NAME")


def access_token(given: str | None) -> str:
    """Return the access token, checked here because the HTTP client quotes a malformed one in its error.

    Raises:
        RecfoundError: there is none, or it is malformed.
    """
    try:
        token = given or get_token()
    except (OIDCError, DeviceCodeError):
        raise RecfoundError(f"the login at the hub could not be renewed: {LOG_IN}") from None
    if not token:
        raise RecfoundError(f"there is no access token for the hub: {LOG_IN}")
    if re.fullmatch(r"[!-~]+", token.strip()) is None:
        raise RecfoundError(f"the access token holds a space, a line break or a letter outside ASCII: {LOG_IN}")
    return token.strip()


def hub_address(given: str | None) -> str | None:
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
