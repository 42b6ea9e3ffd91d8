"""Metrics of a real server: dashboard and alerts query only exported metrics, all are documented, and values are correct."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import torch
import yaml
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from gorggle import Client, GorggleError
from gorggle.v1 import lip_reading_pb2, lip_reading_pb2_grpc
from gorggle_server.errors import InvalidRequestError
from gorggle_server.grpc_server.channelz import start_channelz
from gorggle_server.grpc_server.event_loop_watchdog import EventLoopWatchdog
from gorggle_server.inference.device_health import GpuCollector
from gorggle_server.settings import ServerSettings
from monitoring import grafana_dashboard
from tests.integration.conftest import DEMO, ROOT, RunningServer, running_server
from tests.integration.test_operations import http_request, read_metrics

ALERTS = yaml.safe_load((ROOT / "monitoring" / "alerts.yaml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
OPERATIONS_PAGE = (ROOT / "docs" / "operations.md").read_text()
# Metrics that Prometheus itself adds for each target.
PROMETHEUS_METRICS = {"up"}


@pytest.fixture(scope="module")
def monitored_server() -> Iterator[RunningServer]:
    with running_server(http_listen="127.0.0.1:0") as running, Client(running.address) as client:
        client.recognize(DEMO)
        with pytest.raises(GorggleError):
            client.recognize(b"no media at all")
        yield running


@pytest.fixture
def gpu_registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    """Return the metrics of a simulated GPU with 80 GB of memory and 50 % utilisation."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (60 * 10**9, 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 15 * 10**9)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 18 * 10**9)
    monkeypatch.setattr(torch.cuda, "utilization", lambda: 50)
    registry = CollectorRegistry()
    registry.register(GpuCollector())
    return registry


def exported_names(text: str) -> set[str]:
    """Return the names of all metric families and samples."""
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples} | {
        family.name for family in text_string_to_metric_families(text)
    }


QUERIES = [
    query for row in grafana_dashboard.ROWS.values() for panel in row for query in panel.queries.values()
]


def queried_metrics(expression: str) -> set[str]:
    """Return the metric names in a PromQL expression."""
    without_labels = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(?:by|on)\s*\([^)]*\)", " ", expression)
    return {
        word
        for word in re.findall(r"(?<![\w.])[a-z_][a-z0-9_]+", without_labels)
        if word not in {"sum", "rate", "avg", "histogram_quantile", "deriv", "and", "max", "increase"}
    }


def test_every_queried_metric_is_exported(
    monitored_server: RunningServer, gpu_registry: CollectorRegistry
) -> None:
    exported = exported_names(http_request(monitored_server, "/metrics")[1]) | exported_names(
        generate_latest(gpu_registry).decode()
    )
    for expression in (*QUERIES, *(rule["expr"] for rule in RULES)):
        metrics = queried_metrics(expression)
        assert metrics, expression
        assert metrics <= exported | PROMETHEUS_METRICS, expression


def test_every_metric_is_on_the_dashboard_and_documented(
    monitored_server: RunningServer, gpu_registry: CollectorRegistry
) -> None:
    texts = http_request(monitored_server, "/metrics")[1], generate_latest(gpu_registry).decode()
    queries = " ".join(QUERIES)
    families = {family.name for text in texts for family in text_string_to_metric_families(text)}
    server_metrics = {
        name for name in families if name.startswith("gorggle_") and not name.endswith("_created")
    }
    assert len(server_metrics) > 20
    documented = set(
        re.findall(r"`(gorggle_\w+)", OPERATIONS_PAGE.split("## Health and metrics")[1].split("\n## ")[0])
    )
    documented = {name.removesuffix("_total") for name in documented}
    assert server_metrics == documented
    assert [name for name in sorted(server_metrics) if name not in queries] == []


def test_the_dashboard_file_matches_its_code() -> None:
    assert grafana_dashboard.OUT.read_text() == grafana_dashboard.render()


def test_dashboard_panels_do_not_overlap_and_have_valid_queries() -> None:
    panels = json.loads(grafana_dashboard.OUT.read_text())["panels"]
    numbers = [panel["id"] for panel in panels]
    assert len(set(numbers)) == len(numbers)
    occupied = set()
    for panel in panels:
        position = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(position["x"], position["x"] + position["w"])
            for y in range(position["y"], position["y"] + position["h"])
        }
        assert not cells & occupied, panel["title"]
        assert max(x for x, _ in cells) < grafana_dashboard.COLUMNS
        occupied |= cells
        if panel["type"] != "row":
            assert all(target["expr"].count("(") == target["expr"].count(")") for target in panel["targets"])


def test_every_alert_has_a_severity_and_an_action() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names) >= 8
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert re.fullmatch(r"\d+[mh]", rule["for"])
        assert len(rule["annotations"]["action"]) > 30
        assert rule["expr"].count("(") == rule["expr"].count(")")


# ------------------------------------------------------------------------------------------------------ metric values


