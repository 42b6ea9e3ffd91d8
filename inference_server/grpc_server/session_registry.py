"""Registry of the active sessions: a call that resumes a session ends the session's previous call."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gorggle_server.errors import NotReadyError, SupersededError
from gorggle_server.events import Draining, Event
from gorggle_server.streaming.queues import EventQueue

_log = logging.getLogger(__name__)

# A superseded call gets this long to end by itself, and then again after it was cancelled.
SUPERSEDE_TIMEOUT_S, CANCEL_TIMEOUT_S = 1.0, 5.0
# Streams are ended this long before the shutdown deadline, so that their clients receive the reason.
DRAIN_NOTICE_S = 1.0


@dataclass(eq=False)
class ActiveCall:
    """The call of a session."""

    caller: str
    task: asyncio.Task[object] | None
    event_queue: EventQueue[Event] | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _error: Exception | None = None
    _first_media: asyncio.Future[Any] | None = None

    def end(self, error: Exception) -> None:
        """End the call with an error, whether or not its media has begun.

        The task is not cancelled: gRPC sends no status for a cancelled call, and its client would wait for one.
        """
        self._error = error
        if self.event_queue is not None:
            self.event_queue.close(error)
        elif self._first_media is not None:
            self._first_media.cancel()

    def watch_first_media(self, first_media: asyncio.Future[Any]) -> None:
        """Cancel this future if the call is ended before its media begins."""
        self._first_media = first_media
        if self._error is not None:
            first_media.cancel()

    def raise_if_ended(self) -> None:
        """Raise the error that ``end`` was called with."""
        if self._error is not None:
            raise self._error


class SessionRegistry:
    """Active calls by session id, at most one per session. For one event loop."""

    def __init__(self) -> None:
        self._calls: dict[str, ActiveCall] = {}

    async def supersede(self, session_id: str, caller: str) -> None:
        """End the active call of a session, if there is one and it belongs to the same caller."""
        call = self._calls.get(session_id)
        if call is None or call.caller != caller:
            return
        _log.info("session resumed by another call: ending the previous call")
        call.end(SupersededError("the session was resumed by another call"))
        for timeout_s in (SUPERSEDE_TIMEOUT_S, CANCEL_TIMEOUT_S):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await call.ended.wait()
                return
            if call.task is not None:
                call.task.cancel()

    @contextlib.contextmanager
    def attach(self, session_id: str, caller: str) -> Iterator[ActiveCall]:
        """Register the current call as the session's for the duration of the context."""
        call = self._calls[session_id] = ActiveCall(caller, asyncio.current_task())
        try:
            yield call
        finally:
            call.ended.set()
            if self._calls.get(session_id) is call:
                del self._calls[session_id]

    def drain(self, deadline_s: float) -> None:
        """Notify all streams of the shutdown, and end the remaining ones shortly before the deadline."""
        loop = asyncio.get_running_loop()
        notice_s = min(DRAIN_NOTICE_S, deadline_s / 2)
        for call in list(self._calls.values()):
            if call.event_queue is not None:
                call.event_queue.put(Draining(deadline_s))
        loop.call_later(deadline_s - notice_s, self._end_all)

    def _end_all(self) -> None:
        for call in list(self._calls.values()):
            call.end(NotReadyError("the server is shutting down: resume the stream on another server"))
