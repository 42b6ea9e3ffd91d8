"""``/v1/live``: one WebSocket connection of a client, which begins a session or comes back to one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from aiohttp import WSMsgType, web

from gorggle_gateway import protocol
from gorggle_gateway.live_session import LiveSession, SessionError
from gorggle_gateway.protocol import MediaChunk, MessageError, Ping, Resume, Start, Stop
from gorggle_gateway.session_registry import SessionRegistry
from gorggle_gateway.settings import Limits

_log = logging.getLogger(__name__)

# Something is said at least so often, so that a client can tell a quiet session from a dead connection.
HEARTBEAT_INTERVAL_S = 5.0
# A client that does not take what it is sent for so long is gone.
SEND_TIMEOUT_S = 20.0
CLOSE_TIMEOUT_S = 2.0
# Close codes of our own (4000 to 4999 are for applications).
DONE, GOING_AWAY, REFUSED, SUPERSEDED = 1000, 1001, 4400, 4409
# From a token to whose it is; None: nobody's.
Authenticate = Callable[[str, web.Request], str | None]


class _Connection:
    """One connection that serves a session: how it is told to end, and how it tells that it has."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket
        self.close_code = 0
        self.close_requested, self.released = asyncio.Event(), asyncio.Event()

    def request_close(self, close_code: int) -> None:
        self.close_code = close_code
        self.close_requested.set()


