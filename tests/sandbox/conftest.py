"""Fixtures for tests of decoder processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from gorggle_server.sandbox.pool import DecoderPool
from tests.sandbox.helpers import list_descendants


@pytest.fixture
def pool() -> Iterator[DecoderPool]:
    pool = DecoderPool()
    yield pool
    pool.close()


@pytest.fixture
def list_new_processes() -> Callable[[], set[int]]:
    """Return a function that lists the descendant processes started by this test and not reaped yet."""
    before = list_descendants()
    return lambda: list_descendants() - before
