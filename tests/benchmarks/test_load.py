"""Capacity search: the maximum number of streams that meets the latency target."""

from __future__ import annotations

import pytest

from benchmarks.load import CapacitySearch

START, MAXIMUM = 15, 64


@pytest.mark.parametrize("capacity", [0, 1, 14, 15, 16, 29, 45, 50, 63, 64, 80])
def test_the_search_finds_the_capacity(capacity: int) -> None:
    search = CapacitySearch(START, MAXIMUM)
    tested_streams: list[int] = []
    while search.next is not None:
        tested_streams.append(search.next)
        search.record(missed=search.next > capacity)
    assert search.best == min(capacity, MAXIMUM)
    assert len(tested_streams) == len(set(tested_streams)) < 12
    assert all(1 <= streams <= MAXIMUM for streams in tested_streams)


def test_the_search_starts_within_the_maximum() -> None:
    assert CapacitySearch(START, 4).next == 4
