"""What goes wrong on the server's own side: its disk, its models, its device, its clock."""

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
from tests.integration.test_operations import ask


@pytest.fixture(scope="module")
def short_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its index stands at its end, so that it must be spooled."""
    return transcode(DEMO, tmp_path_factory.mktemp("clips") / "short.mp4", max_s=3)


@pytest.fixture
def own_server() -> Iterator[RunningServer]:
    with running_server(http_listen="127.0.0.1:0") as running:
        yield running


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_full_disk_fails_only_the_calls_that_need_it_and_is_only_logged(
    short_clip: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setattr(fork_client.tempfile, "TemporaryFile", lambda: open("/dev/full", "w+b"))  # noqa: SIM115, PTH123
    with running_server() as running, Client(running.address) as client:
        with pytest.raises(ServerError) as caught:
            client.recognize(short_clip)
        assert "disk" not in str(caught.value)
        assert "No space left" in caplog.text
        # What arrives with its index at its start needs no disk.
        assert client.models()
        monkeypatch.undo()
        client_gets = []
        for _ in range(2):  # the process that waited ready had the full disk still
            try:
                client_gets.append(client.recognize(short_clip))
            except ServerError:
                continue
        assert client_gets[-1].segments


@pytest.mark.parametrize("model", ["missing", "damaged"])
def test_a_model_that_cannot_be_loaded_ends_the_server_with_one_line(tmp_path: Path, model: str) -> None:
    path = tmp_path / "model.safetensors"
    if model == "damaged":
        path.write_bytes(b"\x08" + bytes(200))
    command = [sys.executable, "-m", "gorggle_server", "--listen", "127.0.0.1:0", "--log-level", "ERROR"]
    ended = subprocess.run(
        [*command, "--models", f'{{"mine": "{path}"}}'],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("gorggle serve:")]
    assert "model" in line


def test_a_failed_device_fails_livez_and_a_failed_request_alone_does_not(
    own_server: RunningServer,
) -> None:
    measurements = own_server.server.metrics.scheduler
    measurements.count_drop("failed")
    assert ask(own_server, "/livez")[0] == ask(own_server, "/readyz")[0] == 200
    measurements.count_drop("cancelled")

    def fail() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    lost = DeviceHealthCheck("cpu", fail)
    own_server.server._device_health = lost
    measurements.on_device_failure = lost.mark_suspect
    assert ask(own_server, "/livez")[0] == 200  # no failure was reported yet
    measurements.count_drop("failed")
    assert ask(own_server, "/livez")[0] == ask(own_server, "/readyz")[0] == 503


def test_a_failed_device_stays_failed_and_is_logged_once(caplog) -> None:
    asked = []

    def fail() -> None:
        asked.append(1)
        raise RuntimeError("CUDA error: unspecified launch failure")

    probe = DeviceHealthCheck("cuda", fail)
    assert probe.is_healthy
    for _ in range(3):
        probe.mark_suspect()
        assert not probe.is_healthy
    assert len(asked) == 1
    assert caplog.text.count("CUDA device failed") == 1


def test_a_device_that_works_again_is_used_again() -> None:
    probe = DeviceHealthCheck("cpu")
    probe.mark_suspect()
    assert probe.is_healthy


def test_only_logs_and_traces_use_the_wall_clock() -> None:
    """A clock that is wrong, or set while a stream runs, changes no limit and no duration."""
    allowed = {"logging_setup.py", "stage_timer.py", "tracing.py"}
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
