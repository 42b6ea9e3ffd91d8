"""Mapping of errors to gRPC statuses, tested with a real server and channel."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from gorggle.v1 import lip_reading_pb2, lip_reading_pb2_grpc, model_pb2
from gorggle_server import errors
from gorggle_server.grpc_server.interceptors.errors import STATUS_BY_ERROR, ErrorInterceptor

T = TypeVar("T", bound=Message)


def iter_error_classes(base: type[Exception] = errors.GorggleError) -> Iterator[type[Exception]]:
    for kind in base.__subclasses__():
        yield kind
        yield from iter_error_classes(kind)


@pytest.mark.parametrize("kind", list(iter_error_classes()))
def test_every_error_has_a_status(kind: type[Exception]) -> None:
    assert any(issubclass(kind, base) for base, _, _ in STATUS_BY_ERROR)


def test_no_mapping_shadows_a_later_one() -> None:
    kinds = [kind for kind, _, _ in STATUS_BY_ERROR]
    for position, kind in enumerate(kinds):
        assert not any(issubclass(kind, earlier) for earlier in kinds[:position])


def test_the_proto_lists_every_reason_with_its_status() -> None:
    proto = (Path(__file__).parents[2] / "protos/gorggle/v1/lip_reading.proto").read_text()
    documented = proto.split("one of these reasons:")[1].split("RESOURCE_EXHAUSTED without")[0]
    for _, code, reason in STATUS_BY_ERROR:
        if reason != "FAILED_PRECONDITION":  # abstract base of other errors
            assert re.search(rf"// +{code.name} .*\b{reason}\b", documented), reason


class FailingServicer(lip_reading_pb2_grpc.LipReadingServicer):
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def GetModel(self, request, context):
        raise self.error

    async def StreamingRecognize(self, request_iterator, context) -> AsyncIterator:
        yield lip_reading_pb2.StreamingRecognizeResponse()
        raise self.error


def call_failing_server(error: Exception, *, streaming: bool) -> aio.AioRpcError:
    async def run_call() -> aio.AioRpcError:
        server = aio.server(interceptors=[ErrorInterceptor()])
        lip_reading_pb2_grpc.add_LipReadingServicer_to_server(FailingServicer(error), server)
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

    return asyncio.run(run_call())


def unpack_details(error: aio.AioRpcError, kind: type[T]) -> list[T]:
    """Return the details of one type in a failed call's google.rpc.Status."""
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    unpacked = []
    for detail in status.details:
        message = kind()
        if detail.Unpack(message):
            unpacked.append(message)
    return unpacked


@pytest.mark.parametrize("streaming", [False, True])
def test_a_mapped_error_is_sent_with_its_message_and_reason(streaming: bool) -> None:
    error = call_failing_server(errors.NoFaceError("no face was found"), streaming=streaming)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "no face was found"
    (info,) = unpack_details(error, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == ("NO_FACE", "gorggle")
    assert re.fullmatch("[0-9a-f]{32}", info.metadata["request_id"])


@pytest.mark.parametrize("streaming", [False, True])
def test_internal_errors_are_logged_but_not_sent_to_the_client(
    streaming: bool, caplog: pytest.LogCaptureFixture
) -> None:
    error = call_failing_server(RuntimeError("the password is 1234"), streaming=streaming)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "1234" not in error.details()
    request_id = error.details().split()[-1]
    assert request_id in caplog.text
    assert "1234" in caplog.text
    (info,) = unpack_details(error, error_details_pb2.ErrorInfo)
    assert (info.reason, info.metadata["request_id"]) == ("INTERNAL", request_id)
    assert b"the password" not in dict(error.trailing_metadata())["grpc-status-details-bin"]


def test_an_invalid_request_names_its_field() -> None:
    error = call_failing_server(
        errors.InvalidRequestError("beam_size is 99", field="beam_size"), streaming=False
    )
    (bad_request,) = unpack_details(error, error_details_pb2.BadRequest)
    assert [(v.field, v.description) for v in bad_request.field_violations] == [
        ("beam_size", "beam_size is 99")
    ]


def test_an_overloaded_server_sends_a_retry_delay() -> None:
    error = call_failing_server(
        errors.OverloadedError("all streams are in use", retry_after_s=1.5), streaming=False
    )
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    (retry,) = unpack_details(error, error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToMilliseconds() == 1500


def test_long_messages_fit_into_the_trailing_metadata() -> None:
    error = call_failing_server(errors.NotFoundError("€" * 100_000), streaming=False)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details().startswith("€€€")
