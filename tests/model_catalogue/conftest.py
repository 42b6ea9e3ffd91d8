from __future__ import annotations

from collections.abc import Iterator

import pytest

from gorggle_server.model_catalogue import catalogue
from tests.model_catalogue.file_server import FileServer, serve_files


@pytest.fixture
def server() -> Iterator[FileServer]:
    """Serve files on a loopback port."""
    with serve_files() as server:
        yield server


@pytest.fixture
def without_whisper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the packages of the extra ``whisper``."""
    missing = (("no_such_package",), "gorggle[whisper]")
    monkeypatch.setitem(catalogue._OPTIONAL_ENGINES, "faster-whisper", missing)
