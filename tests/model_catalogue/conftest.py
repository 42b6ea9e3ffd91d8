from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.model_catalogue.file_server import FileServer, serve_files


@pytest.fixture
def server() -> Iterator[FileServer]:
    """Serve files on a loopback port."""
    with serve_files() as server:
        yield server
