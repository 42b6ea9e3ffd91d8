"""A lock between the processes that run tests in parallel."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

BUILD_FOLDER = Path(__file__).resolve().parents[1] / ".build"


@contextlib.contextmanager
def build_folder_lock() -> Iterator[None]:
    """Wait until no other process of the tests uses the packages in ``.build``, and keep others from using them."""
    BUILD_FOLDER.mkdir(exist_ok=True)
    with (BUILD_FOLDER / "tests.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
