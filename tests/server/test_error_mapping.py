"""From errors to statuses, through a real channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from gorggle.v1 import lip_reading_pb2, lip_reading_pb2_grpc, model_pb2
from gorggle_server import errors
from gorggle_server.grpc_server.interceptors.errors import STATUS_BY_ERROR, ErrorInterceptor, get_status_code


def iterate_errors(base: type[Exception] = errors.GorggleError) -> Iterator[type[Exception]]:
    for kind in base.__subclasses__():
        yield kind
        yield from iterate_errors(kind)


@pytest.mark.parametrize("kind", list(iterate_errors()))
def test_every_error_has_a_status(kind: type[Exception]) -> None:
    assert any(issubclass(kind, base) for base, _ in STATUS_BY_ERROR)


def test_a_row_does_not_hide_a_later_one() -> None:
    kinds = [kind for kind, _ in STATUS_BY_ERROR]
    for position, kind in enumerate(kinds):
        assert not any(issubclass(kind, earlier) for earlier in kinds[:position])


def test_unexpected_errors_are_internal() -> None:
    assert get_status_code(ZeroDivisionError()) is grpc.StatusCode.INTERNAL


class RaisingServicer(lip_reading_pb2_grpc.LipReadingServicer):
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def GetModel(self, request, context):
        raise self.error

    async def StreamingRecognize(self, request_iterator, context) -> AsyncIterator:
        yield lip_reading_pb2.StreamingRecognizeResponse()
        raise self.error


def call_failing_server(error: Exception, *, streaming: bool) -> aio.AioRpcError:
    async def scenario() -> aio.AioRpcError:
        server = aio.server(interceptors=[ErrorInterceptor()])
        lip_reading_pb2_grpc.add_LipReadingServicer_to_server(RaisingServicer(error), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = lip_reading_pb2_grpc.LipReadingStub(channel)

            async def call() -> None:
                if streaming:
                    async for _ in stub.StreamingRecognize(iter([])):
                        pass
                else:
                    await stub.GetModel(model_pb2.GetModelRequest())

            with pytest.raises(aio.AioRpcError) as caught:
                await call()
        await server.stop(0)
        return caught.value

    return asyncio.run(scenario())


@pytest.mark.parametrize("streaming", [False, True])
def test_callers_read_the_message_and_the_name_of_the_error(streaming: bool) -> None:
    error = call_failing_server(errors.NoFaceError("no face was found"), streaming=streaming)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "no face was found"
    assert dict(error.trailing_metadata())["gorggle-error"] == "NoFaceError"


@pytest.mark.parametrize("streaming", [False, True])
def test_the_cause_of_an_internal_error_stays_inside(
    streaming: bool, caplog: pytest.LogCaptureFixture
) -> None:
    error = call_failing_server(RuntimeError("the password is 1234"), streaming=streaming)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "1234" not in error.details()
    request_id = error.details().split()[-1]
    assert request_id in caplog.text
    assert "1234" in caplog.text


def test_an_overloaded_server_says_when_to_come_back() -> None:
    error = call_failing_server(
        errors.OverloadedError("all places are taken", retry_after_s=1.5), streaming=False
    )
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    retry = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 1500
