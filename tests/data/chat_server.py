"""An OpenAI-compatible chat endpoint on loopback that answers, and fails, as a test says."""

import json
import re
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What the server does with one request."""

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    finish: str = "stop"
    usage: dict[str, int] | None = None
    raw: bytes | None = None
    cut_after: int | None = None
    slow: float = 0.0
    drip: float = 0.0


def faithful(body: dict[str, Any]) -> str:
    """A profile that says nothing but what the prompt says, different for different prompts."""
    facts = body["messages"][-1]["content"].partition("\n\n")[2]
    rated = re.findall(r"(?m)^- (.*?)(?: \[[^\]]*\])?: (\d+(?:\.\d+)?)$", facts)
    if not rated:
        title, rest = facts.partition("\n")[0].removeprefix("Title: "), facts.partition("\n")[2]
        seen = [value for value in re.findall(r"(?m)^[A-Z][\w ]*: (.{3,40})$", rest) if '"' not in value]
        return (
            f"Whoever looks into this catalogue will find “{title}” there, an entry about which the page has little "
            f"more to tell than a handful of plain particulars, which come down to {' and '.join(seen) or 'nothing'}."
        )
    liked, least = rated[0], min(rated, key=lambda pair: float(pair[1]))
    return (
        f"The user has looked at {len(rated)} things of late and begins with “{liked[0]}”, which got {liked[1]}. "
        f"What pleased the least was “{least[0]}” with {least[1]}, and between the two there is a steady hand that "
        "weighs one choice against another and seldom goes to an extreme without a reason of its own."
    )


class ChatServer:
    """Counts what it was asked, what it answered wholly, and keeps every request."""

    def __init__(
        self, behave: Callable[[int, dict[str, Any]], Reply] | None = None, *, remembers: bool = False
    ) -> None:
        self.behave = behave or (lambda number, body: Reply(faithful(body)))
        self.remembers = remembers
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.raw: list[bytes] = []
        self.times: list[float] = []
        self.paid: Counter[str] = Counter()
        self.tokens = 0
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()
        self.gate = threading.Event()
        self.gate.set()
        self._remembered: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> "ChatServer":
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            chat = self

            def do_POST(self) -> None:
                self.chat.serve(self)

            def log_message(self, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *arguments: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers["Content-Length"]))
        body = json.loads(raw)
        with self.lock:
            number = len(self.requests)
            self.requests.append(body)
            self.raw.append(raw)
            self.times.append(time.monotonic())
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            self._answer(handler, number, body)
        finally:
            with self.lock:
                self.under_way -= 1

    def _answer(self, handler: BaseHTTPRequestHandler, number: int, body: dict[str, Any]) -> None:
        name = handler.headers.get("Idempotency-Key", "")
        if self.remembers and name in self._remembered:
            _send(handler, 200, {}, self._remembered[name])
            return
        reply = self.behave(number, body)
        deadline = time.monotonic() + reply.slow
        while time.monotonic() < deadline or not self.gate.is_set():
            if _gone(handler.connection):
                handler.close_connection = True
                return
            time.sleep(0.005)
        content = reply.raw if reply.raw is not None else _completion(reply, body)
        if reply.status == 200:
            with self.lock:
                self.paid[json.dumps(body["messages"])] += 1
                self.tokens += sum((reply.usage or {}).values())
                self._remembered[name] = content
        if reply.drip:
            _drip(handler, content, reply.drip)
        elif reply.cut_after is not None:
            _send(handler, reply.status, reply.headers, content, reply.cut_after)
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
        else:
            _send(handler, reply.status, reply.headers, content)


def _gone(connection: socket.socket) -> bool:
    readable, _, _ = select.select([connection], [], [], 0)
    return bool(readable) and connection.recv(1, socket.MSG_PEEK) == b""


def _completion(reply: Reply, body: dict[str, Any]) -> bytes:
    if reply.status != 200:
        return json.dumps({"error": {"message": reply.text or "injected", "code": reply.text}}).encode()
    if reply.usage is None:
        words = sum(len(message["content"].split()) for message in body["messages"])
        reply.usage = {"prompt_tokens": words, "completion_tokens": len(reply.text.split())}
    usage = {"usage": reply.usage} if reply.usage else {}
    choice = {"index": 0, "message": {"role": "assistant", "content": reply.text}, "finish_reason": reply.finish}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], **usage}).encode()


def _drip(handler: BaseHTTPRequestHandler, content: bytes, pause: float) -> None:
    """A byte at a time: no silence is long, and the whole takes very long."""
    _send(handler, 200, {}, content, 0)
    for at in range(len(content)):
        handler.wfile.write(content[at : at + 1])
        handler.wfile.flush()
        time.sleep(pause)


def _send(
    handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes, cut: int | None = None
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[:cut])
    handler.wfile.flush()
