"""Files over HTTP on loopback, with the faults of real servers: cuts, wrong lengths, ignored ranges, other files."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Sent:
    """How one answer departs from what is right."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    length: int | None = None
    content: bytes | None = None


@dataclass
class Asked:
    """One request, as the server saw it."""

    path: str
    range: str | None
    if_range: str | None
    sent: int = 0


class FileServer:
    """Serves `files` by path; `faults` are taken one a request, `fault` decides for each."""

    def __init__(self, files: dict[str, bytes] | None = None, *, ranges: bool = True, tags: bool = True) -> None:
        self.files = files or {}
        self.ranges, self.tags = ranges, tags
        self.faults: list[Sent] = []
        self.fault: Callable[[Asked], Sent] | None = None
        self.chunked = False
        self.asked: list[Asked] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FileServer":
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            files = self

            def do_GET(self) -> None:
                self.files.serve(self)

            def log_message(self, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *arguments: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        asked = Asked(handler.path, handler.headers.get("Range"), handler.headers.get("If-Range"))
        self.asked.append(asked)
        fault = self.faults.pop(0) if self.faults else Sent()
        if self.fault is not None:
            fault = self.fault(asked)
        content = self.files.get(handler.path, b"")
        status = 200 if handler.path in self.files else 404
        tag = f'"{hashlib.sha256(content).hexdigest()[:12]}"'
        headers = {"ETag": tag} if self.tags else {}
        if self.ranges and status == 200 and asked.range and asked.if_range in (None, tag):
            first = int(asked.range.removeprefix("bytes=").rstrip("-"))
            if first >= len(content):
                status, headers["Content-Range"], content = 416, f"bytes */{len(content)}", b""
            else:
                headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
                status, content = 206, content[first:]
        if fault.status is not None:
            status, content = fault.status, b"fault"
        content = content if fault.content is None else fault.content
        handler.send_response(status)
        length = len(content) if fault.length is None else fault.length
        framing = {"Transfer-Encoding": "chunked"} if self.chunked else {"Content-Length": str(length)}
        for name, value in (headers | framing | {"Content-Type": "application/octet-stream"} | fault.headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        body = content[: fault.cut_after]
        asked.sent = len(body)
        if self.chunked:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(body), body) + (b"" if fault.cut_after else b"0\r\n\r\n"))
        else:
            handler.wfile.write(body)
        handler.wfile.flush()
        if fault.cut_after is not None or len(body) != length:
            handler.close_connection = True