def test_metrics_of_stages_faces_and_errors_are_correct(
    monitored_server: RunningServer, truth: dict[str, Any]
) -> None:
    metrics = read_metrics(monitored_server)
    duration_s = truth["duration_s"]

    def value(name: str, *labels: str) -> float:
        return metrics[(name, frozenset(labels))]

    steps = value("gorggle_stage_duration_seconds_count", "vision")
    assert steps == pytest.approx(duration_s / 0.4, abs=3)
    for stage in ("decode", "vision", "vad"):
        assert value("gorggle_stage_duration_seconds_sum", stage) > 0
    assert value("gorggle_media_processed_seconds_total") == pytest.approx(duration_s, abs=0.2)
    assert value("gorggle_real_time_factor_count") == 1
    # Less than the sum of the stages: they overlap, with each other and with the wait for the client's next message.
    assert 0 < value("gorggle_real_time_factor_sum") < 20
    assert value("gorggle_frames_processed_total") == pytest.approx(duration_s * 25, abs=3)
    assert 0.5 < value("gorggle_frames_with_faces_total") / value("gorggle_frames_processed_total") <= 1
    assert value("gorggle_faces_detected_total") >= value("gorggle_frames_with_faces_total")
    assert value("gorggle_errors_total", "InvalidMediaError") == 1
    assert value("gorggle_input_buffer_bytes") == 0
    assert value("gorggle_event_loop_tasks") > 0
    assert value("gorggle_event_loop_lag_seconds_count") > 0


def test_waiting_media_is_counted_as_buffered(
    monitored_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [
        lip_reading_pb2.StreamingRecognizeRequest(config={}),
        *[lip_reading_pb2.StreamingRecognizeRequest(media=DEMO.read_bytes())],
    ]
    with grpc.insecure_channel(monitored_server.address) as channel:
        call = lip_reading_pb2_grpc.LipReadingStub(channel).StreamingRecognize(iter(requests), timeout=60)
        max_bytes, deadline = 0.0, time.monotonic() + 20
        while not max_bytes and time.monotonic() < deadline:
            max_bytes = max(
                max_bytes, read_metrics(monitored_server)[("gorggle_input_buffer_bytes", frozenset())]
            )
        assert 0 < max_bytes <= 64 * 1024
        list(call)


def test_gpu_metrics_report_memory_and_utilisation(
    gpu_registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gpu_registry.get_sample_value("gorggle_gpu_utilisation_ratio") == 0.5
    assert gpu_registry.get_sample_value("gorggle_gpu_memory_bytes", {"kind": "tensors"}) == 15 * 10**9
    assert gpu_registry.get_sample_value("gorggle_gpu_memory_bytes", {"kind": "total"}) == 80 * 10**9

    def raise_without_pynvml() -> int:
        raise ModuleNotFoundError("pynvml")

    monkeypatch.setattr(torch.cuda, "utilization", raise_without_pynvml)
    assert gpu_registry.get_sample_value("gorggle_gpu_utilisation_ratio") is None
    assert gpu_registry.get_sample_value("gorggle_gpu_memory_bytes", {"kind": "free"}) == 60 * 10**9


def test_there_are_no_gpu_metrics_without_a_gpu(monitored_server: RunningServer) -> None:
    assert "gorggle_gpu" not in http_request(monitored_server, "/metrics")[1]


# -------------------------------------------------------------------------------------------------- the event loop


def test_a_blocked_event_loop_is_logged_with_its_stack(caplog) -> None:
    import asyncio

    lags: list[float] = []
    watchdog = EventLoopWatchdog(lags.append, stall_timeout_s=0.5, dead_timeout_s=0.8)

    async def block() -> None:
        watchdog.start()
        assert watchdog.is_alive
        assert watchdog.count_tasks() == 2
        await asyncio.sleep(0.6)
        alive = []
        time.sleep(1.5)  # noqa: ASYNC251 - blocks the loop on purpose
        alive.append(watchdog.is_alive)
        await asyncio.sleep(0.6)
        alive.append(watchdog.is_alive)
        watchdog.stop()
        assert alive == [False, True]

    asyncio.run(block())
    assert max(lags) > 0.8
    reported = [record.getMessage() for record in caplog.records if "has been blocked" in record.getMessage()]
    assert len(reported) == 1
    assert "time.sleep(1.5)" in reported[0]


def test_a_dead_event_loop_fails_livez(
    monitored_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert http_request(monitored_server, "/livez")[0] == 200
    monkeypatch.setattr(monitored_server.server._watchdog, "_dead_timeout_s", 0.0)
    assert http_request(monitored_server, "/livez")[0] == 503


# -------------------------------------------------------------------------------------------------------- channelz


def test_channelz_shows_the_server_and_its_calls_on_loopback() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with running_server(channelz_listen=address) as running:
        with Client(running.address) as client:
            client.models()
        with grpc.insecure_channel(address) as channel:
            stub = channelz_pb2_grpc.ChannelzStub(channel)
            servers = stub.GetServers(channelz_pb2.GetServersRequest(), timeout=10).server
        assert max(server.data.calls_succeeded for server in servers) >= 1


def test_channelz_is_off_by_default_and_restricted_to_loopback(server: RunningServer) -> None:
    assert server.server._channelz is None
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        channelz_pb2_grpc.ChannelzStub(channel).GetServers(channelz_pb2.GetServersRequest(), timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(ValidationError, match="must be on loopback"):
        ServerSettings(channelz_listen="0.0.0.0:50052")


def test_a_channelz_address_in_use_is_reported(server: RunningServer) -> None:
    with pytest.raises(InvalidRequestError, match=server.address):
        server.call(start_channelz(server.address))
