"""Fixtures: an in-process server on a free port with the embedded model, and clients for it."""

from __future__ import annotations

import asyncio
import atexit
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
atexit.register(_folder.cleanup)
# The first sentences of the demo clip: decoding the whole clip in every test would take three times as long.
DEMO = cut_demo(Path(_folder.name), sentence_count=2)
# For tests that interrupt a stream between sentences.
LONG_DEMO = cut_demo(Path(_folder.name) / "long", sentence_count=3)


@dataclass
class RunningServer:
    """A server and the event loop of its thread."""

    server: Server
    loop: asyncio.AbstractEventLoop

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)


@contextlib.contextmanager
def running_server(*, load: bool = True, **settings: Any) -> Iterator[RunningServer]:
    """Start a server on a background thread, yield it, and stop it; without a second model, unless ``settings`` names one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def create() -> Server:
        defaults = {"listen": "127.0.0.1:0", "shutdown_grace_period_s": 1, "audio_model": "none"}
        return Server(ServerSettings(**{**defaults, **settings}))

    running = RunningServer(asyncio.run_coroutine_threadsafe(create(), loop).result(10), loop)
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
def reference_sentences(truth: dict[str, Any]) -> list[str]:
    """Return the reference text of each sentence of the demo clip."""
    return [sentence["text"] for sentence in truth["sentences"]]


Messages = Callable[..., Iterator[lip_reading_pb2.StreamingRecognizeRequest]]


@pytest.fixture(scope="session")
def messages() -> Messages:
    """Return a function that yields the requests of a stream: a configuration, then media chunks."""

    def build(
        *chunks: bytes, config: config_pb2.StreamingConfig | None = None
    ) -> Iterator[lip_reading_pb2.StreamingRecognizeRequest]:
        yield lip_reading_pb2.StreamingRecognizeRequest(config=config or config_pb2.StreamingConfig())
        for chunk in chunks:
            yield lip_reading_pb2.StreamingRecognizeRequest(media=chunk)

    return build