class LiveSocketHandler:
    """Answers ``/v1/live``.

    Args:
        sessions: where sessions are.
        limits: what a client may do.
        authenticate: finds out who calls.
        is_allowed_origin: whether pages of an origin may call.
    """

    def __init__(
        self,
        sessions: SessionRegistry,
        limits: Limits,
        authenticate: Authenticate,
        is_allowed_origin: Callable[[web.Request], bool],
    ) -> None:
        self._sessions, self._limits, self._authenticate, self._is_allowed_origin = (
            sessions,
            limits,
            authenticate,
            is_allowed_origin,
        )
        self._connections: dict[str, _Connection] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one connection from its first message to its end."""
        if not self._is_allowed_origin(request):
            raise web.HTTPForbidden(text="pages of this origin may not open live sessions here")
        socket = web.WebSocketResponse(
            protocols=(protocol.SUBPROTOCOL,),
            max_msg_size=self._limits.message_bytes + 64,
            heartbeat=20.0,
            # Media and words do not compress, and compression takes memory for each connection.
            compress=False,
        )
        await socket.prepare(request)
        try:
            session, last_event = await self._open_session(socket, request)
        except (MessageError, SessionError) as error:
            await self._reject(socket, error)
            return socket
        # The connection that a client lost may not know it yet.
        before = self._connections.get(session.name)
        connection = self._connections[session.name] = _Connection(socket)
        try:
            if before is not None:
                before.request_close(SUPERSEDED)
                await before.released.wait()
            if last_event is not None:
                session.events.rewind(last_event)
            await self._send(socket, self._build_ready_message(session))
            await self._serve(connection, session)
        except (ConnectionError, TimeoutError):
            pass  # this one is lost as well, and the client may come back once more
        finally:
            self._detach(connection, session)
        return socket

    async def close(self) -> None:
        """Close all connections: the gateway ends."""
        for connection in list(self._connections.values()):
            connection.request_close(GOING_AWAY)

    async def _open_session(
        self, socket: web.WebSocketResponse, request: web.Request
    ) -> tuple[LiveSession, int | None]:
        """The session that the first message begins, or resumes after an event."""
        try:
            async with asyncio.timeout(self._limits.start_s):
                first = await _receive(socket)
        except TimeoutError:
            raise MessageError(
                f"nothing came for {self._limits.start_s:g} s: expected start or resume"
            ) from None
        if not isinstance(first, Start | Resume):
            raise MessageError("the first message is not start or resume")
        owner = self._authenticate(first.token, request)
        if owner is None:
            raise SessionError("unauthorized", "the token is missing or not known here")
        if isinstance(first, Start):
            return self._sessions.create(first, owner), None
        return self._sessions.resume(first, owner), first.last_event

    def _detach(self, connection: _Connection, session: LiveSession) -> None:
        connection.released.set()
        if self._connections.get(session.name) is not connection:
            return
        del self._connections[session.name]
        if session.is_over and connection.socket.close_code == DONE:
            self._sessions.remove(session)
        else:
            self._sessions.detach(session)

    async def _serve(self, connection: _Connection, session: LiveSession) -> None:
        """Take and tell at once, until one of them is over, or somebody says so."""
        socket = connection.socket
        tasks = [
            asyncio.create_task(self._send_events(socket, session)),
            asyncio.create_task(self._receive_messages(socket, session)),
            asyncio.create_task(connection.close_requested.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                _log.error("session %s: a connection failed", session.name, exc_info=result)
        # Whoever comes next need not wait until the lost one says goodbye.
        connection.released.set()
        if connection.close_code:
            await _close_socket(socket, connection.close_code)

    async def _send_events(self, socket: web.WebSocketResponse, session: LiveSession) -> None:
        acknowledged = -1
        while (events := await session.events.next_batch(HEARTBEAT_INTERVAL_S)) is not None:
            try:
                if session.received != acknowledged:
                    acknowledged = session.received
                    await self._send(socket, {"type": "ack", "received": acknowledged})
                elif not events:
                    await self._send(socket, {"type": "pong"})
                for event in events:
                    await self._send(socket, event)
            except (ConnectionError, TimeoutError):
                return
        await _close_socket(socket, DONE)

    async def _receive_messages(self, socket: web.WebSocketResponse, session: LiveSession) -> None:
        unacknowledged = 0
        try:
            while (message := await _receive(socket)) is not None:
                match message:
                    case MediaChunk():
                        await session.add_media(message)
                        unacknowledged += len(message.media)
                        if unacknowledged >= self._limits.message_bytes:
                            unacknowledged = 0
                            await self._send(socket, {"type": "ack", "received": session.received})
                    case Ping():
                        session.events.acknowledge(message.last_event)
                        await self._send(socket, {"type": "ack", "received": session.received})
                        await self._send(socket, {"type": "pong"})
                    case Stop():
                        await session.finish_media()
                    case _:
                        raise MessageError("start and resume come once, and first")
        except (ConnectionError, TimeoutError):
            return
        except (MessageError, SessionError) as error:
            code = error.code if isinstance(error, SessionError) else "protocol"
            await session.fail(SessionError(code, str(error)))
            # What is still to be told, the error last, is told by the other task.
            await asyncio.sleep(SEND_TIMEOUT_S)

    def _build_ready_message(self, session: LiveSession) -> dict[str, Any]:
        return {
            "type": "ready",
            "version": protocol.VERSION,
            "session": session.name,
            "key": session.key,
            "received": session.received,
            "limits": {
                "message_bytes": self._limits.message_bytes,
                "unacknowledged_bytes": self._limits.unacknowledged_bytes,
                "duration_s": self._limits.session_s,
                "idle_s": self._limits.idle_s,
            },
        }

    async def _reject(self, socket: web.WebSocketResponse, error: Exception) -> None:
        code = error.code if isinstance(error, SessionError) else "protocol"
        with contextlib.suppress(ConnectionError, TimeoutError):
            await self._send(socket, protocol.build_error_message(code, str(error)))
        await _close_socket(socket, REFUSED)

    async def _send(self, socket: web.WebSocketResponse, message: dict[str, Any]) -> None:
        # Not wait_for, which in Python 3.11 forgets that it was cancelled where the message leaves at the same time.
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await socket.send_json(message)


async def _close_socket(socket: web.WebSocketResponse, code: int) -> None:
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await socket.close(code=code)


async def _receive(socket: web.WebSocketResponse) -> protocol.ClientMessage | None:
    """The next message; None at the end of the connection.

    Raises:
        MessageError: it is none of ours.
    """
    message = await socket.receive()
    match message.type:
        case WSMsgType.TEXT:
            return protocol.parse_text(message.data)
        case WSMsgType.BINARY:
            return protocol.parse_binary(message.data)
    return None
