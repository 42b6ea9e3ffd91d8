"""All live sessions of a gateway: who may have one, and what happens to one whose client is gone."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections import Counter

from gorggle import AsyncClient
from gorggle_gateway.live_session import LiveSession, SessionError
from gorggle_gateway.protocol import Resume, Start
from gorggle_gateway.settings import Limits


class SessionRegistry:
    """The sessions that go on.

    Args:
        client: of the inference server.
        limits: how many there may be.
    """

    def __init__(self, client: AsyncClient, limits: Limits) -> None:
        self._client, self._limits = client, limits
        self._sessions: dict[str, LiveSession] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._expiry_timers: dict[str, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def create(self, start: Start, owner: str) -> LiveSession:
        """Make a session and begin to read.

        Raises:
            SessionError: there are too many.
        """
        if len(self._sessions) >= self._limits.connections:
            raise SessionError("overloaded", f"{len(self._sessions)} sessions go on already: try again later")
        if (
            Counter(session.owner for session in self._sessions.values())[owner]
            >= self._limits.connections_per_client
        ):
            raise SessionError(
                "overloaded",
                f"{self._limits.connections_per_client} sessions of yours go on already: end one of them",
            )
        session = LiveSession(start, owner, self._client, self._limits)
        self._sessions[session.name] = session
        self._tasks[session.name] = asyncio.create_task(session.run(), name=f"live session {session.name}")
        return session

    def resume(self, resume: Resume, owner: str) -> LiveSession:
        """The session that a client comes back to.

        Raises:
            SessionError: there is none, or it is somebody else's: both look the same.
        """
        session = self._sessions.get(resume.session)
        if session is None or session.owner != owner or not hmac.compare_digest(session.key, resume.key):
            raise SessionError("unknown_session", "there is no such session any more: start another")
        self._cancel_expiry(session)
        return session

    def detach(self, session: LiveSession) -> None:
        """The client is gone: it has a while to come back; without it, the session ends."""
        if session.name not in self._sessions:
            return
        self._cancel_expiry(session)
        loop = asyncio.get_running_loop()
        self._expiry_timers[session.name] = loop.call_later(self._limits.resume_s, self.remove, session)

    def remove(self, session: LiveSession) -> None:
        """Forget a session, and stop reading for it."""
        self._cancel_expiry(session)
        self._sessions.pop(session.name, None)
        task = self._tasks.pop(session.name, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """End all sessions."""
        tasks = list(self._tasks.values())
        for session in list(self._sessions.values()):
            self.remove(session)
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _cancel_expiry(self, session: LiveSession) -> None:
        timer = self._expiry_timers.pop(session.name, None)
        if timer is not None:
            timer.cancel()
