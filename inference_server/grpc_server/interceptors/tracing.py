"""OpenTelemetry traces: each call continues its caller's trace (W3C ``traceparent`` in the metadata).

Spans of a call: the call itself; the stages ``decode``, ``vision`` and ``vad``, each from its first to its last work, with its
busy seconds; and for every utterance ``queue_wait`` and ``inference``. Spans never contain words, file names or tokens.
Everything but the endpoint is set by the standard OTEL_… variables.
"""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

import grpc
from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gorggle_server import logging_setup
from gorggle_server.events import Hypothesis
from gorggle_server.grpc_server.interceptors.base import CallInterceptor, Context
from gorggle_server.grpc_server.interceptors.metrics import report_status
from gorggle_server.grpc_server.stream_observer import current_trace
from gorggle_server.inference.interface import DecodingOptions, InferenceInput
from gorggle_server.inference.scheduler import SubmitFunction
from gorggle_server.input_format import FRAME_RATE_HZ
from gorggle_server.observability.stage_timer import PipelineStage, StageTimer

# Load balancers call these every few seconds.
_UNTRACED_SERVICES = ("/grpc.health.", "/grpc.reflection.", "/grpc.channelz.")
# A stream of hours has thousands of utterances: later ones are not traced individually.
MAX_TRACED_UTTERANCES = 500


class Tracing:
    """Creates spans and exports them in batches on a background thread.

    Args:
        version: of the server.
        exporter: receives the spans.
    """

    def __init__(self, version: str, exporter: SpanExporter) -> None:
        resource = Resource.create({SERVICE_VERSION: version})
        if str(resource.attributes[SERVICE_NAME]).startswith(
            "unknown_service"
        ):  # OTEL_SERVICE_NAME names it otherwise
            resource = resource.merge(Resource({SERVICE_NAME: "gorggle"}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer = self._provider.get_tracer("gorggle", version)

    def create_interceptor(self) -> TracingInterceptor:
        """Return the interceptor that traces calls."""
        return TracingInterceptor(self)

    def close(self) -> None:
        """Export the remaining spans; waits for the collector for a few seconds."""
        self._provider.shutdown()


class CallTrace:
    """The span of one call, and its child spans."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer, self._span = tracer, span
        self._context = trace.set_span_in_context(span)
        self._utterance_count = 0

    def record_stages(self, timer: StageTimer) -> None:
        """Add the stages of the call's stream, after it has ended."""
        for stage, activity in timer.spans.items():
            span = self._tracer.start_span(stage.value, self._context, start_time=activity.first_ns)
            span.set_attribute("gorggle.busy_s", round(activity.busy_s, 6))
            if stage is PipelineStage.VISION:
                span.set_attribute("gorggle.frames", timer.frames)
                span.set_attribute("gorggle.frames_with_faces", timer.frames_with_faces)
            span.end(activity.last_ns)

    def wrap_submit(self, submit: SubmitFunction) -> SubmitFunction:
        """Return a function that traces the requests of this call."""

        def traced(
            window: InferenceInput, options: DecodingOptions, *, interim: bool = False
        ) -> Future[list[Hypothesis]]:
            submitted_ns = time.time_ns()
            result = submit(window, options, interim=interim)
            result.add_done_callback(lambda done: self.record_utterance(window, interim, submitted_ns, done))
            return result

        return traced

    def set_attributes(self, **attributes: float | str) -> None:
        """Add attributes to the call's span."""
        self._span.set_attributes({f"gorggle.{name}": value for name, value in attributes.items()})

    def record_utterance(
        self, window: InferenceInput, interim: bool, submitted_ns: int, done: Future[list[Hypothesis]]
    ) -> None:
        """Add the spans of a finished or cancelled request."""
        self._utterance_count += 1
        if self._utterance_count > MAX_TRACED_UTTERANCES:
            return
        now_ns = time.time_ns()
        started_at: float | None = getattr(done, "started_at", None)
        started_ns = now_ns if started_at is None else now_ns - int((time.monotonic() - started_at) * 1e9)
        attributes = {
            "gorggle.modality": window.modality.value,
            "gorggle.media_s": window.frames / FRAME_RATE_HZ,
            "gorggle.interim": interim,
        }
        waiting = self._tracer.start_span(
            "queue_wait", self._context, attributes=attributes, start_time=submitted_ns
        )
        waiting.end(max(submitted_ns, started_ns))
        if started_at is None:
            return
        inference = self._tracer.start_span(
            "inference", self._context, attributes=attributes, start_time=started_ns
        )
        if done.cancelled():
            inference.set_attribute("gorggle.cancelled", True)
        elif (error := done.exception()) is not None:
            inference.set_status(Status(StatusCode.ERROR, type(error).__name__))
        inference.end(now_ns)


class TracingInterceptor(CallInterceptor):
    """Opens a span around each call, as part of the caller's trace if there is one."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracer = tracing.tracer
        self._propagator = TraceContextTextMapPropagator()

    @asynccontextmanager
    async def wrap_call(self, details: grpc.HandlerCallDetails, context: Context) -> AsyncIterator[None]:
        """Trace the call."""
        if details.method.startswith(_UNTRACED_SERVICES):
            yield
            return
        carrier = {key: value for key, value in details.invocation_metadata if isinstance(value, str)}
        service, _, method = details.method.strip("/").partition("/")
        span = self._tracer.start_span(
            f"{service}/{method}",
            self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
        )
        current_trace.set(CallTrace(self._tracer, span))
        logging_setup.trace_id.set(trace.format_trace_id(span.get_span_context().trace_id))
        with report_status(context, functools.partial(_end_span, span)):
            yield


def _end_span(span: Span, code: grpc.StatusCode) -> None:
    number: Any = code.value[0]
    span.set_attribute("rpc.grpc.status_code", number)
    span.set_attribute("gorggle.request_id", logging_setup.request_id.get())
    # A caller's mistake only sets the code; server errors set the span's error status.
    if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE):
        span.set_status(Status(StatusCode.ERROR, code.name))
    span.end()
