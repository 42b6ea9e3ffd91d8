"""Stands between the functions and their server, and acts in the middle of a stream: exactly there, however fast the machine is."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class _Action:
    """What to do once a connection has sent so much."""

    after_bytes: int
    act: Callable[[], None]
    is_done: threading.Event = field(default_factory=threading.Event)


class Interceptor:
    """Passes bytes on, TLS and all, until told otherwise.

    Args:
        port: of the server, on this machine.
    """

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._action: _Action | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def run_after(self, after_bytes: int, act: Callable[[], None]) -> threading.Event:
        """Do something when a connection has sent so much to the server, once; set when it is done.

        What comes after that is held back until then.
        """
        self._action = _Action(after_bytes, act)
        return self._action.is_done

    def close(self) -> None:
        """End."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._server)
            except OSError:
                # As where nobody listens.
                client.close()
                continue
            threading.Thread(target=self._forward, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._forward, args=(server, client, False), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, is_sent: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(16_384):
                passed += len(data)
                if is_sent:
                    self._run_action(passed)
                sink.sendall(data)
        # One side is gone: the other learns of it.
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _run_action(self, passed: int) -> None:
        with self._lock:
            order = self._action
            if order is None or passed < order.after_bytes:
                return
            self._action = None
            order.act()
            order.is_done.set()
