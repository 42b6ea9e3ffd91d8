"""How many streams a machine carries is found, wherever the border lies. The server is left out: what it carries is told."""

from __future__ import annotations

import argparse
import contextlib
import math
from typing import Any

import pytest

from benchmarks import load

START, MOST = 15, 64


@pytest.mark.parametrize("border", [1, 14, 15, 29, 45, 50, 63, 64, 80])
def test_the_ramp_finds_the_border(monkeypatch: pytest.MonkeyPatch, border: int) -> None:
    tried: list[int] = []

    @contextlib.contextmanager
    def no_server(*_settings: str, **_options: Any) -> Any:
        yield argparse.Namespace(address="")

    def carried(_address: str, _pieces: Any, streams: int, _timeout_s: float) -> int:
        tried.append(streams)
        return streams

    monkeypatch.setattr(load, "ServerProcess", no_server)
    monkeypatch.setattr(load, "run_streams", carried)
    monkeypatch.setattr(load, "cpu_time_s", lambda _server: 0.0)
    monkeypatch.setattr(load, "has_missed_target", lambda streams, _miss_s: streams > border)
    monkeypatch.setattr(load, "summarize", lambda streams, _share: {"streams": streams})
    options = argparse.Namespace(start=START, max_streams=MOST, end=math.inf, miss_s=1.5)
    best, steps = load.find_capacity([], 1.0, options)
    assert best == min(border, MOST)
    assert [step["streams"] for step in steps] == tried[1:]  # the first warms up
    assert len(steps) < 12
