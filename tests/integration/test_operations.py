"""The HTTP endpoints for operators: metrics, liveness and readiness."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gorggle import Client, GorggleError
from gorggle_server.errors import InvalidRequestError
from gorggle_server.grpc_server import servicer
from gorggle_server.grpc_server.http_endpoints import HttpServer
from gorggle_server.observability.metrics import ServerMetrics
from tests.integration.conftest import DEMO, RunningServer, running_server


@pytest.fixture(scope="module")
def monitored_server() -> Iterator[RunningServer]:
    with running_server(http_listen="127.0.0.1:0") as running:
        yield running


def http_request(running: RunningServer, path: str, method: str = "GET") -> tuple[int, str]:
    assert running.server.http_server is not None
    request = urllib.request.Request(
        f"http://127.0.0.1:{running.server.http_server.port}{path}", method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def read_metrics(running: RunningServer) -> dict[tuple[str, frozenset[str]], float]:
    families = text_string_to_metric_families(http_request(running, "/metrics")[1])
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_calls_media_segments_and_batches_are_counted(monitored_server: RunningServer) -> None:
    before = read_metrics(monitored_server)
    with Client(monitored_server.address) as client:
        transcript = client.recognize(DEMO)
        with pytest.raises(GorggleError):
            client.recognize(b"no media at all")
    # The client gets the error before the server has counted the call.
    refused = ("gorggle_grpc_requests_total", frozenset({"Recognize", "INVALID_ARGUMENT"}))
    deadline = time.monotonic() + 10
    while refused not in (after := read_metrics(monitored_server)) and time.monotonic() < deadline:
        time.sleep(0.02)

    def increase(name: str, *labels: str) -> float:
        return after[(name, frozenset(labels))] - before.get((name, frozenset(labels)), 0.0)

    assert increase("gorggle_grpc_requests_total", "Recognize", "OK") == 1
    assert increase("gorggle_grpc_requests_total", "Recognize", "INVALID_ARGUMENT") == 1
    assert increase("gorggle_grpc_request_duration_seconds_count", "Recognize") == 2
    assert increase("gorggle_media_processed_seconds_total") == pytest.approx(transcript.duration_s, abs=0.1)
    assert sum(
        increase("gorggle_segments_total", *labels)
        for name, labels in after
        if name == "gorggle_segments_total"
    ) == len(transcript.segments)
    assert increase("gorggle_encode_batch_size_sum") == increase("gorggle_queue_wait_seconds_count", "final")
    assert increase("gorggle_encode_batch_size_sum") >= len(transcript.segments)
    assert after[("gorggle_active_streams", frozenset())] == 0
    assert after[("gorggle_max_streams", frozenset())] == monitored_server.server.settings.max_streams


def test_an_unknown_method_creates_no_metric_series(monitored_server: RunningServer) -> None:
    with grpc.insecure_channel(monitored_server.address) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary("/gorggle.v1.LipReading/Invented")(b"", timeout=10)
    assert "Invented" not in http_request(monitored_server, "/metrics")[1]


def test_metrics_contain_no_words(monitored_server: RunningServer) -> None:
    with Client(monitored_server.address) as client:
        words = {word.text for segment in client.recognize(DEMO).segments for word in segment.words}
    text = http_request(monitored_server, "/metrics")[1]
    assert "place" in words
    assert "place" not in text
    assert "demo" not in text


def test_an_idle_server_trims_its_memory(
    monitored_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trimmed = threading.Event()
    monkeypatch.setattr(servicer, "trim_memory", trimmed.set)
    monkeypatch.setattr(servicer, "IDLE_TRIM_DELAY_S", 0.2)
    with Client(monitored_server.address) as client, pytest.raises(GorggleError):
        list(client.transcribe(b"no media at all"))
    assert trimmed.wait(10)


def test_a_slot_is_released_on_a_thread_without_an_event_loop(monitored_server: RunningServer) -> None:
    limiter = monitored_server.server._servicer._stream_limiter
    with limiter.acquire("camera"):
        assert limiter.active_streams == 1
    assert limiter.active_streams == 0


def test_readiness_depends_on_loaded_models_and_shutdown() -> None:
    with running_server(load=False, http_listen="127.0.0.1:0") as running:
        assert http_request(running, "/readyz")[0] == 503
        assert http_request(running, "/livez")[0] == 200
        running.call(running.server.load())
        assert http_request(running, "/readyz") == (200, "ready\n")
        running.server._set_readiness(is_ready=False)
        assert http_request(running, "/readyz")[0] == 503


@pytest.mark.parametrize(("path", "method", "status"), [("/", "GET", 404), ("/livez", "POST", 405)])
def test_unknown_paths_and_methods_are_refused(
    monitored_server: RunningServer, path: str, method: str, status: int
) -> None:
    assert http_request(monitored_server, path, method)[0] == status


def test_an_address_in_use_is_reported(monitored_server: RunningServer) -> None:
    assert monitored_server.server.http_server is not None
    used_address = f"127.0.0.1:{monitored_server.server.http_server.port}"
    with pytest.raises(InvalidRequestError, match=used_address):
        HttpServer(used_address, ServerMetrics("0").registry, lambda: True, lambda: True).start()
