"""Faults of the server's own resources: disk, models, device and clock."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from gorggle import Client, ServerError
from gorggle_server.inference.device_health import DeviceHealthCheck
from gorggle_server.sandbox import fork_client
from tests.clips import transcode
from tests.integration.conftest import DEMO, ROOT, RunningServer, running_server
from tests.integration.test_operations import http_request


@pytest.fixture(scope="module")
def short_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an MP4 clip with the index at the end, so that the server has to spool it."""
    return transcode(DEMO, tmp_path_factory.mktemp("clips") / "short.mp4", max_s=3)


@pytest.fixture
def own_server() -> Iterator[RunningServer]:
    with running_server(http_listen="127.0.0.1:0") as running:
        yield running


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="requires /dev/full")
def test_a_full_disk_fails_only_spooled_calls_and_is_only_logged(
    short_clip: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setattr(fork_client.tempfile, "TemporaryFile", lambda: open("/dev/full", "w+b"))  # noqa: SIM115, PTH123
    with running_server() as running, Client(running.address) as client:
        with pytest.raises(ServerError) as caught:
            client.recognize(short_clip)
        assert "disk" not in str(caught.value)
        assert "No space left" in caplog.text
        # Calls without spooling still work.
        assert client.models()
        monkeypatch.undo()
        transcripts = []
        for _ in range(2):  # the spare decoder process was forked with the patch
            try:
                transcripts.append(client.recognize(short_clip))
            except ServerError:
                continue
        assert transcripts[-1].segments


@pytest.mark.parametrize("model", ["missing", "damaged"])
def test_a_model_that_cannot_be_loaded_exits_with_a_one_line_error(tmp_path: Path, model: str) -> None:
    path = tmp_path / "model.safetensors"
    if model == "damaged":
        path.write_bytes(b"\x08" + bytes(200))
    command = [sys.executable, "-m", "gorggle_server", "--listen", "127.0.0.1:0", "--log-level", "ERROR"]
    result = subprocess.run(
        [*command, "--models", f'{{"mine": "{path}"}}'],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("gorggle serve:")]
    assert "model" in line


def test_livez_fails_after_a_device_failure_but_not_after_a_failed_request(
    own_server: RunningServer,
) -> None:
    scheduler_metrics = own_server.server.metrics.scheduler
    scheduler_metrics.count_drop("failed")
    assert http_request(own_server, "/livez")[0] == http_request(own_server, "/readyz")[0] == 200
    scheduler_metrics.count_drop("cancelled")

    def fail() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    health_check = DeviceHealthCheck("cpu", fail)
    own_server.server._device_health = health_check
    scheduler_metrics.on_device_failure = health_check.mark_suspect
    assert http_request(own_server, "/livez")[0] == 200  # no failure was reported yet
    scheduler_metrics.count_drop("failed")
    assert http_request(own_server, "/livez")[0] == http_request(own_server, "/readyz")[0] == 503


def test_a_failed_device_stays_failed_and_is_logged_once(caplog) -> None:
    probes = []

    def fail() -> None:
        probes.append(1)
        raise RuntimeError("CUDA error: unspecified launch failure")

    probe = DeviceHealthCheck("cuda", fail)
    assert probe.is_healthy
    for _ in range(3):
        probe.mark_suspect()
        assert not probe.is_healthy
    assert len(probes) == 1
    assert caplog.text.count("CUDA device failed") == 1


def test_a_suspect_device_that_passes_the_probe_is_healthy() -> None:
    probe = DeviceHealthCheck("cpu")
    probe.mark_suspect()
    assert probe.is_healthy


def test_limits_and_durations_do_not_use_the_wall_clock() -> None:
    """It may be wrong or be set while a stream runs. Logs, traces, HTTP dates and the date of an agreement need it."""
    allowed = {"logging_setup.py", "stage_timer.py", "tracing.py", "download.py", "install.py"}
    wall_clock = re.compile(r"\btime\.time\(|\btime_ns\(|datetime\.now\(|utcnow\(|date\.today\(")
    users = {
        path.name
        for folder in ("inference_server", "clients/python/gorggle")
        for path in (ROOT / folder).rglob("*.py")
        if wall_clock.search(path.read_text())
    }
    assert users <= allowed, users - allowed


def test_non_text_metadata_is_refused_by_grpc_before_it_is_sent(server: RunningServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary("/gorggle.v1.LipReading/GetServerInfo")
        with pytest.raises((ValueError, grpc.RpcError, UnicodeEncodeError)):
            call(b"", metadata=[("x-text", "\udcff\ud800")], timeout=10)
        assert call(b"", timeout=10)
