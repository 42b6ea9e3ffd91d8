"""The gRPC server: services, credentials, startup and shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING

from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gorggle.v1 import lip_reading_pb2, lip_reading_pb2_grpc
from gorggle_server.admission.controller import AdmissionController, ResourceLimit
from gorggle_server.errors import InvalidRequestError, NotReadyError
from gorggle_server.grpc_server.channelz import start_channelz
from gorggle_server.grpc_server.event_loop_watchdog import EventLoopWatchdog
from gorggle_server.grpc_server.http_endpoints import HttpServer
from gorggle_server.grpc_server.interceptors.auth import AuthenticationInterceptor
from gorggle_server.grpc_server.interceptors.errors import ErrorInterceptor
from gorggle_server.grpc_server.interceptors.metrics import CallMetricsInterceptor
from gorggle_server.grpc_server.interceptors.validation import RequestValidationInterceptor
from gorggle_server.grpc_server.interceptors.write_timeout import WriteTimeoutInterceptor
from gorggle_server.grpc_server.servicer import LipReadingServicer
from gorggle_server.grpc_server.tls import ReloadingTlsCredentials
from gorggle_server.inference.device_health import DeviceHealthCheck, GpuCollector
from gorggle_server.inference.interface import SpeechRecognizer
from gorggle_server.inference.model_registry import ModelRegistry, load_models
from gorggle_server.inference.scheduler import DeviceScheduler
from gorggle_server.media.speech_detector import load_network
from gorggle_server.observability.metrics import ServerMetrics
from gorggle_server.security.api_tokens import TokenStore
from gorggle_server.security.secret_sources import SecretsManager, open_secret_source
from gorggle_server.settings import ServerSettings, count_cpus
from gorggle_server.vision import face_embedding
from gorggle_server.vision.face_detector import FaceDetector
from gorggle_server.vision.landmark_model import LandmarkModelName, find_dlib_model

if TYPE_CHECKING:
    from gorggle_server.grpc_server.interceptors.tracing import Tracing
    from gorggle_server.sandbox.pool import DecoderPool

_log = logging.getLogger(__name__)

# CPU seconds per second of live video (decoding, face tracking, voice activity) until that was measured: about half
# of the cost of 1280x720 on a machine of 2026, so that the first few streams are admitted and measured.
LIVE_CPU_ESTIMATE = 0.15
# CPU time of this process's own threads that live streams may take, whatever the number of CPUs: much of it is Python
# or holds the GIL, and one thread at a time runs it. Decoders are subprocesses. More streams need a second server.
MAX_GIL_LOAD = 1.2
LIVE_GIL_ESTIMATE = 0.03

SERVICE_NAME = lip_reading_pb2.DESCRIPTOR.services_by_name["LipReading"].full_name
# Bytes of one stream in flight: HTTP/2 lets a client send this much ahead.
STREAM_WINDOW_BYTES = 64 * 1024


class Server:
    """Listens immediately; answers UNAVAILABLE and NOT_SERVING until the models are loaded and warm."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.port = 0
        self._secrets = SecretsManager(settings.secrets_refresh_interval_s)
        self._decoder_pool = _create_decoder_pool(settings)
        version = metadata.version("gorggle")
        self.metrics = ServerMetrics(version)
        self._device_health = DeviceHealthCheck(settings.device)
        self.metrics.scheduler.on_device_failure = self._device_health.mark_suspect
        self.device_lost = asyncio.Event()
        if settings.device == "cuda":
            self.metrics.registry.register(GpuCollector())
        self._servicer = LipReadingServicer(settings, version, self.metrics, self._decoder_pool)
        self._tracing = _create_tracing(settings, version)
        self._channelz: aio.Server | None = None
        self._is_ready = False
        self.http_server: HttpServer | None = None
        self._watchdog = EventLoopWatchdog(self.metrics.event_loop_lag_s.observe)
        self._health = health.aio.HealthServicer()
        self._scheduler: DeviceScheduler | None = None
        self._server = aio.server(
            interceptors=_create_interceptors(settings, self.metrics, self._secrets, self._tracing),
            options=_create_server_options(settings),
        )
        lip_reading_pb2_grpc.add_LipReadingServicer_to_server(self._servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )

    async def start(self) -> None:
        """Bind and listen.

        Raises:
            InvalidRequestError: the address cannot be bound, or the TLS files cannot be used.
        """
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        loop = asyncio.get_running_loop()
        self._device_health.on_lost = lambda: _call_soon(loop, self.device_lost.set)
        try:
            self.port = _bind(self._server, self.settings, self._secrets)
        except (RuntimeError, OSError, ValueError) as error:
            raise InvalidRequestError(f"cannot listen on {self.settings.listen}: {error}") from error
        if self.settings.http_listen:
            self.http_server = HttpServer(
                self.settings.http_listen,
                self.metrics.registry,
                is_ready=lambda: self._is_ready and self._device_health.is_healthy,
                is_alive=lambda: self._watchdog.is_alive and self._device_health.is_healthy,
            )
            self.http_server.start()
        if self.settings.channelz_listen:
            self._channelz = await start_channelz(self.settings.channelz_listen)
        self._watchdog.start()
        self.metrics.event_loop_tasks.set_function(self._watchdog.count_tasks)
        await self._server.start()

    async def load(self) -> None:
        """Load and warm up the models, then serve.

        Raises:
            NotFoundError, ModelFormatError: a model cannot be loaded.
            PreconditionError: decoder subprocesses do not work here.
        """
        (catalog, recognizers), _, _ = await asyncio.gather(
            asyncio.to_thread(_load_recognizers, self.settings),
            asyncio.to_thread(self._prepare_face_tracking),
            # Streams create their detector on the event loop, which must not wait for the file.
            asyncio.to_thread(load_network),
        )
        # Interim results add to it: an utterance is decoded three to four times in all while it grows.
        estimate = 3 * await asyncio.to_thread(recognizers[catalog.default].measure_cost)
        admission = _create_admission_controller(self.settings, estimate)
        self._scheduler = DeviceScheduler(
            recognizers,
            self.settings.max_batch_delay_s,
            self.settings.max_batch_frames,
            self.metrics.scheduler,
            admission.record_device_time,
            lambda: self._device_health.is_healthy,
        )
        self.metrics.bind_admission(admission)
        self._servicer.activate(catalog, self._scheduler, admission)
        self._set_readiness(is_ready=True)
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)

    def _prepare_face_tracking(self) -> None:
        landmark_model = self.settings.get_landmark_model()
        if self._decoder_pool is None:
            # dlib's hundred megabytes stay cached: loading them in the first call would delay it.
            FaceDetector(landmark_model)
            if self.settings.face_identity:
                face_embedding.preload()
            return
        from gorggle_server.sandbox.decoding import check_decoding

        if landmark_model.name is LandmarkModelName.DLIB:
            find_dlib_model(landmark_model.path)
        check_decoding(self._decoder_pool)

    async def stop(self) -> None:
        """Refuse new calls, let calls in flight finish within the grace period, and shut down."""
        self._servicer.drain(self.settings.shutdown_grace_period_s)
        self._set_readiness(is_ready=False)
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self.settings.shutdown_grace_period_s)
        if self._decoder_pool is not None:
            await asyncio.to_thread(self._decoder_pool.close)
        if self._scheduler is not None:
            await asyncio.to_thread(self._scheduler.close)
        self._watchdog.stop()
        self._secrets.close()
        if self._channelz is not None:
            await self._channelz.stop(0)
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        if self.http_server is not None:
            await asyncio.to_thread(self.http_server.stop)

    def _set_readiness(self, *, is_ready: bool) -> None:
        self._is_ready = is_ready
        self.metrics.set_serving(ready=is_ready, max_streams=self.settings.max_streams)

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for service in ("", SERVICE_NAME):
            await self._health.set(service, status)


