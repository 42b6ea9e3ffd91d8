"""Traces of a real server as received by an OTLP/HTTP collector."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gorggle.v1 import config_pb2, lip_reading_pb2, lip_reading_pb2_grpc, model_pb2
from gorggle_server.grpc_server.interceptors.tracing import MAX_TRACED_UTTERANCES, CallTrace, Tracing
from gorggle_server.settings import ServerSettings
from tests.integration.conftest import DEMO, RunningServer, running_server

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"
Stub = lip_reading_pb2_grpc.LipReadingStub


class Collector:
    """OTLP/HTTP collector that stores all spans and resources."""

    def __init__(self) -> None:
        spans: list[Span] = []
        self.spans, self.resources = spans, (resources := [])

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                data = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    import gzip

                    data = gzip.decompress(data)
                for resource_spans in ExportTraceServiceRequest.FromString(data).resource_spans:
                    resources.append(resource_spans.resource)
                    for scope in resource_spans.scope_spans:
                        spans.extend(scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.close()


@pytest.fixture(scope="module")
def traced_server(collector: Collector) -> Iterator[RunningServer]:
    patch = pytest.MonkeyPatch()
    patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    with running_server(otlp_endpoint=collector.endpoint) as running:
        yield running
    patch.undo()


@pytest.fixture
def channel(traced_server: RunningServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(traced_server.address) as channel:
        yield channel


def wait_for_spans(
    collector: Collector, trace_id: str, *, call_prefix: str = "gorggle.v1.LipReading/"
) -> list[Span]:
    """Wait for the span of the call, which ends last; return all spans of its trace."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = [span for span in collector.spans if span.trace_id.hex() == trace_id]
        if any(span.name.startswith(call_prefix) for span in found):
            return found
        time.sleep(0.05)
    raise AssertionError("no trace was received")


def attributes(span: Span) -> dict[str, object]:
    return {entry.key: getattr(entry.value, entry.value.WhichOneof("value")) for entry in span.attributes}


def transcribe_demo(channel: grpc.Channel, traceparent: str) -> str:
    """Stream the demo clip; return the request id."""
    requests = [
        lip_reading_pb2.StreamingRecognizeRequest(config=config_pb2.StreamingConfig()),
        lip_reading_pb2.StreamingRecognizeRequest(media=DEMO.read_bytes()),
    ]
    call = Stub(channel).StreamingRecognize(
        iter(requests), metadata=[("traceparent", traceparent)], timeout=60
    )
    first, *_ = list(call)
    return first.started.request_id


def test_a_call_continues_the_callers_trace_and_has_child_spans(
    channel: grpc.Channel, collector: Collector, truth: dict[str, Any]
) -> None:
    request_id = transcribe_demo(channel, TRACEPARENT)
    spans = wait_for_spans(collector, TRACE_ID)
    (call,) = [span for span in spans if span.name == "gorggle.v1.LipReading/StreamingRecognize"]
    assert call.parent_span_id.hex() == PARENT_ID
    assert call.kind == Span.SPAN_KIND_SERVER
    call_attributes = attributes(call)
    assert call_attributes["gorggle.request_id"] == request_id
    assert call_attributes["rpc.grpc.status_code"] == 0
    assert call_attributes["gorggle.media_s"] == pytest.approx(truth["duration_s"], abs=0.2)
    children = [span for span in spans if span is not call]
    assert {span.parent_span_id for span in children} == {call.span_id}
    assert {span.name for span in children} == {"decode", "vision", "vad", "queue_wait", "inference"}
    assert sum(span.name == "inference" for span in children) >= call_attributes["gorggle.segments"] >= 2
    for span in children:
        assert call.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= call.end_time_unix_nano
    (vision,) = [span for span in children if span.name == "vision"]
    vision_attributes = attributes(vision)
    assert (
        0
        < vision_attributes["gorggle.busy_s"]
        <= (vision.end_time_unix_nano - vision.start_time_unix_nano) / 1e9
    )
    assert vision_attributes["gorggle.frames"] >= vision_attributes["gorggle.frames_with_faces"] > 100


