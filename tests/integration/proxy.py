"""TCP proxy that can cut its connections, freeze, and count connections."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Proxy:
    """Forwards bytes between clients and a server."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._server = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._flowing = threading.Event()
        self._flowing.set()
        self._threads: list[threading.Thread] = []
        self.connections = 0
        self._is_closed = False
        self._start_thread(self._accept)

    @property
    def address(self) -> str:
        """The address that clients connect to."""
        return f"127.0.0.1:{self._listening.getsockname()[1]}"

    def cut(self) -> None:
        """Shut down every open connection; new connections are accepted."""
        for side in self._sockets:
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def freeze(self) -> None:
        """Stop forwarding without closing any connection."""
        self._flowing.clear()

    def resume(self) -> None:
        """Forward again, including the bytes received while frozen."""
        self._flowing.set()

    def close(self) -> None:
        """Stop listening, shut down all connections and join the threads."""
        self._is_closed = True
        self.resume()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def _start_thread(self, run, *arguments) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listening.accept()
                server = socket.create_connection(self._server)
            except OSError:
                continue
            self.connections += 1
            self._sockets += [client, server]
            self._start_thread(self._forward, client, server)
            self._start_thread(self._forward, server, client)

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with source, contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxy_to(address: str) -> Iterator[Proxy]:
    """Run a proxy to a server within the context."""
    proxy = Proxy(address)
    try:
        yield proxy
    finally:
        proxy.close()
