"""``/v1/live``: a client's WebSocket connection, which starts or resumes a session."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from aiohttp import WSMsgType, web

from gorggle_gateway import protocol
from gorggle_gateway.live_session import LiveSession
from gorggle_gateway.protocol import MediaChunk, Ping, Resume, SessionError, Start, Stop
from gorggle_gateway.session_registry import SessionRegistry
from gorggle_gateway.settings import GatewaySettings

_log = logging.getLogger(__name__)

# Longest time between messages, so that clients can detect a dead connection.
HEARTBEAT_INTERVAL_S = 5.0
# A client that does not read for this time is considered lost.
SEND_TIMEOUT_S = 20.0
CLOSE_TIMEOUT_S = 2.0
# Close codes; 4000 to 4999 are for applications.
DONE, GOING_AWAY, REFUSED, SUPERSEDED = 1000, 1001, 4400, 4409
# Returns the owner of a token; None if it is invalid.
Authenticate = Callable[[str, web.Request], str | None]


class _Connection:
    """A connection of a session: ``close_requested`` asks it to end, ``released`` is set when it has."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket
        self.close_code = 0
        self.close_requested, self.released = asyncio.Event(), asyncio.Event()

    def request_close(self, close_code: int) -> None:
        self.close_code = close_code
        self.close_requested.set()


class LiveSocketHandler:
    """Handles ``/v1/live``.

    Args:
        sessions: the gateway's sessions.
        settings: limits on clients.
        authenticate: returns the owner of a token.
        is_allowed_origin: whether a request's origin may connect.
    """

    def __init__(
        self,
        sessions: SessionRegistry,
        settings: GatewaySettings,
        authenticate: Authenticate,
        is_allowed_origin: Callable[[web.Request], bool],
    ) -> None:
        self._sessions, self._settings = sessions, settings
        self._authenticate, self._is_allowed_origin = authenticate, is_allowed_origin
        self._connections: dict[str, _Connection] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one connection from its first message to its end."""
        if not self._is_allowed_origin(request):
            raise web.HTTPForbidden(text="this origin is not allowed to open live sessions")
        socket = web.WebSocketResponse(
            protocols=(protocol.SUBPROTOCOL,),
            max_msg_size=self._settings.max_message_bytes + 64,
            heartbeat=20.0,
            # Media does not compress, and compression needs memory per connection.
            compress=False,
        )
        await socket.prepare(request)
        try:
            session, last_event = await self._open_session(socket, request)
        except SessionError as error:
            await self._reject(socket, error)
            return socket
        # The lost connection may not have been detected yet.
        previous = self._connections.get(session.name)
        connection = self._connections[session.name] = _Connection(socket)
        try:
            if previous is not None:
                previous.request_close(SUPERSEDED)
                await previous.released.wait()
            if last_event is not None:
                session.events.rewind(last_event)
            await self._send(socket, self._build_ready_message(session))
            await self._serve(connection, session)
        except (ConnectionError, TimeoutError):
            pass  # this connection is lost too; the client may reconnect
        finally:
            self._detach(connection, session)
        return socket

    async def close(self) -> None:
        """Close all connections when the gateway stops."""
        for connection in list(self._connections.values()):
            connection.request_close(GOING_AWAY)

    async def _open_session(
        self, socket: web.WebSocketResponse, request: web.Request
    ) -> tuple[LiveSession, int | None]:
        """Return the session that the first message starts, or resumes after the returned event number."""
        try:
            async with asyncio.timeout(self._settings.max_start_s):
                first = await _receive(socket)
        except TimeoutError:
            raise SessionError(
                "protocol", f"no message for {self._settings.max_start_s:g} s: expected start or resume"
            ) from None
        if not isinstance(first, Start | Resume):
            raise SessionError("protocol", "the first message must be start or resume")
        owner = self._authenticate(first.token, request)
        if owner is None:
            raise SessionError("unauthorized", "the token is missing or unknown")
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
        """Send and receive concurrently until either ends or a close is requested."""
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
        # The next connection need not wait for this one's close handshake.
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
                        if unacknowledged >= self._settings.max_message_bytes:
                            unacknowledged = 0
                            await self._send(socket, {"type": "ack", "received": session.received})
                    case Ping():
                        session.events.acknowledge(message.last_event)
                        await self._send(socket, {"type": "ack", "received": session.received})
                        await self._send(socket, {"type": "pong"})
                    case Stop():
                        await session.finish_media()
                    case _:
                        raise SessionError("protocol", "start and resume are only valid as the first message")
        except (ConnectionError, TimeoutError):
            return
        except SessionError as error:
            await session.fail(error)
            # The other task sends the remaining events, the error last.
            await asyncio.sleep(SEND_TIMEOUT_S)

    def _build_ready_message(self, session: LiveSession) -> dict[str, Any]:
        return {
            "type": "ready",
            "version": protocol.VERSION,
            "session": session.name,
            "key": session.key,
            "received": session.received,
            "limits": {
                "message_bytes": self._settings.max_message_bytes,
                "unacknowledged_bytes": self._settings.max_unacknowledged_bytes,
                "duration_s": self._settings.max_session_s,
                "idle_s": self._settings.max_idle_s,
            },
        }

    async def _reject(self, socket: web.WebSocketResponse, error: SessionError) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            await self._send(socket, protocol.build_error_message(error.code, str(error)))
        await _close_socket(socket, REFUSED)

    async def _send(self, socket: web.WebSocketResponse, message: dict[str, Any]) -> None:
        # Not wait_for: in Python 3.11 it loses a cancellation that coincides with the end of the send.
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await socket.send_json(message)


async def _close_socket(socket: web.WebSocketResponse, code: int) -> None:
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await socket.close(code=code)


async def _receive(socket: web.WebSocketResponse) -> protocol.ClientMessage | None:
    """Return the next message; None at the end of the connection.

    Raises:
        SessionError: it is invalid.
    """
    message = await socket.receive()
    match message.type:
        case WSMsgType.TEXT:
            return protocol.parse_text(message.data)
        case WSMsgType.BINARY:
            return protocol.parse_binary(message.data)
    return None
