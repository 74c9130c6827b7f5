"""An OpenAI-compatible chat endpoint: one question, one reply, and what its failures mean.

A failure is one of four: the server did no work and may be asked again (429, 503, no connection); it may have worked,
so it may be asked again but may have to be paid for both (a connection that was cut, a time that ran out, an answer
that cannot be read, 408, another 5xx); it will not answer this question (400, 413, 422); it will not answer any (a
wrong key, model or address, an empty account).
"""

from __future__ import annotations

import ipaddress
import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2

from recfound_data.errors import RecfoundError, UsageError
from recfound_data.patience import retry_after

KEY_VARIABLE = "RECFOUND_ENDPOINT_KEY"
_OPENAI_KEY_VARIABLE, _OPENAI = "OPENAI_API_KEY", "api.openai.com"
_LONGEST_REPLY = 4 << 20
_SAID_CHARS = 200
_NO_WORK_DONE = (429, 503)
_WORK_MAY_BE_DONE = (408, 409, 425, *range(500, 600))
_NOT_THIS = (400, 413, 422)


@dataclass(frozen=True)
class Reply:
    """What the server answered; tokens are None where it does not tell them."""

    text: str
    finish: str
    tokens_in: int | None
    tokens_out: int | None


class AgainError(Exception):
    """A request failed and may be repeated; `paid` says whether the server may have worked on it."""

    def __init__(self, why: str, *, paid: bool, wait: float | None = None) -> None:
        super().__init__(why)
        self.paid, self.wait = paid, wait


class RefusedError(Exception):
    """The server will not answer this question."""


class Endpoint:
    """Sends questions; several threads may use it at once.

    The key is taken from `RECFOUND_ENDPOINT_KEY`, or from `OPENAI_API_KEY` for OpenAI's own address, and goes nowhere
    but into the header of requests. Redirects are not followed: they would take it elsewhere.
    """

    def __init__(self, address: str, timeout: float, connections: int) -> None:
        self._address = chat_address(address)
        self._timeout = timeout
        headers = {"User-Agent": "recfound"}
        if key := _key(self._address):
            headers["Authorization"] = f"Bearer {key}"
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = httpx2.Client(headers=headers, timeout=timeout, limits=limits, follow_redirects=False)
        self._limit_name = "max_tokens"

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def send(self, body: Mapping[str, Any], key: str) -> Reply:
        """Return the reply to one request; `key` names it to servers that know repeated requests by a name.

        Raises:
            AgainError: it failed and may be repeated.
            RefusedError: the server refuses this one.
            RecfoundError: the server refuses all.
        """
        limit = self._limit_name
        named = {limit if name == "max_tokens" else name: value for name, value in body.items()}
        status, headers, content = self._post(named, key)
        if status == 200:
            return _reply(content)
        why = f"{status}: {_said(content)}"
        if status == 400 and limit == "max_tokens" and b"max_completion_tokens" in content:
            self._limit_name = "max_completion_tokens"  # the newer name, which some servers insist on
            raise AgainError(why, paid=False, wait=0.0)
        if status in _NOT_THIS:
            raise RefusedError(why)
        if status in _NO_WORK_DONE and b"insufficient_quota" not in content:
            raise AgainError(why, paid=False, wait=retry_after(headers.get("retry-after")))
        if status in _WORK_MAY_BE_DONE and status not in _NO_WORK_DONE:
            raise AgainError(why, paid=True, wait=retry_after(headers.get("retry-after")))
        raise RecfoundError(f"{self._address}: answers {why}{_advice(status)}")

    def _post(self, body: Mapping[str, Any], key: str) -> tuple[int, Mapping[str, str], bytes]:
        end = time.monotonic() + self._timeout
        sent = False
        try:
            with self._client.stream("POST", self._address, json=body, headers={"Idempotency-Key": key}) as response:
                sent, content = True, bytearray()
                for part in response.iter_bytes():
                    content += part
                    if len(content) > _LONGEST_REPLY or time.monotonic() > end:
                        raise AgainError("the answer does not end", paid=True)
                return response.status_code, response.headers, bytes(content)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            raise AgainError(f"no connection: {_line(str(error))}", paid=False) from None
        except httpx2.TransportError as error:
            what = "the connection was cut" if sent else "no answer came"
            raise AgainError(f"{what}: {_line(str(error)) or type(error).__name__}", paid=True) from None
        except httpx2.DecodingError as error:
            raise AgainError(f"unreadable: {_line(str(error))}", paid=True) from None


class Pause:
    """A time before which nobody asks: what one thread was told to wait, all wait."""

    def __init__(self) -> None:
        self._until = 0.0
        self._lock = threading.Lock()
        self.stopped = threading.Event()

    def until(self, seconds: float) -> None:
        """Let nobody ask for some seconds."""
        with self._lock:
            self._until = max(self._until, time.monotonic() + seconds)

    def wait(self, seconds: float = 0.0) -> None:
        """Wait these seconds and as long as all wait, or until the run is stopped."""
        end = time.monotonic() + seconds
        while (left := max(end, self._until) - time.monotonic()) > 0 and not self.stopped.wait(left):
            pass


def chat_address(endpoint: str) -> str:
    """Return the address that chat requests go to.

    Raises:
        UsageError: the endpoint is no http address, or holds a password.
    """
    try:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError
    except ValueError:
        raise UsageError("--endpoint is the address of an API, as in http://127.0.0.1:8000/v1") from None
    if parts.username or parts.password:
        raise UsageError(f"--endpoint holds a password; put the key into {KEY_VARIABLE} instead")
    return endpoint.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"


def is_here(endpoint: str) -> bool:
    """Return whether an address is of this machine."""
    host = urlsplit(endpoint).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _key(address: str) -> str:
    key = os.environ.get(KEY_VARIABLE, "")
    if not key and urlsplit(address).hostname == _OPENAI:
        key = os.environ.get(_OPENAI_KEY_VARIABLE, "")
    if not key.isascii() or any(character.isspace() for character in key):
        raise UsageError(f"{KEY_VARIABLE}: a key has no spaces, line ends or letters outside of ASCII")
    return key


def _reply(content: bytes) -> Reply:
    try:
        answer = json.loads(content)
        choice = answer["choices"][0]
        text = choice["message"].get("content")
        refusal = choice["message"].get("refusal")
        finish = choice.get("finish_reason") or ""
        usage = answer.get("usage") or {}
        tokens = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        if not isinstance(text or "", str) or not isinstance(finish, str):
            raise TypeError
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise AgainError(f"the answer is no chat completion: {_said(content)}", paid=True) from None
    known = [count if type(count) is int and count >= 0 else None for count in tokens]
    return Reply(text or "", "content_filter" if refusal and not text else finish, *known)


def _said(content: bytes) -> str:
    """Return what an error says: the message of OpenAI's form, or the beginning of the text."""
    try:
        error = json.loads(content)["error"]
        return _line(error["message"] if isinstance(error, dict) else str(error))
    except (ValueError, KeyError, TypeError, RecursionError):
        return _line(content[: 2 * _SAID_CHARS].decode("utf-8", "replace"))


def _line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())[:_SAID_CHARS]


def _advice(status: int) -> str:
    match status:
        case 401 | 403:
            return f"; set {KEY_VARIABLE} to a key that it knows"
        case 402 | 429:
            return "; the account has nothing left; what was answered is kept, run the same command again later"
        case 404 | 405:
            return "; check --endpoint, which often ends in /v1, and --model"
        case 300 | 301 | 302 | 303 | 307 | 308:
            return "; redirects are not followed, name the address that it leads to"
    return ""
