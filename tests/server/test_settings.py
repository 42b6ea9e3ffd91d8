"""Server settings: validation, environment variables and documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from gorggle_server.__main__ import main
from gorggle_server.settings import ServerSettings

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:50051", "localhost:1", "127.9.9.9:50051"])
def test_loopback_does_not_require_tls(listen: str) -> None:
    assert ServerSettings(listen=listen).listen == listen


@pytest.mark.parametrize("listen", ["0.0.0.0:50051", "[::]:50051", "10.1.2.3:50051", "server.example:50051"])
def test_other_addresses_require_tls_and_client_certificates(listen: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="is reachable from other machines"):
        ServerSettings(listen=listen)
    files = {"tls_certificate": tmp_path / "c.pem", "tls_key": tmp_path / "k.pem"}
    with pytest.raises(ValidationError, match="is reachable from other machines"):
        ServerSettings(listen=listen, **files)
    assert ServerSettings(listen=listen, **files, tls_client_ca=tmp_path / "ca.pem")
    assert ServerSettings(listen=listen, allow_insecure=True)


@pytest.mark.parametrize("listen", ["", "50051", "host", "host:", "host:port", "host:70000", ":50051"])
def test_an_invalid_listen_address_is_rejected(listen: str) -> None:
    with pytest.raises(ValidationError, match="HOST:PORT"):
        ServerSettings(listen=listen)


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GORGGLE_MAX_STREAMS", "3")
    monkeypatch.setenv("GORGGLE_MODELS", '{"large": "/models/large.safetensors"}')
    settings = ServerSettings()
    assert settings.max_streams == 3
    assert settings.models == {"large": "/models/large.safetensors"}


def test_the_documentation_lists_every_setting() -> None:
    manual = (ROOT / "docs" / "operations.md").read_text()
    table = dict(re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", manual, re.MULTILINE))
    documented = {name for cell in table for name in re.findall(r"`(\w+)`", cell)}
    assert documented >= set(ServerSettings.model_fields)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--listen", "0.0.0.0:1"], "is reachable from other machines"),
        (["--max-streams", "0"], "max_streams"),
        (["--max-streams", "many"], "max_streams"),
        (["--device", "tpu"], "device"),
    ],
)
def test_invalid_settings_are_reported_in_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    reported = capsys.readouterr().err
    assert reported.startswith("gorggle serve: ")
    assert words in reported
    assert len(reported.splitlines()) == 1


def test_the_file_of_dlib_is_refused_with_another_landmark_model(tmp_path: Path) -> None:
    path = tmp_path / "mine.dat"
    assert ServerSettings(landmark_model_path=path).get_landmark_model().path == path
    with pytest.raises(ValidationError, match=r"mine\.dat, a file for dlib, but landmark_model is mediapipe"):
        ServerSettings(landmark_model="mediapipe", landmark_model_path=path)


def test_an_unknown_landmark_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--landmark-model", "openpose"]) == 2
    assert "landmark_model: Input should be 'dlib' or 'mediapipe'" in capsys.readouterr().err
