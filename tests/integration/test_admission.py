"""Admission control: live streams above the measured device capacity are refused."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from gorggle.v1 import config_pb2, lip_reading_pb2, lip_reading_pb2_grpc
from tests.integration.conftest import RunningServer, running_server

Requests = queue.SimpleQueue[lip_reading_pb2.StreamingRecognizeRequest | None]


@pytest.fixture(scope="module")
def single_stream_server() -> Iterator[RunningServer]:
    """Run a server that admits one live stream, regardless of the machine's speed."""
    with running_server(max_live_device_utilization=1e-6, sandbox_decoding=False) as running:
        yield running


def open_stream(
    stub: lip_reading_pb2_grpc.LipReadingStub, *, live: bool
) -> tuple[Requests, Iterator[lip_reading_pb2.StreamingRecognizeResponse]]:
    requests: Requests = queue.SimpleQueue()
    config = config_pb2.StreamingConfig(live=live)
    requests.put(lip_reading_pb2.StreamingRecognizeRequest(config=config))
    return requests, stub.StreamingRecognize(iter(requests.get, None), timeout=30)


def test_live_streams_above_capacity_are_refused_at_once_and_files_are_not(
    single_stream_server: RunningServer,
) -> None:
    with grpc.insecure_channel(single_stream_server.address) as channel:
        stub = lip_reading_pb2_grpc.LipReadingStub(channel)
        first_requests, first = open_stream(stub, live=True)
        assert next(first).WhichOneof("event") == "started"

        start_s = time.monotonic()
        _, second = open_stream(stub, live=True)
        with pytest.raises(grpc.RpcError) as refused:
            next(second)
        duration_s = time.monotonic() - start_s
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "1 live streams are served" in refused.value.details()
        retry = error_details_pb2.RetryInfo()
        status = rpc_status.from_call(refused.value)
        assert status is not None
        assert any(detail.Unpack(retry) for detail in status.details)
        assert retry.retry_delay.ToSeconds() >= 1
        assert duration_s < 2  # milliseconds on an idle machine

        file_requests, file = open_stream(stub, live=False)
        assert next(file).WhichOneof("event") == "started"
        file_requests.put(None)
        file.cancel()
        first_requests.put(None)
        first.cancel()

        deadline = time.monotonic() + 10
        while True:  # the slot is released when the first stream's thread ends
            third_requests, third = open_stream(stub, live=True)
            try:
                assert next(third).WhichOneof("event") == "started"
                break
            except grpc.RpcError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        third_requests.put(None)
        third.cancel()
    demand = single_stream_server.server.metrics.registry.get_sample_value("gorggle_live_device_load")
    assert demand is not None
