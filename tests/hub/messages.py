"""Requests, answers and faults of the hub, apart from how they travel."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Request:
    """One request, its body read in full; `path` stays percent-encoded, since a revision is one encoded segment."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    def flag(self, name: str) -> bool:
        """Whether the query says true, in any of the clients' spellings."""
        return self.query.get(name, [""])[0].lower() in ("1", "true")


@dataclass(frozen=True)
class Response:
    """One answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        """An answer that is JSON."""
        return cls(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})


class HubError(Exception):
    """A refusal, in the headers and the body from which the clients make their exceptions."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, dict(headers or {})

    def response(self) -> Response:
        headers = {"X-Error-Message": " ".join(self.message.split()), **self.headers}
        if self.code is not None:
            headers["X-Error-Code"] = self.code
        return Response.of({"error": self.message}, self.status, headers)


@dataclass(frozen=True)
class LogEntry:
    """One line of the request log."""

    method: str
    path: str
    status: int
    authorised: bool


@dataclass
class Fault:
    """An answer that the next `times` matching requests get; with `after`, only once the hub has done its work."""

    method: str
    path: re.Pattern[str]
    status: int
    times: int
    headers: Mapping[str, str]
    message: str
    after: bool

    def matches(self, request: Request) -> bool:
        return self.times > 0 and request.method == self.method and self.path.search(request.path) is not None

    def response(self) -> Response:
        return HubError(self.status, self.message, headers=self.headers).response()


@dataclass
class Cut:
    """The next `times` matching requests lose their connection once `received` bytes of the body have come."""

    method: str
    path: re.Pattern[str]
    received: int
    times: int

    def matches(self, method: str, path: str) -> bool:
        return self.times > 0 and method == self.method and self.path.search(path) is not None


@dataclass
class Interruption:
    """What happens at the `at`-th request from now, before or after the hub does its work, with or without answer."""

    at: int
    call: Callable[[], None]
    after: bool
    answered: bool


class UnansweredError(Exception):
    """The connection ends without an answer."""
