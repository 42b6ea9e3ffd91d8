"""Decoder processes: a fresh one for every stream, and one that waits ready, so that no stream waits for Python."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING

from inference_server.errors import NotReadyError
from inference_server.media.process import COMMAND, DecoderProcess, StalledError
from inference_server.media.wire import DecoderError, Order

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEFAULT_MEMORY_BYTES = 2 * 2**30
DEFAULT_STALL_S = 20.0
# A process that was killed while it waited is no reason to fail the stream that gets it.
MAX_ATTEMPTS = 3


class DecoderPool:
    """Starts decoder processes and ends them all.

    Attributes:
        memory_bytes: address space of one process.
        stall_s: how long one may give no sign of life while it has something to work on.
    """

    def __init__(
        self,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        stall_s: float = DEFAULT_STALL_S,
        spares: int = 1,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """Start nothing yet.

        Args:
            memory_bytes: address space of one process.
            stall_s: how long one may give no sign of life.
            spares: how many wait ready.
            command: what is run, followed by the number of a file descriptor.
        """
        self.memory_bytes, self.stall_s = memory_bytes, stall_s
        self._spares, self._command = spares, tuple(command)
        self._waiting: deque[DecoderProcess | OSError] = deque()
        self._running: set[DecoderProcess] = set()
        self._takers = 0
        self._changed = threading.Condition()
        self._starter: threading.Thread | None = None
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """Whether the processes were ended because the server ends."""
        return self._closed

    @contextlib.contextmanager
    def process(self, order: Order) -> Iterator[DecoderProcess]:
        """A process that has taken its one order and opens the media next; it is killed afterwards.

        Raises:
            DecoderError: none can be started.
            NotReadyError: the pool was closed.
        """
        process = self._begun_process(order)
        try:
            yield process
        finally:
            process.close()
            with self._changed:
                self._running.discard(process)

    def close(self) -> None:
        """End all processes, those at work too."""
        with self._changed:
            self._closed = True
            for process in self._running:
                process.kill()
            spares, self._waiting = list(self._waiting), deque()
            self._changed.notify_all()
            starter = self._starter
        for spare in spares:
            if isinstance(spare, DecoderProcess):
                spare.close()
        if starter is not None:
            starter.join()

    def _begun_process(self, order: Order) -> DecoderProcess:
        failures = []
        for _ in range(MAX_ATTEMPTS):
            process = self._taken()
            try:
                process.begin(order)
            except (EOFError, StalledError, DecoderError) as failure:
                process.kill()
                failures.append(f"{type(failure).__name__}, exit code {process.exit_code()}")
                self._discard(process)
            except BaseException:
                self._discard(process)
                raise
            else:
                return process
        if self._closed:
            raise NotReadyError("the server is shutting down: send the request to another one")
        raise DecoderError(f"decoder processes end before they begin ({'; '.join(failures)})")

    def _taken(self) -> DecoderProcess:
        with self._changed:
            if self._starter is None:
                self._starter = threading.Thread(target=self._start_processes, name="decoders", daemon=True)
                self._starter.start()
            self._takers += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._takers -= 1
            if self._closed:
                raise NotReadyError("the server is shutting down: send the request to another one")
            process = self._waiting.popleft()
            self._changed.notify_all()
            if isinstance(process, OSError):
                raise DecoderError(f"no decoder process can be started: {process}") from process
            self._running.add(process)
            return process

    def _discard(self, process: DecoderProcess) -> None:
        process.close()
        with self._changed:
            self._running.discard(process)

    def _start_processes(self) -> None:
        """Keep as many waiting as are wanted.

        On one thread that lives as long as the pool: Linux ends the children with the thread that started them.
        """
        with self._changed:
            while not self._closed:
                self._waiting.append(self._started())
                self._changed.notify_all()
                self._changed.wait_for(
                    lambda: self._closed or len(self._waiting) < self._spares + self._takers
                )

    def _started(self) -> DecoderProcess | OSError:
        try:
            return DecoderProcess(self._command, self.stall_s)
        except OSError as error:
            return error
