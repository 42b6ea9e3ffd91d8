"""The places for recognition calls: how many there may be at once, in all and of one caller."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator

from gorggle_server.errors import NotReadyError, OverloadedError

RETRY_AFTER_S = 2.0


class StreamLimiter:
    """Counts the calls being served. Belongs to the event loop.

    Args:
        places: calls served at once.
        places_per_caller: of these, of one caller; 0: no limit but ``places``.
        on_rest: is called when the last call has ended.
    """

    def __init__(
        self, places: int, places_per_caller: int, on_rest: Callable[[], object] = lambda: None
    ) -> None:
        self._on_rest = on_rest
        self._places, self._places_per_caller = places, places_per_caller
        self._taken = 0
        self._taken_by: Counter[str] = Counter()
        self._closed = False

    @property
    def taken(self) -> int:
        """How many calls are being served."""
        return self._taken

    def close(self) -> None:
        """From now on refuse every call."""
        self._closed = True

    @contextlib.contextmanager
    def acquire(self, caller: str) -> Iterator[None]:
        """Hold a place.

        Raises:
            NotReadyError: the server is ending.
            OverloadedError: there is none, for anybody or for this caller.
        """
        if self._closed:
            raise NotReadyError("the server is shutting down: send the request to another one")
        if self._taken >= self._places:
            raise OverloadedError(
                f"all {self._places} places are taken: try again in {RETRY_AFTER_S:g} s", RETRY_AFTER_S
            )
        limit = self._places_per_caller
        if limit and self._taken_by[caller] >= limit:
            raise OverloadedError(
                f"{caller} has {limit} streams already, as many as one client may: try again in {RETRY_AFTER_S:g} s",
                RETRY_AFTER_S,
            )
        self._taken += 1
        self._taken_by[caller] += 1
        try:
            yield
        finally:
            self._taken -= 1
            self._taken_by[caller] -= 1
            if not self._taken_by[caller]:
                del self._taken_by[caller]
            if not self._taken:
                self._on_rest()
