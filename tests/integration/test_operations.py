"""What operators ask: metrics, liveness, readiness."""

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
def observed() -> Iterator[RunningServer]:
    with running_server(http_listen="127.0.0.1:0") as running:
        yield running


def ask(running: RunningServer, path: str, method: str = "GET") -> tuple[int, str]:
    assert running.server.http_server is not None
    request = urllib.request.Request(
        f"http://127.0.0.1:{running.server.http_server.port}{path}", method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def measured(running: RunningServer) -> dict[tuple[str, frozenset[str]], float]:
    families = text_string_to_metric_families(ask(running, "/metrics")[1])
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_calls_media_segments_and_batches_are_counted(observed: RunningServer) -> None:
    before = measured(observed)
    with Client(observed.address) as client:
        transcript = client.recognize(DEMO)
        with pytest.raises(GorggleError):
            client.recognize(b"no media at all")
    # A refused client hears of it before the server has counted the call.
    refused = ("gorggle_grpc_requests_total", frozenset({"Recognize", "INVALID_ARGUMENT"}))
    deadline = time.monotonic() + 10
    while refused not in (after := measured(observed)) and time.monotonic() < deadline:
        time.sleep(0.02)

    def grown(name: str, *labels: str) -> float:
        return after[(name, frozenset(labels))] - before.get((name, frozenset(labels)), 0.0)

    assert grown("gorggle_grpc_requests_total", "Recognize", "OK") == 1
    assert grown("gorggle_grpc_requests_total", "Recognize", "INVALID_ARGUMENT") == 1
    assert grown("gorggle_grpc_request_duration_seconds_count", "Recognize") == 2
    assert grown("gorggle_media_processed_seconds_total") == pytest.approx(transcript.duration_s, abs=0.1)
    assert sum(
        grown("gorggle_segments_total", *labels) for name, labels in after if name == "gorggle_segments_total"
    ) == len(transcript.segments)
    assert grown("gorggle_encode_batch_size_sum") == grown("gorggle_queue_wait_seconds_count", "final")
    assert grown("gorggle_encode_batch_size_sum") >= len(transcript.segments)
    assert after[("gorggle_active_streams", frozenset())] == 0
    assert after[("gorggle_max_streams", frozenset())] == observed.server.settings.max_streams


def test_an_unknown_method_creates_no_metric_series(observed: RunningServer) -> None:
    with grpc.insecure_channel(observed.address) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary("/gorggle.v1.LipReading/Invented")(b"", timeout=10)
    assert "Invented" not in ask(observed, "/metrics")[1]


def test_metrics_contain_no_words(observed: RunningServer) -> None:
    with Client(observed.address) as client:
        words = {word.text for segment in client.recognize(DEMO).segments for word in segment.words}
    text = ask(observed, "/metrics")[1]
    assert "place" in words
    assert "place" not in text
    assert "demo" not in text


def test_a_server_at_rest_gives_its_free_memory_back(
    observed: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trimmed = threading.Event()
    monkeypatch.setattr(servicer, "trim_memory", trimmed.set)
    monkeypatch.setattr(servicer, "IDLE_TRIM_DELAY_S", 0.2)
    with Client(observed.address) as client, pytest.raises(GorggleError):
        list(client.transcribe(b"no media at all"))
    assert trimmed.wait(10)


def test_a_slot_is_released_on_a_thread_without_an_event_loop(observed: RunningServer) -> None:
    limiter = observed.server._servicer._stream_limiter
    with limiter.acquire("camera"):
        assert limiter.active_streams == 1
    assert limiter.active_streams == 0


def test_readiness_follows_the_models_and_the_end() -> None:
    with running_server(load=False, http_listen="127.0.0.1:0") as running:
        assert ask(running, "/readyz")[0] == 503
        assert ask(running, "/livez")[0] == 200
        running.call(running.server.load())
        assert ask(running, "/readyz") == (200, "ready\n")
        running.server._set_readiness(is_ready=False)
        assert ask(running, "/readyz")[0] == 503


@pytest.mark.parametrize(("path", "method", "status"), [("/", "GET", 404), ("/livez", "POST", 405)])
def test_nothing_else_is_answered(observed: RunningServer, path: str, method: str, status: int) -> None:
    assert ask(observed, path, method)[0] == status


def test_an_address_in_use_is_reported(observed: RunningServer) -> None:
    assert observed.server.http_server is not None
    taken = f"127.0.0.1:{observed.server.http_server.port}"
    with pytest.raises(InvalidRequestError, match=taken):
        HttpServer(taken, ServerMetrics("0").registry, lambda: True, lambda: True).start()
