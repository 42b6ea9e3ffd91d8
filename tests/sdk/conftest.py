"""An in-process gRPC server with a scripted service, and a common interface to both clients."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from gorggle import AsyncClient, Client, Segment
from gorggle.v1 import lip_reading_pb2_grpc
from tests.sdk.fake_service import FakeLipReading

MakeServer = Callable[..., tuple[FakeLipReading, int]]


@pytest.fixture
def make_server() -> Iterator[MakeServer]:
    """Start servers, each with its own service; return the service and its port."""
    with contextlib.ExitStack() as stack:

        def make(
            credentials: grpc.ServerCredentials | None = None, port: int = 0
        ) -> tuple[FakeLipReading, int]:
            service = FakeLipReading()
            pool = stack.enter_context(futures.ThreadPoolExecutor(8))
            server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
            lip_reading_pb2_grpc.add_LipReadingServicer_to_server(service, server)
            if credentials is None:
                port = server.add_insecure_port(f"127.0.0.1:{port}")
            else:
                port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
            server.start()
            stack.callback(lambda: server.stop(None).wait())
            return service, port

        yield make


@pytest.fixture
def server(make_server: MakeServer) -> tuple[FakeLipReading, int]:
    return make_server()


@pytest.fixture
def service(server: tuple[FakeLipReading, int]) -> FakeLipReading:
    return server[0]


@pytest.fixture
def target(server: tuple[FakeLipReading, int]) -> str:
    return f"127.0.0.1:{server[1]}"


class SyncAdapter:
    """Runs calls with ``Client``, for tests of both clients."""

    client_class = Client

    def transcribe(
        self, target: str, source: Any, settings: dict[str, Any] | None = None, **options: Any
    ) -> list[Segment]:
        with Client(target, **(settings or {})) as client:
            return list(client.transcribe(source, **options))

    def call(
        self, target: str, method: str, *args: Any, settings: dict[str, Any] | None = None, **options: Any
    ) -> Any:
        with Client(target, **(settings or {})) as client:
            return getattr(client, method)(*args, **options)


class AsyncAdapter:
    """Runs calls with ``AsyncClient``, for tests of both clients."""

    client_class = AsyncClient

    def transcribe(
        self, target: str, source: Any, settings: dict[str, Any] | None = None, **options: Any
    ) -> list[Segment]:
        async def transcribe() -> list[Segment]:
            async with AsyncClient(target, **(settings or {})) as client:
                return [segment async for segment in client.transcribe(source, **options)]

        return asyncio.run(transcribe())

    def call(
        self, target: str, method: str, *args: Any, settings: dict[str, Any] | None = None, **options: Any
    ) -> Any:
        async def call() -> Any:
            async with AsyncClient(target, **(settings or {})) as client:
                return await getattr(client, method)(*args, **options)

        return asyncio.run(call())


ClientAdapter = SyncAdapter | AsyncAdapter


@pytest.fixture(params=[SyncAdapter, AsyncAdapter], ids=["Client", "AsyncClient"])
def adapter(request: pytest.FixtureRequest) -> ClientAdapter:
    adapter: ClientAdapter = request.param()
    return adapter
