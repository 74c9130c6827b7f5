"""The hub as an HTTP server on 127.0.0.1: start, stop, log, faults and what a client's process must be told."""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .messages import Cut, Fault, HubError, Interruption, LogEntry, Request, Response, UnansweredError
from .repository import Repository
from .routes import answer


class LoopbackHub:
    """A model hub in memory with one account: token `hf_test`, user `tester`, organisation `acme`.

    It speaks as much of the Hub's HTTP API as huggingface_hub, datasets, transformers, peft and sentence-transformers
    need to push and load. Not in it: Xet, multipart LFS, pull requests, git over HTTP, gating, the dataset viewer.

        with LoopbackHub() as hub:
            subprocess.run(command, env=hub.environment(tmp_path), check=True)
            assert hub.log[-1].status == 200
    """

    token = "hf_test"
    user = "tester"
    organisation = "acme"

    def __init__(self, page_size: int = 1000) -> None:
        self.page_size = page_size  # entries of one page of a tree listing
        self.repositories: dict[tuple[str, str], Repository] = {}  # by (models | datasets | spaces, id)
        self.uploads: dict[str, tuple[Repository, str]] = {}  # upload address -> where the large file goes, its sha256
        self.log: list[LogEntry] = []
        self._faults: list[Fault] = []
        self._cuts: list[Cut] = []
        self._interruption: Interruption | None = None
        self._lock = threading.Lock()
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        """The endpoint: http://127.0.0.1:PORT."""
        if self._server is None:
            raise RuntimeError("the hub has no address before start() and after stop()")
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> LoopbackHub:
        """Listen on a free port."""
        self._server = _Server(self)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop listening and cut connections that clients keep open."""
        if self._server is not None:
            self._server.shutdown()
            self._server.cut_connections()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> LoopbackHub:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def fail(
        self,
        method: str,
        path_regex: str,
        status: int,
        times: int = 1,
        *,
        headers: Mapping[str, str] | None = None,
        message: str = "injected fault",
        after: bool = False,
    ) -> None:
        """Answer the next `times` requests that match with `status`.

        With `after` the hub first does what was asked, so that only the answer is lost.
        """
        self._faults.append(Fault(method, re.compile(path_regex), status, times, headers or {}, message, after))

    def cut(self, method: str, path_regex: str, received: int, times: int = 1) -> None:
        """End the connection of the next `times` requests that match after so many bytes of their body."""
        self._cuts.append(Cut(method, re.compile(path_regex), received, times))

    def interrupt(self, at: int, call: Callable[[], None], *, after: bool = False, answered: bool = False) -> None:
        """At the `at`-th request from now (1 is the next) call something: a client's end, somebody else's push.

        With `after` the hub first does what was asked. Unless `answered`, the connection then ends without an answer.
        """
        self._interruption = Interruption(at, call, after, answered)

    def heal(self) -> None:
        """Forget the faults, cuts and interruptions that have not come about yet."""
        self._faults.clear()
        self._cuts.clear()
        self._interruption = None

    def settle(self) -> None:
        """Wait until all clients are gone and what they had under way is done."""
        until = time.monotonic() + 10
        while self._server is not None and self._server.connected():
            if time.monotonic() > until:
                raise TimeoutError("a client stays connected")
            time.sleep(0.002)

    def environment(self, home: Path) -> dict[str, str]:
        """The environment of a process whose clients use this hub, and keep their caches under `home`.

        It is this process's environment without its own Hugging Face settings; to be given at the start of a process,
        since the clients read these variables when they are imported.
        """
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.upper().startswith(("HF_", "HUGGING", "TRANSFORMERS_"))
            and name.upper() not in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        }
        return {
            **inherited,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_TOKEN": self.token,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
        }

    def repository(self, repo_type: str, repo_id: str) -> Repository:
        """A repository's state, for assertions; `repo_type` is model, dataset or space."""
        return self.repositories[f"{repo_type}s", repo_id]

    def handle(self, request: Request) -> Response:
        """Answer one request and log it.

        Raises:
            UnansweredError: it is the one to be interrupted at.
        """
        authorised = request.headers.get("authorization") == f"Bearer {self.token}"
        with self._lock:
            interruption = self._due()
            if interruption is not None and not interruption.after:
                self._come_about(interruption)
            fault = next((fault for fault in self._faults if fault.matches(request)), None)
            if fault is not None:
                fault.times -= 1
            if fault is None or fault.after:
                try:
                    response = answer(self, request)
                except HubError as error:
                    response = error.response()
            if fault is not None:
                response = fault.response()
            self.log.append(LogEntry(request.method, request.path, response.status, authorised))
            if interruption is not None and interruption.after:
                self._come_about(interruption)
        return response

    def _come_about(self, interruption: Interruption) -> None:
        interruption.call()
        if not interruption.answered:
            raise UnansweredError

    def _due(self) -> Interruption | None:
        """Count a request; return the interruption if it is to come about at this one."""
        if self._interruption is None:
            return None
        self._interruption.at -= 1
        if self._interruption.at > 0:
            return None
        due, self._interruption = self._interruption, None
        return due

    def bytes_before_cut(self, method: str, path: str) -> int | None:
        """How much of the body of this request may be read before its connection ends; None for all of it."""
        with self._lock:
            cut = next((cut for cut in self._cuts if cut.matches(method, path)), None)
            if cut is None:
                return None
            cut.times -= 1
            self.log.append(LogEntry(method, path, 0, False))
            return cut.received


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: LoopbackHub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        self._connections: set[socket.socket] = set()

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        self._connections.discard(request)
        super().shutdown_request(request)

    def connected(self) -> bool:
        """Whether a client's connection is open or a request of one is being served."""
        return bool(self._connections)

    def cut_connections(self) -> None:
        """End connections that are still open, or clients with a pool would go on talking to a stopped hub."""
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # the client was first
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print a traceback, except of a client that hung up in the middle of an answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body leave in one packet
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        received = self.server.hub.bytes_before_cut(self.command, address.path)
        if received is not None:
            self.rfile.read(received)
            self._hang_up()
            return
        request = Request(
            method=self.command,
            path=address.path,
            query=parse_qs(address.query),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self._read_body(),
        )
        try:
            response = self.server.hub.handle(request)
        except UnansweredError:
            self._hang_up()
            return
        self.send_response(response.status)
        for name, value in {"Content-Length": str(len(response.body)), **response.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 (http.server looks for these names)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, format: str, *arguments: object) -> None:
        """The hub has a log of its own."""
