"""HTTP endpoints for operators and load balancers: ``/metrics`` (Prometheus), ``/livez`` and ``/readyz``.

They expose no secrets and change nothing: only GET is answered, on a separate address.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from gorggle_server.errors import InvalidRequestError

REQUEST_TIMEOUT_S = 10.0

_log = logging.getLogger(__name__)
_StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class HttpServer:
    """Serves on its own thread from ``start`` to ``stop``.

    Args:
        listen: HOST:PORT; port 0 selects a free one.
        registry: of the metrics.
        is_ready: whether calls are served now.
        is_alive: whether the process works; if not, it should be restarted.
    """

    def __init__(
        self,
        listen: str,
        registry: CollectorRegistry,
        is_ready: Callable[[], bool],
        is_alive: Callable[[], bool],
    ) -> None:
        self._listen, self._is_ready, self._is_alive = listen, is_ready, is_alive
        self._metrics = make_wsgi_app(registry)
        self._server: WSGIServer | None = None

    @property
    def port(self) -> int:
        """The bound port."""
        assert self._server is not None, "it has been started"
        return self._server.server_port

    @property
    def address(self) -> str:
        """The bound HOST:PORT."""
        return f"{self._listen.rpartition(':')[0]}:{self.port}"

    def start(self) -> None:
        """Listen.

        Raises:
            InvalidRequestError: the address cannot be bound.
        """
        host, _, port = self._listen.rpartition(":")
        try:
            self._server = make_server(
                host.strip("[]"), int(port), self._handle_request, ThreadingWSGIServer, _RequestHandler
            )
        except OSError as error:
            raise InvalidRequestError(f"cannot listen on {self._listen}: {error}") from error
        threading.Thread(target=self._server.serve_forever, name="operations", daemon=True).start()

    def stop(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _handle_request(self, environ: dict[str, Any], start_response: _StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _respond(start_response, "405 Method Not Allowed", "only GET is supported")
        match environ["PATH_INFO"]:
            case "/metrics":
                answer: Iterable[bytes] = self._metrics(environ, start_response)
                return answer
            case "/livez":
                problem = "the event loop is blocked, or the device has failed: restart"
                ok, status = self._is_alive(), ("alive", problem)
            case "/readyz":
                ok, status = self._is_ready(), ("ready", "loading models, or shutting down")
            case _:
                return _respond(start_response, "404 Not Found", "available: /metrics, /livez and /readyz")
        if ok:
            return _respond(start_response, "200 OK", status[0])
        return _respond(start_response, "503 Service Unavailable", status[1])


class _RequestHandler(WSGIRequestHandler):
    timeout = REQUEST_TIMEOUT_S

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log at DEBUG only: load balancers send requests every few seconds."""
        _log.debug(format, *args)


def _respond(start_response: _StartResponse, status: str, body: str) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [body.encode() + b"\n"]
