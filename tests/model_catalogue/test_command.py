"""`gorggle model list`, `get` and `remove`, up to a server with the installed model."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import gorggle
from gorggle.local_server import LocalServer
from gorggle_server.__main__ import main as serve
from gorggle_server.model_catalogue.__main__ import main
from tests.avhubert import golden, reference_files
from tests.model_catalogue.file_server import Fault, FileServer
from tests.sdk.test_cli import WITH_SIGINT

NAME = "avhubert-avsr-base-30h"
URL_PATH = "/dl.fbaipublicfiles.com/avhubert/model/lrs3_vox/avsr/base_noise_pt_noise_ft_30h.pt"
# A shell without job control starts background jobs with SIGINT ignored, and subprocesses inherit that.
COMMAND = [sys.executable, "-c", WITH_SIGINT, "model"]


@pytest.fixture
def model_dir(tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set the environment to the server as a mirror and to an empty folder of models."""
    monkeypatch.setenv("GORGGLE_MODEL_MIRROR", server.url)
    monkeypatch.setenv("GORGGLE_MODEL_DIR", str(tmp_path / "models"))
    return tmp_path / "models"


def test_two_downloads_at_once_install_one_model_that_a_server_finds(
    server: FileServer, model_dir: Path, tmp_path: Path, capsys
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    reference_files.save(reference_files.make_checkpoint(golden.reference_state()), checkpoint)
    server.files[URL_PATH] = checkpoint.read_bytes()
    second_is_waiting = threading.Event()
    server.faults = [Fault(wait_for=second_is_waiting)]
    # The first one is held in its first request until the second one waits for it.
    first = start("get", NAME, "--accept-license")
    wait_for_line(first, "Non-commercial research only")
    while not server.requests:
        assert first.poll() is None
        second_is_waiting.wait(0.01)
    second = start("get", NAME, "--accept-license")
    wait_for_line(second, f"another process is downloading {NAME}")
    second_is_waiting.set()
    for process in (first, second):
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert output.startswith(f"installed {NAME} (")
    assert len(server.requests) == 1

    assert main(["list", "--json"]) == 0
    (entry,) = (model for model in json.loads(capsys.readouterr().out) if model["name"] == NAME)
    assert entry["state"] == "installed"
    assert Path(entry["path"]).is_relative_to(model_dir)
    record = json.loads((model_dir / NAME / "model.json").read_text())
    assert record["license"]["commercial_use"] is False

    with LocalServer(NAME) as local, gorggle.Client(local.address) as client:
        assert client.server_info().default_model == NAME
        served = client.model(NAME)
        assert served.license.commercial_use == "forbidden"
        assert served.trained_on.endswith("30 hours of LRS3")

    assert main(["remove", NAME]) == 0
    assert capsys.readouterr().out.startswith(f"removed {NAME}, ")
    assert not (model_dir / NAME).exists()


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    assert any(text in line for line in process.stderr)


def test_an_interrupted_download_is_continued_by_the_next_one(
    server: FileServer, model_dir: Path, capsys
) -> None:
    server.files[URL_PATH] = b"x" * 100_000
    never = threading.Event()
    server.faults = [Fault(close_after=60_000), Fault(wait_for=never)]
    process = start("get", NAME, "--accept-license")
    wait_for_line(process, "the connection was closed after 60000 of 100000 bytes; next attempt in 1 s")
    process.send_signal(signal.SIGINT)
    _output, errors = process.communicate(timeout=60)
    never.set()
    assert process.returncode == 130
    assert "interrupted; what was received is kept" in errors
    server.faults = []
    # The file is not a checkpoint: its conversion fails early.
    assert main(["get", NAME, "--accept-license"]) == 1
    assert server.ranges[-1] == "bytes=60000-"
    assert "not a usable model file" in capsys.readouterr().err


@pytest.mark.parametrize("answer", ["n", "", "later"])
def test_a_refused_licence_downloads_nothing(
    server: FileServer, model_dir: Path, answer: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    assert ask(answer, monkeypatch) == 1
    shown = capsys.readouterr().err
    assert "AV-HuBERT licence (commercial use forbidden)" in shown
    assert "https://github.com/facebookresearch/av_hubert/blob/main/LICENSE" in shown
    assert "the licence was not accepted: nothing was downloaded" in shown
    assert not server.requests
    assert not model_dir.exists()


def test_an_accepted_licence_starts_the_download(
    server: FileServer, model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    assert ask("y", monkeypatch) == 1
    assert "404 Not Found" in capsys.readouterr().err
    assert len(server.requests) == 1


def ask(answer: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run `get` on a terminal whose user types the answer."""
    keyboard, terminal = pty.openpty()
    with os.fdopen(terminal) as stdin:
        os.write(keyboard, f"{answer}\n".encode())
        monkeypatch.setattr(sys, "stdin", stdin)
        code = main(["get", NAME])
    os.close(keyboard)
    return code


def test_a_script_must_accept_the_licence(
    server: FileServer, model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    with Path(os.devnull).open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main(["get", NAME]) == 1
    assert "add --accept-license" in capsys.readouterr().err
    assert not server.requests


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["get", "nope"],
            "unknown model 'nope'; known models: gorggle-mini-1, gorggle-mini-2, moonshine-tiny-en, avhubert-avsr-large-433h",
        ),
        (["remove", "nope"], "unknown model 'nope'; installed: none"),
        (["remove", NAME], f"model '{NAME}' is not installed"),
        (["remove", "gorggle-mini-1"], "is included in Gorggle and cannot be removed"),
        (["get", NAME, "--mirror", "http://mirror.example"], "over https only"),
    ],
)
def test_wrong_requests_are_explained(model_dir: Path, arguments: list[str], message: str, capsys) -> None:
    assert main(arguments) == 1
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors


def test_an_unfinished_download_can_be_removed(model_dir: Path, capsys) -> None:
    assert main(["get", NAME, "--accept-license"]) == 1
    assert (model_dir / ".downloads" / NAME).exists()
    assert main(["remove", NAME]) == 0
    assert not (model_dir / ".downloads" / NAME).exists()


def test_the_embedded_model_needs_no_download(model_dir: Path, capsys) -> None:
    assert main(["get", "gorggle-mini-1"]) == 0
    assert "there is nothing to download" in capsys.readouterr().out


def test_the_list_marks_models_without_an_engine(model_dir: Path, without_whisper: None, capsys) -> None:
    assert main(["list"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "included" in rows["gorggle-mini-1"]
    assert "not installed, needs gorggle[whisper]" in rows["whisper-tiny"]
    assert "not installed " in rows[NAME]
    assert "forbidden" in rows[NAME]


def test_a_server_without_the_package_names_the_commands(
    model_dir: Path, without_whisper: None, capsys
) -> None:
    assert serve(["--listen", "127.0.0.1:0", "--model", "whisper-tiny"]) == 1
    assert (
        "model whisper-tiny needs the engine faster-whisper, which is not installed: pip install 'gorggle[whisper]', then "
        "`gorggle model get whisper-tiny`" in capsys.readouterr().err
    )


def test_an_installed_engine_makes_its_models_servable(model_dir: Path, capsys) -> None:
    pytest.importorskip("faster_whisper", reason="the extra gorggle[whisper] is not installed")
    assert main(["list", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert listed["whisper-tiny"]["servable"]
    assert listed["whisper-tiny"]["state"] == "not installed"
    assert serve(["--listen", "127.0.0.1:0", "--model", "whisper-tiny"]) == 1
    assert "is not installed: run `gorggle model get whisper-tiny`" in capsys.readouterr().err
