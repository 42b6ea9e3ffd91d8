"""Fixtures: a small multilingual model."""

from __future__ import annotations

from pathlib import Path

import pytest

from gorggle_server.whisper import Model, check_folder
from tests.whisper.tiny_model import write_model

pytest.importorskip("faster_whisper", reason="the extra gorggle[whisper] is not installed")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="session")
def model(folder: Path) -> Model:
    return Model(check_folder(folder))
