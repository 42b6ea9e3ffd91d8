"""What a session tells its client: numbered, kept until the client has it, and never more than it needs."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

# Sent events that are kept for a client that connects again, and unsent ones that wait for a slow one.
MAX_RETAINED, MAX_UNSENT = 2_000, 4_000


class SlowConsumerError(Exception):
    """The client takes its events so slowly that no more are kept for it."""


class EventLog:
    """The events of one session.

    What a later event makes worthless goes when it was not sent yet: an interim result when the next one comes,
    progress when further progress does. So a slow client gets less, and never falls far behind.
    """

    def __init__(self) -> None:
        self._sent: deque[tuple[int, dict[str, Any]]] = deque(maxlen=MAX_RETAINED)
        # By topic; what has none goes under its number.
        self._unsent: dict[object, tuple[int, dict[str, Any]]] = {}
        self._last_number = 0
        self._changed = asyncio.Event()
        self._is_closed = False

    def add(self, message: dict[str, Any]) -> None:
        """Tell something; after the end, nothing.

        Raises:
            SlowConsumerError: see there.
        """
        if self._is_closed:
            return
        self._last_number += 1
        topic = _coalescing_key(message) or self._last_number
        self._unsent.pop(topic, None)
        if len(self._unsent) >= MAX_UNSENT:
            raise SlowConsumerError(f"{MAX_UNSENT} results wait to be taken")
        self._unsent[topic] = self._last_number, {**message, "event": self._last_number}
        self._changed.set()

    def close(self) -> None:
        """No more events come."""
        self._is_closed = True
        self._changed.set()

    def acknowledge(self, last: int) -> None:
        """The client has everything up to this event."""
        while self._sent and self._sent[0][0] <= last:
            self._sent.popleft()

    def rewind(self, last: int) -> None:
        """A client connects again that has everything up to this event: the rest is sent once more."""
        self.acknowledge(last)
        again: dict[object, tuple[int, dict[str, Any]]] = {
            number: (number, message) for number, message in self._sent
        }
        self._sent.clear()
        self._unsent = {**again, **self._unsent}
        self._changed.set()

    async def next_batch(self, timeout_s: float) -> list[dict[str, Any]] | None:
        """The events that are to be sent next; empty where none came in time, None at the end."""
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
    """What an event is about, where a later one about the same replaces it."""
    match message["type"]:
        case "segment":
            return "segment", message["segment_id"]
        case "progress":
            return "progress", ""
    return None
