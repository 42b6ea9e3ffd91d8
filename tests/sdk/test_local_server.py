"""The temporary local server of the command line, and the commands forwarded to the server package."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import pytest

import gorggle
from gorggle import local_server
from gorggle.local_server import LocalServer
from tests.sdk.test_cli import LINE, MODEL_LINE, WITH_SIGINT, run_gorggle

ROOT = Path(__file__).resolve().parents[2]

FAKE_SERVER = """
import json, os, sys, time
from concurrent import futures

assert sys.argv[1:5] == ["--listen", "127.0.0.1:0", "--print-ready", "--exit-on-stdin-eof"], sys.argv
assert sys.argv[5:] == os.environ.get("FAKE_ARGUMENTS", "").split(), sys.argv
open(os.environ["FAKE_PID_FILE"], "w").write(str(os.getpid()))
mode = os.environ.get("FAKE_MODE", "serve")
print("loading the model", file=sys.stderr, flush=True)
if mode == "fail":
    sys.exit("gorggle serve: the model file is damaged")
if mode == "missing":
    import a_module_that_is_not_there
if mode == "hang":
    time.sleep(600)
import grpc
from gorggle.v1 import lip_reading_pb2_grpc
from tests.sdk.fake_service import FakeLipReading

server = grpc.server(futures.ThreadPoolExecutor(4))
lip_reading_pb2_grpc.add_LipReadingServicer_to_server(FakeLipReading(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print("output of a library")
print(json.dumps(["listening"]))
print(json.dumps({"listening": f"127.0.0.1:{port}"}), flush=True)
print("a log line " * 20000, file=sys.stderr, flush=True)
assert "GORGGLE_TOKEN" not in os.environ and "GORGGLE_TLS_KEY" not in os.environ
while sys.stdin.buffer.read1(1024):
    pass
server.stop(None)
"""


@pytest.fixture
def fake_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a fake server package for subprocesses; return the path of the server's PID file."""
    package = tmp_path / "packages" / "gorggle_server"
    (package / "model_catalogue").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(FAKE_SERVER)
    (package / "model_catalogue" / "__init__.py").touch()
    (package / "model_catalogue" / "__main__.py").write_text("import sys; print(sys.argv); sys.exit(3)")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(package.parent), str(ROOT), str(ROOT / "clients/python")])
    )
    monkeypatch.setenv("FAKE_PID_FILE", str(tmp_path / "pid"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"media")
    return tmp_path / "pid"


def is_running(pid_file: Path) -> bool:
    try:
        os.kill(int(pid_file.read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def wait_for_exit(pid_file: Path) -> bool:
    end = time.monotonic() + 10
    while is_running(pid_file) and time.monotonic() < end:
        time.sleep(0.02)
    return not is_running(pid_file)


def test_a_local_server_serves_calls_and_exits_with_its_context(fake_server: Path) -> None:
    with LocalServer() as server, gorggle.Client(server.address) as client:
        assert server.address.startswith("127.0.0.1:")
        assert [segment.text for segment in client.transcribe(b"media")] == ["bin blue at f two now"]
        assert is_running(fake_server)
    assert not is_running(fake_server)


def test_the_command_starts_a_local_server_without_the_server_option(
    fake_server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GORGGLE_TOKEN", "for another server")
    monkeypatch.setenv("GORGGLE_TLS_KEY", "for another server")
    completed = run_gorggle("transcribe", "a.mp4")
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, LINE, MODEL_LINE)
    assert wait_for_exit(fake_server)


def test_a_local_server_serves_the_selected_model(fake_server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_ARGUMENTS", "--default-model grid")
    completed = run_gorggle("transcribe", "a.mp4", "--model", "grid")
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, LINE, MODEL_LINE)


def test_a_local_server_serves_the_selected_second_model(
    fake_server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_ARGUMENTS", "--audio-model whisper-tiny")
    completed = run_gorggle("transcribe", "a.mp4", "--audio-model", "whisper-tiny")
    assert (completed.returncode, completed.stdout) == (0, LINE), completed.stderr


def test_several_files_share_one_local_server(fake_server: Path) -> None:
    completed = run_gorggle("transcribe", "nowhere.mp4", "a.mp4", "a.mp4", "--format", "json")
    assert completed.returncode == 1
    assert len(completed.stdout.splitlines()) == 2
    assert completed.stderr == "gorggle: nowhere.mp4: does not exist\n" + MODEL_LINE, (
        "the model is named once"
    )


def test_no_server_is_started_for_unreadable_files(fake_server: Path) -> None:
    assert run_gorggle("transcribe", "nowhere.mp4").returncode == 1
    assert not fake_server.exists()


def test_models_can_be_listed_from_a_local_server(fake_server: Path) -> None:
    completed = run_gorggle("models")
    assert completed.returncode == 0
    assert "Reads the GRID grammar." in completed.stdout


def test_a_startup_failure_is_reported_once(fake_server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_MODE", "fail")
    completed = run_gorggle("transcribe", "a.mp4", "a.mp4")
    assert (completed.returncode, completed.stdout) == (1, "")
    assert completed.stderr == (
        "gorggle: the server exited with code 1 before it was ready: "
        "gorggle serve: the model file is damaged\n"
    )


def test_missing_server_packages_are_reported_as_not_installed(
    fake_server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MODE", "missing")
    completed = run_gorggle("transcribe", "a.mp4")
    assert completed.returncode == 1
    assert completed.stderr == (
        "gorggle: the server is not installed: pip install 'gorggle[server]', or use --server\n"
    )


def test_a_missing_server_is_reported_as_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util, "find_spec", lambda _name: None)
    with pytest.raises(gorggle.ConfigurationError, match=r"pip install 'gorggle\[server\]'.*--server"):
        LocalServer()


def test_a_hanging_server_is_killed_after_the_timeout(
    fake_server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MODE", "hang")
    monkeypatch.setattr(local_server, "STOP_TIMEOUT_S", 0.5)
    monkeypatch.setattr(local_server, "START_TIMEOUT_S", 2)
    with pytest.raises(gorggle.UnavailableError, match="did not start within 2 s: loading the model"):
        LocalServer().__enter__()
    assert not is_running(fake_server)


@contextlib.contextmanager
def _waiting_command() -> Iterator[subprocess.Popen[bytes]]:
    """Run ``gorggle transcribe -`` until it waits for its standard input, after the line with the model."""
    command = [sys.executable, "-c", WITH_SIGINT, "transcribe", "-"]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stderr
        assert process.stderr.readline() == MODEL_LINE.encode()
        yield process


def test_ctrl_c_stops_the_local_server(fake_server: Path) -> None:
    with _waiting_command() as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr
        assert process.stderr.read() == b""
    assert wait_for_exit(fake_server)


def test_a_killed_command_leaves_no_server_running(fake_server: Path) -> None:
    with _waiting_command() as process:
        process.kill()
        assert process.wait(30) == -signal.SIGKILL
    assert wait_for_exit(fake_server)


def test_server_commands_receive_their_arguments(fake_server: Path) -> None:
    completed = run_gorggle("model", "convert", "in.pt", "out.safetensors", "--help")
    assert completed.returncode == 3
    assert completed.stdout == "['gorggle model', 'convert', 'in.pt', 'out.safetensors', '--help']\n"
    serve = run_gorggle("serve", "--port", "1")
    assert "AssertionError: ['gorggle serve', '--port', '1']" in serve.stderr


def test_server_commands_report_missing_packages(fake_server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("gorggle_server", "gorggle_server/model_catalogue"):
        program = fake_server.parent / "packages" / package / "__main__.py"
        program.write_text("import a_module_that_is_not_there")
    for arguments in (["serve"], ["model", "info", "x"]):
        completed = run_gorggle(*arguments)
        assert completed.returncode == 1
        expected = f"gorggle: {local_server.NOT_INSTALLED} (no module named a_module_that_is_not_there)\n"
        assert completed.stderr == expected
