"""The live sessions of a gateway: limits, resuming, and expiry of sessions without a client."""

from __future__ import annotations

import asyncio
import contextlib
import hmac

from gorggle import AsyncClient
from gorggle_gateway.live_session import LiveSession
from gorggle_gateway.protocol import Resume, SessionError, Start
from gorggle_gateway.settings import GatewaySettings


class SessionRegistry:
    """The sessions in progress.

    Args:
        client: client of the inference server.
        settings: limits on the number of sessions.
    """

    def __init__(self, client: AsyncClient, settings: GatewaySettings) -> None:
        self._client, self._settings = client, settings
        self._sessions: dict[str, LiveSession] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._expiry_timers: dict[str, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def create(self, start: Start, owner: str) -> LiveSession:
        """Create a session and start transcription.

        Raises:
            SessionError: too many sessions.
        """
        if len(self._sessions) >= self._settings.max_connections:
            raise SessionError(
                "overloaded", f"{len(self._sessions)} sessions are in progress: try again later"
            )
        limit = self._settings.max_connections_per_client
        if sum(session.owner == owner for session in self._sessions.values()) >= limit:
            raise SessionError(
                "overloaded", f"{limit} sessions of this client are in progress: end one of them"
            )
        session = LiveSession(start, owner, self._client, self._settings)
        self._sessions[session.name] = session
        self._tasks[session.name] = asyncio.create_task(session.run(), name=f"live session {session.name}")
        return session

    def resume(self, resume: Resume, owner: str) -> LiveSession:
        """Return the session that a client resumes.

        Raises:
            SessionError: it does not exist, or has another owner or key; the message is the same.
        """
        session = self._sessions.get(resume.session)
        if session is None or session.owner != owner or not hmac.compare_digest(session.key, resume.key):
            raise SessionError("unknown_session", "no such session: start another")
        self._cancel_expiry(session)
        return session

    def detach(self, session: LiveSession) -> None:
        """End the session after ``max_resume_s`` unless its client reconnects."""
        if session.name not in self._sessions:
            return
        self._cancel_expiry(session)
        loop = asyncio.get_running_loop()
        self._expiry_timers[session.name] = loop.call_later(self._settings.max_resume_s, self.remove, session)

    def remove(self, session: LiveSession) -> None:
        """Remove a session and stop its transcription."""
        self._cancel_expiry(session)
        self._sessions.pop(session.name, None)
        if task := self._tasks.pop(session.name, None):
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
        if timer := self._expiry_timers.pop(session.name, None):
            timer.cancel()
