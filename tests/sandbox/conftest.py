"""Fixtures of the decoder processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from gorggle_server.sandbox.pool import DecoderPool
from tests.sandbox.helpers import descendants


@pytest.fixture
def pool() -> Iterator[DecoderPool]:
    pool = DecoderPool()
    yield pool
    pool.close()


@pytest.fixture
def born() -> Callable[[], set[int]]:
    """The processes that this one, or its children, has started in this test and not yet buried."""
    before = descendants()
    return lambda: descendants() - before