def test_inference_starts_when_the_queue_wait_ends(channel: grpc.Channel, collector: Collector) -> None:
    trace_id = "aaf92f3577b34da6a3ce929d0e0e4736"
    transcribe_demo(channel, f"00-{trace_id}-{PARENT_ID}-01")
    spans = wait_for_spans(collector, trace_id)
    wait_ends = sorted(span.end_time_unix_nano for span in spans if span.name == "queue_wait")
    inference_starts = sorted(span.start_time_unix_nano for span in spans if span.name == "inference")
    assert len(wait_ends) == len(inference_starts)
    for wait_end, start in zip(wait_ends, inference_starts, strict=True):
        assert abs(start - wait_end) < 1e6


def test_a_call_without_a_valid_trace_starts_one(channel: grpc.Channel, collector: Collector) -> None:
    for metadata in ([], [("traceparent", "nonsense")], [("traceparent", f"00-{'0' * 32}-{PARENT_ID}-01")]):
        before = len(collector.spans)
        Stub(channel).ListModels(model_pb2.ListModelsRequest(), metadata=metadata, timeout=10)
        deadline = time.monotonic() + 10
        while len(collector.spans) == before and time.monotonic() < deadline:
            time.sleep(0.05)
        (span,) = collector.spans[before:]
        assert span.parent_span_id == b""
        assert span.name == "gorggle.v1.LipReading/ListModels"


def test_a_refused_call_is_traced_but_not_as_an_error(channel: grpc.Channel, collector: Collector) -> None:
    trace_id = "bbf92f3577b34da6a3ce929d0e0e4736"
    with pytest.raises(grpc.RpcError):
        Stub(channel).GetModel(
            model_pb2.GetModelRequest(name="unknown"),
            metadata=[("traceparent", f"00-{trace_id}-{PARENT_ID}-01")],
            timeout=10,
        )
    (span,) = wait_for_spans(collector, trace_id)
    assert attributes(span)["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]
    assert span.status.code == 0


def test_spans_contain_no_words_and_health_checks_are_not_traced(
    channel: grpc.Channel, collector: Collector
) -> None:
    health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    trace_id = "ccf92f3577b34da6a3ce929d0e0e4736"
    transcribe_demo(channel, f"00-{trace_id}-{PARENT_ID}-01")
    wait_for_spans(collector, trace_id)
    text = " ".join(map(str, collector.spans))
    assert "inference" in text
    assert "place" not in text
    assert "ealth" not in text
    call_attributes = {entry.key: entry.value.string_value for entry in collector.resources[0].attributes}
    assert call_attributes["service.name"] == "gorggle"
    assert call_attributes["deployment.environment"] == "test"


def test_calls_succeed_with_an_unreachable_collector(channel: grpc.Channel) -> None:
    with running_server(otlp_endpoint="http://127.0.0.1:9/v1/traces") as running:
        with grpc.insecure_channel(running.address) as channel:
            assert transcribe_demo(channel, TRACEPARENT)
        start = time.monotonic()
    assert time.monotonic() - start < 30


def test_the_number_of_spans_of_a_stream_is_limited() -> None:
    exporter = InMemorySpanExporter()
    tracing = Tracing("0", exporter)
    from concurrent.futures import Future

    import numpy as np

    from gorggle_server.inference.interface import InferenceInput

    call = CallTrace(tracing.tracer, tracing.tracer.start_span("call"))
    for _ in range(MAX_TRACED_UTTERANCES + 50):
        result: Future = Future()
        result.set_result([])
        call.record_utterance(
            InferenceInput(None, np.zeros((5, 104), np.float32)), False, time.time_ns(), result
        )
    tracing.close()
    assert len(exporter.get_finished_spans()) == MAX_TRACED_UTTERANCES


@pytest.mark.parametrize(
    ("environment", "endpoint"),
    [
        ({}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}, "http://c:4318/v1/traces"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/x"},
            "http://t/x",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "GORGGLE_OTLP_ENDPOINT": "http://g/y"}, "http://g/y"),
    ],
)
def test_the_otlp_endpoint_is_read_from_the_standard_variables(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], endpoint: str
) -> None:
    for name in ("ENDPOINT", "TRACES_ENDPOINT"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ServerSettings().otlp_endpoint == endpoint
