"""Fixtures of the decoder processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from inference_server.media.pool import DecoderPool
from tests.media.decoders import children


@pytest.fixture
def pool() -> Iterator[DecoderPool]:
    pool = DecoderPool()
    yield pool
    pool.close()


@pytest.fixture
def born() -> Callable[[], set[int]]:
    """The processes that this one has started in this test and not yet buried."""
    before = children()
    return lambda: children() - before
