"""One file from one address: begun where it was cut off, checked while it comes, there whole and right or not at all.

What came so far is `NAME.part`; `NAME.part.json` says of which version of the file it is. A part is gone on with only
if the server says that its version is still the same, or if a checksum will tell in the end.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from recfound_data.downloading.registry import RemoteFile
from recfound_data.errors import RecfoundError
from recfound_data.patience import Patience, retry_after

_CHUNK = 1 << 20
_MOST_REQUESTS = 100
_MOST_REDIRECTS = 5
_SILENCE_SECONDS = 60.0
_POINTER = b"version https://git-lfs.github.com/spec/"
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_NO_RANGE = re.compile(r"bytes \*/(\d+)")

Advance = Callable[[int], None]


class Sums:
    """SHA-256, MD5 and size of what came so far."""

    def __init__(self) -> None:
        self.size = 0
        self._sha256, self._md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)

    @classmethod
    def of(cls, path: Path) -> Sums:
        """Return those of a file."""
        sums = cls()
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                sums.add(chunk)
        return sums

    def add(self, chunk: bytes) -> None:
        """Count more bytes."""
        self.size += len(chunk)
        self._sha256.update(chunk)
        self._md5.update(chunk)

    @property
    def sha256(self) -> str:
        """In hexadecimal."""
        return self._sha256.hexdigest()

    def fault(self, file: RemoteFile) -> str:
        """Return in what this differs from what is known of the file; an empty string where it does not."""
        for what, found, known in (
            ("size", self.size, file.size),
            ("SHA-256", self.sha256, file.sha256),
            ("MD5", self._md5.hexdigest(), file.md5),
        ):
            if known and found != known:
                return f"its {what} is {found}, and should be {known}"
        return ""


@dataclass
class _State:
    """Of which version of a file a part is: the server's tag or date for it, and how long it is as a whole."""

    address: str
    version: str = ""
    total: int | None = None


class _BrokenError(Exception):
    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


def fetch(file: RemoteFile, path: Path, page: str, patience: Patience, advance: Advance) -> Sums:
    """Fetch a file to `path` and return its sums.

    Args:
        file: what to fetch.
        path: where it is to be.
        page: named in errors.
        patience: between requests that bring nothing.
        advance: called with the number of bytes that came; what has to be fetched again counts below zero.

    Raises:
        RecfoundError: the server does not give the file, or gives another one.
    """
    job = _Fetch(file, path, page, advance)
    failures = 0
    for _ in range(_MOST_REQUESTS):
        before = job.sums.size
        try:
            job.pull()
            if job.checked():
                return job.sums
        except (_BrokenError, httpx2.TransportError) as error:
            failures = failures + 1 if job.sums.size <= before else 1
            if failures >= patience.attempts:
                raise RecfoundError(
                    f"{file.address}: broke off after {job.sums.size:,} bytes ({_line(error)}); "
                    "run the same command again to go on"
                ) from None
            time.sleep(patience.wait(failures, getattr(error, "wait", None)))
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise RecfoundError(f"{file.address}: cannot be fetched: {_line(error)}; see {page}") from None
    raise RecfoundError(f"{file.address}: broke off {_MOST_REQUESTS} times; run the same command again to go on")


