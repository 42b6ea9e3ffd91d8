"""A local HTTP server of small files that supports ranges and injects faults."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Fault:
    """What goes wrong in one request.

    Attributes:
        close_after: bytes of the body after which the connection is closed.
        status: answered instead of the file.
        headers: added to the answer.
        wait_for: the answer is delayed until this event.
    """

    close_after: int | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_for: threading.Event | None = None


@dataclass
class FileServer:
    """Files by path, the faults of the next requests in order, and the headers of the past requests."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    supports_ranges: bool = True
    has_etags: bool = True
    url: str = ""

    @property
    def ranges(self) -> list[str | None]:
        """The Range header of each request."""
        return [headers.get("Range") for headers in self.requests]


@contextmanager
def serve_files(tls: ssl.SSLContext | None = None) -> Iterator[FileServer]:
    """Serve on a free loopback port, over HTTPS with a context, until the context manager exits."""
    files = FileServer()

    class Handler(_Handler):
        server_state = files

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    files.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server_state: FileServer

    def do_GET(self) -> None:
        state = self.server_state
        state.requests.append(dict(self.headers))
        fault = state.faults.pop(0) if state.faults else Fault()
        if fault.wait_for is not None:
            fault.wait_for.wait(60)
        body = state.files.get(self.path)
        if fault.status is not None or body is None:
            with contextlib.suppress(ConnectionError):
                self.send_response(fault.status or 404)
                self._send_headers({"Content-Length": "0", **fault.headers})
            return
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        headers = {"ETag": etag} if state.has_etags else {}
        offset = 0
        wanted = self.headers.get("Range")
        if wanted and state.supports_ranges and self.headers.get("If-Range", etag) == etag:
            offset = int(wanted.removeprefix("bytes=").rstrip("-"))
            if offset >= len(body):
                self.send_response(416)
                self._send_headers({"Content-Length": "0"})
                return
            self.send_response(206)
            headers["Content-Range"] = f"bytes {offset}-{len(body) - 1}/{len(body)}"
        else:
            self.send_response(200)
        self._send_headers({**headers, "Content-Length": str(len(body) - offset), **fault.headers})
        end = None if fault.close_after is None else offset + fault.close_after
        # The client closes the connection when it refuses the file.
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body[offset:end])
        self.close_connection = True

    def _send_headers(self, headers: Mapping[str, str]) -> None:
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        pass
