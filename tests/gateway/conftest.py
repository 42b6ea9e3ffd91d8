"""The real gateway on a free port, and a real WebSocket client of it."""

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

# Generous, for busy machines.
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
    """A running gateway."""

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
        """A connection with a started session."""
        async with self.connect() as connection:
            await connection.say({"type": "start", "media": "webm", **start})
            connection.ready = await connection.until("ready")
            yield connection


@dataclasses.dataclass
class Connection:
    """The client's end of a WebSocket."""

    socket: aiohttp.ClientWebSocketResponse
    ready: dict[str, Any] = dataclasses.field(default_factory=dict)
    heard: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    sequence: int = 0
    closed_with: int | None = None

    async def say(self, message: dict[str, Any]) -> None:
        await self.socket.send_json(message)

    async def send(self, media: bytes, sequence: int | None = None) -> None:
        self.sequence = self.sequence + 1 if sequence is None else sequence
        await self.socket.send_bytes(self.sequence.to_bytes(4, "big") + media)

    async def send_all(self, media: bytes, step: int = 8192) -> None:
        for at in range(0, len(media), step):
            await self.send(media[at : at + step])

    async def hear(self) -> dict[str, Any] | None:
        """Return the next message; None at the end."""
        message = await asyncio.wait_for(self.socket.receive(), TIMEOUT_S)
        if message.type is not aiohttp.WSMsgType.TEXT:
            self.closed_with = (
                message.data if message.type is aiohttp.WSMsgType.CLOSE else self.socket.close_code
            )
            return None
        self.heard.append(json.loads(message.data))
        return self.heard[-1]

    async def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Return the next message of a type with these values."""
        while (message := await self.hear()) is not None:
            if message["type"] == kind and all(message.get(name) == value for name, value in fields.items()):
                return message
            assert message["type"] != "error", message
        raise AssertionError(f"the connection ended before {kind}: {self.heard}")

    async def rest(self) -> list[dict[str, Any]]:
        """Return all remaining messages."""
        while await self.hear() is not None:
            pass
        return self.heard

    def texts(self) -> list[str]:
        return [
            message["text"] for message in self.heard if message["type"] == "segment" and message["is_final"]
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
    async def limited() -> None:
        await asyncio.wait_for(test, 2 * TIMEOUT_S)

    asyncio.run(limited())
