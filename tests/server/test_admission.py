"""How many live streams are let in."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gorggle_server.admission.controller import AdmissionController, Resource, ResourceLimit
from gorggle_server.admission.cpu_accounting import CpuTimer
from gorggle_server.errors import OverloadedError


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def admit_streams(admission: AdmissionController, stack: contextlib.ExitStack, limit: int = 1000) -> int:
    """Let in as many streams as there is room for."""
    for number in range(limit):
        try:
            stack.enter_context(admission.admit_stream(number))
        except OverloadedError:
            return number
    return limit


def run(admission: AdmissionController, clock: Clock, cost: float, seconds: float = 120.0) -> None:
    """Let every stream take ``cost`` device seconds per second."""
    for _ in range(round(seconds * 10)):
        clock.now_s += 0.1
        for stream in range(admission.live_streams):
            admission.record_device_time(stream, cost * 0.1)


def test_as_many_streams_are_admitted_as_the_estimate_allows(clock: Clock) -> None:
    with contextlib.ExitStack() as places:
        assert admit_streams(AdmissionController(ResourceLimit(0.75, 0.1), clock=clock), places) == 7


def test_measurements_replace_the_estimate(clock: Clock) -> None:
    admission = AdmissionController(ResourceLimit(0.8, 0.4), clock=clock)
    with contextlib.ExitStack() as places:
        assert admit_streams(admission, places) == 2
        run(admission, clock, 0.02)
        assert 0.04 <= admission.get_expected_load(Resource.DEVICE) < 0.16
        assert 10 < 2 + admit_streams(admission, places) <= 40


def test_an_estimate_that_was_too_low_is_corrected(clock: Clock) -> None:
    admission = AdmissionController(ResourceLimit(0.8, 0.01), clock=clock)
    with contextlib.ExitStack() as places:
        for number in range(5):
            places.enter_context(admission.admit_stream(number))
        run(admission, clock, 0.2)
        with pytest.raises(OverloadedError, match="5 live streams") as refused, admission.admit_stream("six"):
            pass
        assert refused.value.retry_after_s > 0


def test_a_released_slot_can_be_acquired(clock: Clock) -> None:
    admission = AdmissionController(ResourceLimit(0.5, 0.25), clock=clock)
    with admission.admit_stream("a"):
        with admission.admit_stream("b"), pytest.raises(OverloadedError), admission.admit_stream("c"):
            pass
        with admission.admit_stream("c"):
            assert admission.live_streams == 2
    assert admission.live_streams == 0
    assert admission.get_expected_load(Resource.DEVICE) == 0


def test_the_first_stream_is_served_however_slow_the_device(clock: Clock) -> None:
    admission = AdmissionController(ResourceLimit(0.5, 3.0), clock=clock)
    with admission.admit_stream("a"), pytest.raises(OverloadedError), admission.admit_stream("b"):
        pass


def test_files_take_nothing_from_live_streams(clock: Clock) -> None:
    admission = AdmissionController(ResourceLimit(0.5, 0.1), clock=clock)
    for _ in range(100):
        clock.now_s += 0.1
        admission.record_device_time("a file", 0.1)
    with contextlib.ExitStack() as places:
        assert admit_streams(admission, places) == 5


def test_a_capacity_of_zero_means_no_limit(clock: Clock) -> None:
    with contextlib.ExitStack() as places:
        assert admit_streams(AdmissionController(ResourceLimit(0.0, 10.0), clock=clock), places) == 1000


def test_streams_are_limited_by_cpu_time_while_the_device_is_idle(clock: Clock) -> None:
    admission = AdmissionController(ResourceLimit(0.7, 0.001), ResourceLimit(1.6, 0.01), clock=clock)
    with contextlib.ExitStack() as places:
        uses = [places.enter_context(admission.admit_stream(number)) for number in range(4)]
        for _ in range(600):
            clock.now_s += 0.1
            for use in uses:
                use._finished_processes_s += 0.03  # each keeps 30 % of a CPU busy
            admission.record_device_time("unknown", 0.0)
        assert admission.get_expected_load(Resource.CPU) == pytest.approx(1.2, abs=0.1)
        places.enter_context(admission.admit_stream("fifth"))
        with pytest.raises(OverloadedError, match="CPU time"), admission.admit_stream("sixth"):
            pass


def test_a_model_on_the_cpu_takes_cpu_time(clock: Clock) -> None:
    admission = AdmissionController(
        ResourceLimit(0.0, 0.0), ResourceLimit(1.6, 0.0), device_cpu_threads=2, clock=clock
    )
    with admission.admit_stream(0):
        run(admission, clock, 0.4, seconds=300)
        assert admission.get_expected_load(Resource.CPU) == pytest.approx(0.8, abs=0.05)


def test_the_learnt_cost_survives_an_idle_hour(clock: Clock) -> None:
    admission = AdmissionController(ResourceLimit(0.8, 0.01), clock=clock)
    with contextlib.ExitStack() as places:
        for number in range(3):
            places.enter_context(admission.admit_stream(number))
        run(admission, clock, 0.25, seconds=300)
    clock.now_s += 3600
    with contextlib.ExitStack() as places:
        assert 3 <= admit_streams(admission, places) <= 4


def test_a_stream_that_has_left_is_charged_for_all_that_it_took(clock: Clock) -> None:
    admission = AdmissionController(ResourceLimit(0.0, 0.0), ResourceLimit(10.0, 0.0), clock=clock)
    with admission.admit_stream("stays"):
        with admission.admit_stream("leaves") as use:
            clock.now_s += 6.0
            use._finished_processes_s = 0.5
        assert admission.get_expected_load(Resource.CPU) > 0


def test_the_first_seconds_of_streams_are_not_measured(clock: Clock) -> None:
    admission = AdmissionController(ResourceLimit(0.71, 0.02), clock=clock)
    with contextlib.ExitStack() as places:
        inside = 0
        for number in range(100):
            clock.now_s += 0.02
            with contextlib.suppress(OverloadedError):
                places.enter_context(admission.admit_stream(number))
                inside += 1
        assert inside == 35


def test_the_cpu_time_of_a_thread_and_of_a_process_is_measured() -> None:
    use = CpuTimer()

    def work() -> None:
        with use.track_current_thread():
            end = time.thread_time() + 0.2
            while time.thread_time() < end:
                pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert 0.2 <= use.total_s < 0.4
    if not Path("/proc/self/stat").exists():
        return
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as process:
        with use.track_process(process.pid):
            assert process.stdout is not None
            process.stdout.readline()
            assert 0.45 <= use.total_s < 1.0
            process.kill()
            process.wait()
        assert 0.45 <= use.total_s < 1.0  # what it took stays counted after its end
    assert 0.2 <= use.thread_s < 0.4


def test_gil_time_is_counted_separately_from_decoder_time(clock: Clock) -> None:
    admission = AdmissionController(
        ResourceLimit(0.0, 0.0), ResourceLimit(16.0, 0.01), gil=ResourceLimit(1.2, 0.01), clock=clock
    )
    with contextlib.ExitStack() as places:
        uses = [places.enter_context(admission.admit_stream(number)) for number in range(5)]
        for _ in range(600):
            clock.now_s += 0.1
            for use in uses:
                use._finished_processes_s += (
                    0.031  # half a CPU each, of which its own thread takes two fifths
                )
                use._finished_threads_s += 0.019
            admission.record_device_time("unknown", 0.0)
        assert admission.get_expected_load(Resource.CPU) == pytest.approx(2.5, abs=0.2)
        places.enter_context(admission.admit_stream("sixth"))
        with (
            pytest.raises(OverloadedError, match="CPU time of one Python process"),
            admission.admit_stream("seventh"),
        ):
            pass