async def serve(settings: ServerSettings, on_ready: Callable[[str, str], None], stop: asyncio.Event) -> None:
    """Run a server until ``stop`` is set; ``on_ready`` receives its gRPC and HTTP addresses once it serves.

    Raises:
        NotReadyError: the device has failed; the streams were asked to continue elsewhere.
    """
    server = Server(settings)
    await server.start()
    host = settings.listen.rpartition(":")[0]
    try:
        loading = asyncio.ensure_future(server.load())
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait([loading, stopping], return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            await loading
            on_ready(f"{host}:{server.port}", server.http_server.address if server.http_server else "")
            lost = asyncio.ensure_future(server.device_lost.wait())
            await asyncio.wait([stopping, lost], return_when=asyncio.FIRST_COMPLETED)
            if not stopping.done():
                raise NotReadyError("the device has failed: restart the server; see the log")
    finally:
        await server.stop()


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Schedule a callback on an event loop, from any thread."""
    with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(callback)


def _create_tracing(settings: ServerSettings, version: str) -> Tracing | None:
    if not settings.otlp_endpoint:
        return None
    # Imported late: without tracing, OpenTelemetry need not be installed.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    from gorggle_server.grpc_server.interceptors.tracing import Tracing

    return Tracing(version, OTLPSpanExporter(endpoint=settings.otlp_endpoint))


def _create_decoder_pool(settings: ServerSettings) -> DecoderPool | None:
    if not settings.sandbox_decoding:
        return None
    # Imported late: Unix only.
    from gorggle_server.sandbox.pool import DecoderPool

    return DecoderPool(
        settings.decoder_memory_bytes,
        settings.decoder_timeout_s,
        landmark_model=settings.get_landmark_model(),
    )


def _load_recognizers(settings: ServerSettings) -> tuple[ModelRegistry, dict[str, SpeechRecognizer]]:
    catalog = load_models(settings)
    for served in catalog:
        if not served.is_loaded_on_demand:
            served.recognizer.warm_up()
    return catalog, {served.name: served.recognizer for served in catalog}


def _create_admission_controller(settings: ServerSettings, device_estimate: float) -> AdmissionController:
    """Create the admission controller with the budgets of this machine."""
    cpu = ResourceLimit(settings.max_live_cpu_utilization * count_cpus(), LIVE_CPU_ESTIMATE)
    own_estimate = LIVE_GIL_ESTIMATE if settings.sandbox_decoding else LIVE_CPU_ESTIMATE
    gil = ResourceLimit(MAX_GIL_LOAD if settings.max_live_cpu_utilization else 0.0, own_estimate)
    # With a GPU one thread waits for it; without, all model threads compute.
    threads = 1 if settings.device == "cuda" else settings.count_model_threads()
    return AdmissionController(
        ResourceLimit(settings.max_live_device_utilization, device_estimate), cpu, threads, gil
    )


def _create_server_options(settings: ServerSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_metadata_size", 16 * 1024),
        ("grpc.enable_channelz", int(bool(settings.channelz_listen))),
        ("grpc.so_reuseport", 0),  # a second server on one port must fail, not share it
        # Back-pressure must reach the client: without these options the window grows to megabytes.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", STREAM_WINDOW_BYTES),
        # Keepalive as the gRPC guide advises: detects dead clients within a minute and a half.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    ]


def _create_interceptors(
    settings: ServerSettings, metrics: ServerMetrics, secrets: SecretsManager, tracing: Tracing | None
) -> list[aio.ServerInterceptor]:
    """Return the interceptors, outermost first: errors of inner ones become statuses too."""
    traced = [] if tracing is None else [tracing.create_interceptor()]
    file = settings.token_file
    tokens = None if file is None else TokenStore(open_secret_source(file, secrets))
    return [
        CallMetricsInterceptor(metrics),
        *traced,
        ErrorInterceptor(metrics.count_error),
        AuthenticationInterceptor(tokens),
        WriteTimeoutInterceptor(settings.idle_timeout_s),
        RequestValidationInterceptor(),
    ]


def _bind(server: aio.Server, settings: ServerSettings, secrets: SecretsManager) -> int:
    if settings.tls_certificate is None or settings.tls_key is None:
        return server.add_insecure_port(settings.listen)
    client_ca = settings.tls_client_ca
    renewable = ReloadingTlsCredentials(
        open_secret_source(settings.tls_certificate, secrets),
        open_secret_source(settings.tls_key, secrets),
        None if client_ca is None else open_secret_source(client_ca, secrets),
    )
    return server.add_secure_port(settings.listen, renewable.create())
