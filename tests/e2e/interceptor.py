"""A TCP proxy between the functions and their server that runs an action in the middle of a stream."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

# Larger than HTTP/2 control frames and headers: such a chunk contains media, so a stream is active.
MIN_MEDIA_CHUNK_BYTES = 2_048


@dataclass
class _Action:
    """What to run once a connection has sent a number of bytes."""

    after_bytes: int
    act: Callable[[], None]
    is_done: threading.Event = field(default_factory=threading.Event)


class Interceptor:
    """Forwards bytes, including TLS, to a port of this machine."""

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.connection_count = 0  # connections that reached the server
        self._action: _Action | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def run_after(self, after_bytes: int, act: Callable[[], None]) -> threading.Event:
        """Run an action once while a stream sends media; the event is set when it is done.

        Connections may be reused by several streams. The media chunk that triggers the action is held back until it is
        done, so the stream cannot have ended before.
        """
        self._action = _Action(after_bytes, act)
        return self._action.is_done

    def close(self) -> None:
        """Stop listening."""
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
                # Behave like a port without a listener.
                client.close()
                continue
            self.connection_count += 1
            threading.Thread(target=self._forward, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._forward, args=(server, client, False), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, to_server: bool) -> None:
        forwarded = 0
        with contextlib.suppress(OSError):
            while data := source.recv(16_384):
                forwarded += len(data)
                if to_server and len(data) >= MIN_MEDIA_CHUNK_BYTES:
                    self._run_action(forwarded)
                sink.sendall(data)
        # One side has closed: close the other.
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _run_action(self, forwarded: int) -> None:
        with self._lock:
            action = self._action
            if action is None or forwarded < action.after_bytes:
                return
            self._action = None
            action.act()
            action.is_done.set()