class _Fetch:
    """The state of one file on its way; each `pull` is one request."""

    def __init__(self, file: RemoteFile, path: Path, page: str, advance: Advance) -> None:
        self._file, self._path, self._page, self._advance = file, path, page, advance
        self._part = path.with_name(f"{path.name}.part")
        self._note = path.with_name(f"{path.name}.part.json")
        self._state = _State(file.address)
        self._gone_on = False
        self.sums = Sums()
        self._recall()

    def _recall(self) -> None:
        """Take up a part that an earlier run left, if it is of this address."""
        try:
            known = _State(**json.loads(self._note.read_text(encoding="utf-8")))
            if known.address == self._file.address and self._part.is_file():
                self._state, self.sums = known, Sums.of(self._part)
                self._advance(self.sums.size)
        except (FileNotFoundError, ValueError, TypeError):
            pass
        if not self.sums.size:
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._advance(-self.sums.size)
        self.sums, self._state, self._gone_on = Sums(), _State(self._file.address), False
        self._part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def pull(self) -> None:
        """Ask for what is missing and append it to the part."""
        if self.sums.size and not (self._state.version or self._file.sha256 or self._file.md5):
            self._begin_anew()
        if self.sums.size and self.sums.size == (self._state.total or self._file.size):
            return
        headers = {"Accept-Encoding": "identity", "User-Agent": "recfound"}
        if self.sums.size:
            headers["Range"] = f"bytes={self.sums.size}-"
            if self._state.version:
                headers["If-Range"] = self._state.version
        with self._client() as client, client.stream("GET", self._file.address, headers=headers) as response:
            if self._is_all(response):
                return
            self._require(response)
            with self._part.open("ab") as stream:
                # As they come: what waits to fill a larger piece is lost when the connection is cut.
                for chunk in response.iter_raw():
                    stream.write(chunk)
                    self.sums.add(chunk)
                    self._advance(len(chunk))
                    self._require_fits()
                stream.flush()
                os.fsync(stream.fileno())
        if self._state.total is not None and self.sums.size != self._state.total:
            raise _BrokenError("the connection ended early")

    def _is_all(self, response: httpx2.Response) -> bool:
        """Return whether the server has nothing behind what came: it did not tell the length before."""
        length = _NO_RANGE.fullmatch(response.headers.get("content-range", ""))
        return response.status_code == 416 and length is not None and int(length[1]) == self.sums.size

    def _client(self) -> httpx2.Client:
        secure = urlsplit(self._file.address).scheme == "https"

        def require_web(request: httpx2.Request) -> None:
            if request.url.scheme != "https" and (secure or request.url.scheme != "http"):
                raise RecfoundError(f"{self._file.address}: leads to {request.url.scheme}://; see {self._page}")

        return httpx2.Client(
            timeout=_SILENCE_SECONDS,
            follow_redirects=True,
            max_redirects=_MOST_REDIRECTS,
            event_hooks={"request": [require_web]},
        )

    def _require(self, response: httpx2.Response) -> None:
        """Begin anew or go on, as the server's answer says, and raise unless it gives the file."""
        status, headers = response.status_code, response.headers
        if status == 416:
            self._begin_anew()
            raise _BrokenError("the server's file is shorter than what came of it")
        if status in (408, 425, 429) or status >= 500:
            raise _BrokenError(f"the server answers {status}", retry_after(headers.get("retry-after")))
        if status not in (200, 206):
            raise RecfoundError(f"{self._file.address}: the server answers {status}{self._advice(status)}")
        if headers.get("content-type", "").startswith("text/html"):
            raise RecfoundError(f"{self._file.address}: gives a web page and not the file{self._advice(403)}")
        if headers.get("content-encoding", "identity") not in ("identity", "gzip", "x-gzip") or (
            "gzip" in headers.get("content-encoding", "") and not self._path.name.endswith("gz")
        ):
            raise RecfoundError(f"{self._file.address}: is sent compressed although that was not asked for")
        length = headers.get("content-length", "")
        version = headers.get("etag", "")
        version = "" if version.startswith("W/") else version or headers.get("last-modified", "")
        if status == 206:
            place = _RANGE.fullmatch(headers.get("content-range", ""))
            if place is None or int(place[1]) != self.sums.size or (self._state.version not in ("", version)):
                self._begin_anew()
                raise _BrokenError("the server sent another part than was asked for")
            self._gone_on = True
            total = int(place[2]) if place[2] != "*" else self._state.total
        else:
            self._begin_anew()
            total = int(length) if length.isdecimal() else None
        self._state = _State(self._file.address, version, total)
        self._require_room()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._note.write_text(json.dumps(vars(self._state)), encoding="utf-8")

    def _require_room(self) -> None:
        total = self._state.total
        if total is None:
            return
        if self._file.size and total != self._file.size:
            raise RecfoundError(
                f"{self._file.address}: has {total:,} bytes and should have {self._file.size:,}; "
                f"the publisher may have changed it, see {self._page}"
            )
        free = shutil.disk_usage(self._path.parent).free
        if total - self.sums.size > free:
            raise RecfoundError(
                f"{self._path}: needs {total - self.sums.size:,} bytes more and the disk has {free:,} free; "
                "free space or name another folder"
            )

    def _require_fits(self) -> None:
        most = self._file.size or self._state.total
        if most is not None and self.sums.size > most:
            self._begin_anew()
            raise _BrokenError("more came than the file has")

    def _advice(self, status: int) -> str:
        if status in (401, 403, 407):
            return f"; it may want a form or a login, see {self._page}"
        return f"; the publisher may have moved it, see {self._page}"

    def checked(self) -> bool:
        """Put the whole file in its place, or throw it away: to begin anew if it was put together of several tries.

        Raises:
            RecfoundError: it is not the file that it should be.
        """
        with self._part.open("rb") as stream:
            pointer = stream.read(len(_POINTER)) == _POINTER
        fault = "it is a pointer of Git LFS and not the file" if pointer else self.sums.fault(self._file)
        if not fault:
            self._part.replace(self._path)
            self._note.unlink(missing_ok=True)
            return True
        pieced = self._gone_on
        self._begin_anew()
        if pieced and not pointer:
            return False
        raise RecfoundError(
            f"{self._file.address}: is not the file that is known: {fault}; it was thrown away. "
            f"If the publisher changed it, fetch it by hand, see {self._page}"
        )


def _line(error: Any) -> str:
    return " ".join(str(error).split()) or type(error).__name__
