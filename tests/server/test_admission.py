"""How many live streams are let in."""

from __future__ import annotations

import contextlib

import pytest

from inference_server.admission import Admission
from inference_server.errors import OverloadedError


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def admitted(admission: Admission, places: contextlib.ExitStack, most: int = 1000) -> int:
    """Let in as many streams as there is room for."""
    for number in range(most):
        try:
            places.enter_context(admission.live_stream(number))
        except OverloadedError:
            return number
    return most


def run(admission: Admission, clock: Clock, cost: float, seconds: float = 120.0) -> None:
    """Every stream takes so much of the device for each second."""
    for _ in range(round(seconds * 10)):
        clock.now_s += 0.1
        for stream in range(admission.live_streams):
            admission.charge(stream, cost * 0.1)


def test_as_many_are_let_in_as_the_estimate_allows(clock: Clock) -> None:
    with contextlib.ExitStack() as places:
        assert admitted(Admission(0.75, 0.1, clock), places) == 7


def test_what_is_measured_replaces_the_estimate(clock: Clock) -> None:
    admission = Admission(0.8, 0.4, clock)
    with contextlib.ExitStack() as places:
        assert admitted(admission, places) == 2
        run(admission, clock, 0.02)
        assert 0.04 <= admission.demand < 0.16
        assert 10 < 2 + admitted(admission, places) <= 40


def test_an_estimate_that_was_too_low_is_corrected(clock: Clock) -> None:
    admission = Admission(0.8, 0.01, clock)
    with contextlib.ExitStack() as places:
        for number in range(5):
            places.enter_context(admission.live_stream(number))
        run(admission, clock, 0.2)
        with pytest.raises(OverloadedError, match="5 live streams") as refused, admission.live_stream("six"):
            pass
        assert refused.value.retry_after_s > 0


def test_a_place_that_was_given_back_can_be_taken(clock: Clock) -> None:
    admission = Admission(0.5, 0.25, clock)
    with admission.live_stream("a"):
        with admission.live_stream("b"), pytest.raises(OverloadedError), admission.live_stream("c"):
            pass
        with admission.live_stream("c"):
            assert admission.live_streams == 2
    assert admission.live_streams == 0
    assert admission.demand == 0


def test_the_first_stream_is_served_however_slow_the_device(clock: Clock) -> None:
    admission = Admission(0.5, 3.0, clock)
    with admission.live_stream("a"), pytest.raises(OverloadedError), admission.live_stream("b"):
        pass


def test_files_take_nothing_from_live_streams(clock: Clock) -> None:
    admission = Admission(0.5, 0.1, clock)
    for _ in range(100):
        clock.now_s += 0.1
        admission.charge("a file", 0.1)
    with contextlib.ExitStack() as places:
        assert admitted(admission, places) == 5


def test_a_capacity_of_zero_is_no_limit(clock: Clock) -> None:
    with contextlib.ExitStack() as places:
        assert admitted(Admission(0.0, 10.0, clock), places) == 1000
