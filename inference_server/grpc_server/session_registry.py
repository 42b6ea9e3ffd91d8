"""The sessions that calls are carrying on at this moment: superseded by the next call, and told when the server goes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from gorggle_server.errors import NotReadyError, SupersededError
from gorggle_server.streaming.queues import EventQueue
from gorggle_server.types import Draining, Event

_log = logging.getLogger(__name__)

# A call whose client is gone cannot be told: after so long it is cancelled, and its place waited for once more.
SUPERSEDE_TIMEOUT_S, CANCEL_TIMEOUT_S = 1.0, 5.0
# Of the time that is left, streams are ended a little before the server goes, so that they hear why.
DRAIN_NOTICE_S = 1.0


@dataclass(eq=False)
class _Call:
    """A call that carries a session on."""

    caller: str
    task: asyncio.Task[object] | None
    event_queue: EventQueue[Event] | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, error: Exception) -> None:
        """End the call with an error, or, where it has no session yet, without."""
        if self.event_queue is not None:
            self.event_queue.close(error)
        elif self.task is not None:
            self.task.cancel()


class SessionRegistry:
    """Calls by the session that they carry on: at most one each. For one event loop."""

    def __init__(self) -> None:
        self._calls: dict[str, _Call] = {}

    @staticmethod
    def create_id() -> str:
        """A name that nobody can guess."""
        return uuid.uuid4().hex

    async def supersede(self, session_id: str, caller: str) -> None:
        """End the call that carries a session on, if there is one and it is the same caller's."""
        call = self._calls.get(session_id)
        if call is None or call.caller != caller:
            return
        _log.info("another call carries a session on: ending the one before")
        call.end(SupersededError("another call carries this session on"))
        for patience_s in (SUPERSEDE_TIMEOUT_S, CANCEL_TIMEOUT_S):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await call.ended.wait()
                return
            if call.task is not None:
                call.task.cancel()

    @contextlib.contextmanager
    def attach(self, session_id: str, caller: str) -> Iterator[_Call]:
        """While a call carries a session on."""
        call = self._calls[session_id] = _Call(caller, asyncio.current_task())
        try:
            yield call
        finally:
            call.ended.set()
            if self._calls.get(session_id) is call:
                del self._calls[session_id]

    def drain(self, deadline_s: float) -> None:
        """Tell every stream that the server goes after so many seconds, and end those that are left shortly before."""
        loop = asyncio.get_running_loop()
        last_words_s = min(DRAIN_NOTICE_S, deadline_s / 2)
        for call in list(self._calls.values()):
            if call.event_queue is not None:
                call.event_queue.put(Draining(deadline_s))
        loop.call_later(deadline_s - last_words_s, self._end_all)

    def _end_all(self) -> None:
        for call in list(self._calls.values()):
            call.end(NotReadyError("the server is shutting down: send the rest to another one"))
