"""A real server in this process, on a free port, with the embedded model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from gorggle import Client
from gorggle.v1 import config_pb2, lip_reading_pb2, lip_reading_pb2_grpc
from gorggle_server.grpc_server.server import Server
from gorggle_server.settings import ServerSettings
from tests.clips import cut_demo

ROOT = Path(__file__).resolve().parents[2]
_folder = tempfile.TemporaryDirectory(prefix="gorggle-tests-")
# Shorter than the demo clip, which every test would take twice as long to decode.
DEMO = cut_demo(Path(_folder.name), sentence_count=3)


@dataclass
class RunningServer:
    """A server on a thread of its own."""

    server: Server
    loop: asyncio.AbstractEventLoop

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)


@contextlib.contextmanager
def running_server(*, load: bool = True, **settings: Any) -> Iterator[RunningServer]:
    """Start a server, yield it, stop it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def make() -> Server:
        return Server(ServerSettings(**{"listen": "127.0.0.1:0", "shutdown_grace_period_s": 1, **settings}))

    running = RunningServer(asyncio.run_coroutine_threadsafe(make(), loop).result(10), loop)
    running.call(running.server.start())
    try:
        if load:
            running.call(running.server.load())
        yield running
    finally:
        running.call(running.server.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    with running_server(max_frame_pixels=1920 * 1080) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.address) as client:
        yield client


@pytest.fixture
def stub(server: RunningServer) -> Iterator[lip_reading_pb2_grpc.LipReadingStub]:
    with grpc.insecure_channel(server.address) as channel:
        yield lip_reading_pb2_grpc.LipReadingStub(channel)


@pytest.fixture(scope="session")
def truth() -> dict[str, Any]:
    return json.loads(DEMO.with_suffix(".json").read_text())


@pytest.fixture(scope="session")
def spoken(truth: dict[str, Any]) -> list[str]:
    """The demo clip's sentences."""
    return [sentence["text"] for sentence in truth["sentences"]]


Messages = Callable[..., Iterator[lip_reading_pb2.StreamingRecognizeRequest]]


@pytest.fixture(scope="session")
def messages() -> Messages:
    """Builds the requests of a stream: a configuration, then chunks of bytes."""

    def build(
        *chunks: bytes, config: config_pb2.StreamingConfig | None = None
    ) -> Iterator[lip_reading_pb2.StreamingRecognizeRequest]:
        yield lip_reading_pb2.StreamingRecognizeRequest(config=config or config_pb2.StreamingConfig())
        for chunk in chunks:
            yield lip_reading_pb2.StreamingRecognizeRequest(media=chunk)

    return build
