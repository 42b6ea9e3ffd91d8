"""Events of a session for its client: numbered, retained until acknowledged, coalesced for slow clients."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from gorggle_gateway.protocol import SessionError

# Sent events retained for a reconnecting client, and unsent events queued for a slow one.
MAX_RETAINED, MAX_UNSENT = 2_000, 4_000


class EventLog:
    """The events of one session.

    An unsent event is replaced by a later one of the same kind: an interim result by the segment's next result, progress
    by later progress. A slow client gets fewer events instead of falling behind.
    """

    def __init__(self) -> None:
        self._sent: deque[tuple[int, dict[str, Any]]] = deque(maxlen=MAX_RETAINED)
        # By coalescing key, else by number.
        self._unsent: dict[object, tuple[int, dict[str, Any]]] = {}
        self._last_number = 0
        self._changed = asyncio.Event()
        self._is_closed = False

    def add(self, message: dict[str, Any]) -> None:
        """Add an event; ignored after ``close``.

        Raises:
            SessionError: too many unsent events: the client reads too slowly.
        """
        if self._is_closed:
            return
        self._last_number += 1
        key = _coalescing_key(message) or self._last_number
        self._unsent.pop(key, None)
        if len(self._unsent) >= MAX_UNSENT:
            raise SessionError("slow_client", f"{MAX_UNSENT} events are unread")
        self._unsent[key] = self._last_number, {**message, "event": self._last_number}
        self._changed.set()

    def close(self) -> None:
        """End the events."""
        self._is_closed = True
        self._changed.set()

    def acknowledge(self, last: int) -> None:
        """Drop sent events up to this number."""
        while self._sent and self._sent[0][0] <= last:
            self._sent.popleft()

    def rewind(self, last: int) -> None:
        """Send the events after this number again, to a reconnected client."""
        self.acknowledge(last)
        self._unsent = {**{event[0]: event for event in self._sent}, **self._unsent}
        self._sent.clear()
        self._changed.set()

    async def next_batch(self, timeout_s: float) -> list[dict[str, Any]] | None:
        """Return the next events to send; empty after the timeout, None at the end."""
        if not self._unsent and not self._is_closed:
            self._changed.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait()
            except TimeoutError:
                return []
        if self._unsent:
            unsent = list(self._unsent.values())
            self._unsent = {}
            self._sent.extend(unsent)
            return [message for _, message in unsent]
        return None if self._is_closed else []


def _coalescing_key(message: dict[str, Any]) -> tuple[str, str] | None:
    """Return the key of events that replace each other; None for other events."""
    match message["type"]:
        case "segment":
            return "segment", message["segment_id"]
        case "progress":
            return "progress", ""
    return None
