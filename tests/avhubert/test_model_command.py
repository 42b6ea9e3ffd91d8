"""The commands `gorggle model convert` and `gorggle model info`."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from gorggle_server.avhubert import info, load_model
from gorggle_server.avhubert.__main__ import main
from gorggle_server.avhubert.checkpoints.model_card import validate_card
from gorggle_server.errors import ModelFormatError


def test_convert_and_info_report_the_model_and_its_license(full_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "converted.safetensors"
    command = [sys.executable, "-m", "gorggle", "model"]
    converted = subprocess.run(
        [*command, "convert", full_checkpoint, out], capture_output=True, text=True, check=True
    )
    assert "commercial use forbidden" in converted.stdout
    described = subprocess.run([*command, "info", out, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(described.stdout) == json.loads(json.dumps(info(out)))


def test_convert_stores_the_given_model_card(full_checkpoint: Path, tmp_path: Path, capsys) -> None:
    card = {"name": "mine", "license": {"name": "MIT", "commercial_use": True}}
    (tmp_path / "card.json").write_text(json.dumps(card))
    out = tmp_path / "mine.safetensors"
    arguments = ["convert", str(full_checkpoint), str(out), "--card", str(tmp_path / "card.json")]
    assert main([*arguments, "--dtype", "bfloat16"]) == 0
    assert load_model(out).card == card
    assert set(info(out)["dtypes"]) == {"bfloat16"}
    assert "MIT (commercial use permitted)" in capsys.readouterr().out


def test_an_existing_file_is_kept_unless_forced(full_checkpoint: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "there.safetensors"
    out.write_text("existing content")
    assert main(["convert", str(full_checkpoint), str(out)]) == 1
    assert "use --force" in capsys.readouterr().err
    assert out.read_text() == "existing content"
    assert main(["convert", str(full_checkpoint), str(out), "--force"]) == 0


def test_a_full_disk_is_reported_and_leaves_no_file(full_checkpoint: Path, tmp_path: Path, capsys) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        assert main(["convert", str(full_checkpoint), str(tmp_path / "out.safetensors")]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "out.safetensors cannot be written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "missing.pt"], "model file missing.pt does not exist"),
        (["info", "text.pt"], "text.pt is not a usable model file"),
        (["convert", "text.pt", "out.bin"], "must end in .safetensors"),
        (["convert", "text.pt", "nowhere/out.safetensors"], "folder nowhere does not exist"),
        (["convert", "text.pt", "out.safetensors", "--card", "text.pt"], "cannot be parsed as JSON"),
        (["convert", "text.pt", "out.safetensors", "--card", "list.json"], "must be a JSON object"),
    ],
)
def test_usage_errors_are_reported_in_one_line(
    arguments, message, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.pt").write_text("not a model")
    Path("list.json").write_text("[1]")
    assert main(arguments) == 1
    stderr = capsys.readouterr().err
    assert message in stderr
    assert stderr.count("\n") == 1


@pytest.mark.parametrize(
    "card",
    [
        {"name": 3},
        {"languages": "en"},
        {"modalities": [1]},
        {"license": "Apache-2.0"},
        {"license": {"commercial_use": "yes"}},
        {"error_rates": {"video": 0.5}},
        {"error_rates": [{"word_error_rate_percent": "low"}]},
        {"error_rates": [{"word_error_rate_percent": float("nan")}]},
        {"confidence_calibration": {"lips": {"slope": 1.0, "offset": 0.0}}},
        {"confidence_calibration": {"video": {"slope": 1.0}}},
        {"confidence_calibration": {"video": {"slope": 1.0, "offset": float("inf")}}},
        {"confidence_calibration": {"video": 1.0}},
    ],
)
def test_a_model_card_with_wrong_types_is_rejected(card) -> None:
    with pytest.raises(ModelFormatError, match="card"):
        validate_card(card)
