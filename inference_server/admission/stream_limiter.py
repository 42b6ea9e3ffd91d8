"""Limit the number of concurrent recognition calls, in total and per caller."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator

from gorggle_server.admission.retry_delay import STREAM_SLOT_RETRY_DELAY_S
from gorggle_server.errors import NotReadyError, OverloadedError


class StreamLimiter:
    """Counts the calls being served. Belongs to the event loop.

    Args:
        max_streams: concurrent calls.
        max_streams_per_caller: concurrent calls of one caller; 0: no limit but ``max_streams``.
        on_idle: called when the last call has ended.

    Attributes:
        active_streams: number of calls being served.
    """

    def __init__(
        self, max_streams: int, max_streams_per_caller: int, on_idle: Callable[[], object] = lambda: None
    ) -> None:
        self._on_idle = on_idle
        self._max_streams, self._max_streams_per_caller = max_streams, max_streams_per_caller
        self.active_streams = 0
        self._active_by_caller: Counter[str] = Counter()
        self._closed = False

    def close(self) -> None:
        """Refuse every further call."""
        self._closed = True

    @contextlib.contextmanager
    def acquire(self, caller: str) -> Iterator[None]:
        """Hold a slot for one call.

        Raises:
            NotReadyError: the server is shutting down.
            OverloadedError: the limit in total, or that of this caller, is reached.
        """
        if self._closed:
            raise NotReadyError("the server is shutting down: send the request to another one")
        if self.active_streams >= self._max_streams:
            raise OverloadedError(
                f"all {self._max_streams} streams are in use: try again in {STREAM_SLOT_RETRY_DELAY_S:g} s",
                STREAM_SLOT_RETRY_DELAY_S,
            )
        limit = self._max_streams_per_caller
        if limit and self._active_by_caller[caller] >= limit:
            raise OverloadedError(
                f"{caller} has {limit} streams already, the limit of one client: try again in {STREAM_SLOT_RETRY_DELAY_S:g} s",
                STREAM_SLOT_RETRY_DELAY_S,
            )
        self.active_streams += 1
        self._active_by_caller[caller] += 1
        try:
            yield
        finally:
            self.active_streams -= 1
            self._active_by_caller[caller] -= 1
            if not self._active_by_caller[caller]:
                del self._active_by_caller[caller]
            if not self.active_streams:
                self._on_idle()
