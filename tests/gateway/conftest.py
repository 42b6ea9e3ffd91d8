"""Fixtures and helpers: a gateway on a free port, and a WebSocket client."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gorggle_gateway import app as gateway
from gorggle_gateway.protocol import SUBPROTOCOL
from gorggle_gateway.settings import GatewaySettings
from tests.sdk.conftest import make_server  # noqa: F401 - a fixture
from tests.sdk.fake_service import FakeLipReading

# Long enough for heavily loaded machines.
TIMEOUT_S = 30.0


@pytest.fixture
def server(make_server: Any) -> tuple[FakeLipReading, int]:  # noqa: F811
    service, port = make_server()
    return service, port


@pytest.fixture
def service(server: tuple[FakeLipReading, int]) -> FakeLipReading:
    return server[0]


@pytest.fixture
def target(server: tuple[FakeLipReading, int]) -> str:
    return f"127.0.0.1:{server[1]}"


@dataclasses.dataclass
class Gateway:
    """A running gateway and an HTTP client."""

    url: str
    client: aiohttp.ClientSession
    app: web.Application

    @property
    def live_url(self) -> str:
        return f"{self.url}/v1/live"

    @contextlib.asynccontextmanager
    async def connect(self, headers: dict[str, str] | None = None) -> AsyncIterator[Connection]:
        async with self.client.ws_connect(
            self.live_url, protocols=[SUBPROTOCOL], headers=headers or {}, autoping=True
        ) as socket:
            yield Connection(socket)

    @contextlib.asynccontextmanager
    async def session(self, **start: Any) -> AsyncIterator[Connection]:
        """Connect and start a session."""
        async with self.connect() as connection:
            await connection.send_message({"type": "start", "media": "webm", **start})
            connection.ready = await connection.receive_until("ready")
            yield connection


@dataclasses.dataclass
class Connection:
    """The client side of a WebSocket."""

    socket: aiohttp.ClientWebSocketResponse
    ready: dict[str, Any] = dataclasses.field(default_factory=dict)
    received: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    sequence: int = 0
    close_code: int | None = None

    async def send_message(self, message: dict[str, Any]) -> None:
        await self.socket.send_json(message)

    async def send_media(self, media: bytes, sequence: int | None = None) -> None:
        self.sequence = self.sequence + 1 if sequence is None else sequence
        await self.socket.send_bytes(self.sequence.to_bytes(4, "big") + media)

    async def send_all(self, media: bytes, step: int = 8192) -> None:
        for at in range(0, len(media), step):
            await self.send_media(media[at : at + step])

    async def receive(self) -> dict[str, Any] | None:
        """Return the next message, or None if the connection is closed."""
        message = await asyncio.wait_for(self.socket.receive(), TIMEOUT_S)
        if message.type is not aiohttp.WSMsgType.TEXT:
            self.close_code = (
                message.data if message.type is aiohttp.WSMsgType.CLOSE else self.socket.close_code
            )
            return None
        self.received.append(json.loads(message.data))
        return self.received[-1]

    async def receive_until(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Receive messages up to one of this type with these field values, and return it."""
        while (message := await self.receive()) is not None:
            if message["type"] == kind and all(message.get(name) == value for name, value in fields.items()):
                return message
            assert message["type"] != "error", message
        raise AssertionError(f"the connection ended before {kind}: {self.received}")

    async def receive_all(self) -> list[dict[str, Any]]:
        """Receive until the connection is closed; return all messages received so far."""
        while await self.receive() is not None:
            pass
        return self.received

    def final_texts(self) -> list[str]:
        return [
            message["text"]
            for message in self.received
            if message["type"] == "segment" and message["is_final"]
        ]


@contextlib.asynccontextmanager
async def running_gateway(server: str, **settings: Any) -> AsyncIterator[Gateway]:
    app = gateway.create_app(GatewaySettings(listen="127.0.0.1:0", server=server, **settings))
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with aiohttp.ClientSession() as client:
            yield Gateway(f"http://127.0.0.1:{runner.addresses[0][1]}", client, app)
    finally:
        await runner.cleanup()


def run(test: Coroutine[Any, Any, None]) -> None:
    async def run_with_timeout() -> None:
        await asyncio.wait_for(test, 2 * TIMEOUT_S)

    asyncio.run(run_with_timeout())
