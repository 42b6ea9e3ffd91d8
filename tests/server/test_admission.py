"""Admission control: limits on concurrent live streams."""

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


class FakeClock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def admit_streams(admission: AdmissionController, stack: contextlib.ExitStack, limit: int = 1000) -> int:
    """Admit streams until one is rejected; return the number admitted."""
    for number in range(limit):
        try:
            stack.enter_context(admission.admit_stream(number))
        except OverloadedError:
            return number
    return limit


def simulate_load(
    admission: AdmissionController, clock: FakeClock, cost: float, seconds: float = 120.0
) -> None:
    """Simulate streams that each use ``cost`` seconds of device time per second."""
    for _ in range(round(seconds * 10)):
        clock.now_s += 0.1
        for stream in range(admission.live_streams):
            admission.record_device_time(stream, cost * 0.1)


def test_the_cost_estimate_limits_admitted_streams(clock: FakeClock) -> None:
    with contextlib.ExitStack() as slots:
        assert admit_streams(AdmissionController(ResourceLimit(0.75, 0.1), clock=clock), slots) == 7


def test_measurements_replace_the_estimate(clock: FakeClock) -> None:
    admission = AdmissionController(ResourceLimit(0.8, 0.4), clock=clock)
    with contextlib.ExitStack() as slots:
        assert admit_streams(admission, slots) == 2
        simulate_load(admission, clock, 0.02)
        assert 0.04 <= admission.get_expected_load(Resource.DEVICE) < 0.16
        assert 10 < 2 + admit_streams(admission, slots) <= 40


def test_an_estimate_that_was_too_low_is_corrected(clock: FakeClock) -> None:
    admission = AdmissionController(ResourceLimit(0.8, 0.01), clock=clock)
    with contextlib.ExitStack() as slots:
        for number in range(5):
            slots.enter_context(admission.admit_stream(number))
        simulate_load(admission, clock, 0.2)
        with pytest.raises(OverloadedError, match="5 live streams") as refused, admission.admit_stream("six"):
            pass
        assert refused.value.retry_after_s > 0


def test_a_released_slot_can_be_acquired(clock: FakeClock) -> None:
    admission = AdmissionController(ResourceLimit(0.5, 0.25), clock=clock)
    with admission.admit_stream("a"):
        with admission.admit_stream("b"), pytest.raises(OverloadedError), admission.admit_stream("c"):
            pass
        with admission.admit_stream("c"):
            assert admission.live_streams == 2
    assert admission.live_streams == 0
    assert admission.get_expected_load(Resource.DEVICE) == 0


def test_the_first_stream_is_admitted_even_on_a_slow_device(clock: FakeClock) -> None:
    admission = AdmissionController(ResourceLimit(0.5, 3.0), clock=clock)
    with admission.admit_stream("a"), pytest.raises(OverloadedError), admission.admit_stream("b"):
        pass


def test_file_transcription_does_not_reduce_live_capacity(clock: FakeClock) -> None:
    admission = AdmissionController(ResourceLimit(0.5, 0.1), clock=clock)
    for _ in range(100):
        clock.now_s += 0.1
        admission.record_device_time("a file", 0.1)
    with contextlib.ExitStack() as slots:
        assert admit_streams(admission, slots) == 5


def test_a_capacity_of_zero_means_no_limit(clock: FakeClock) -> None:
    with contextlib.ExitStack() as slots:
        assert admit_streams(AdmissionController(ResourceLimit(0.0, 10.0), clock=clock), slots) == 1000


def test_streams_are_limited_by_cpu_time_while_the_device_is_idle(clock: FakeClock) -> None:
    admission = AdmissionController(ResourceLimit(0.7, 0.001), ResourceLimit(1.6, 0.01), clock=clock)
    with contextlib.ExitStack() as slots:
        timers = [slots.enter_context(admission.admit_stream(number)) for number in range(4)]
        for _ in range(600):
            clock.now_s += 0.1
            for timer in timers:
                timer._finished_processes_s += 0.03  # each stream uses 30 % of a CPU
            admission.record_device_time("unknown", 0.0)
        assert admission.get_expected_load(Resource.CPU) == pytest.approx(1.2, abs=0.1)
        slots.enter_context(admission.admit_stream("fifth"))
        with pytest.raises(OverloadedError, match="CPU time"), admission.admit_stream("sixth"):
            pass


def test_cpu_inference_counts_towards_the_cpu_limit(clock: FakeClock) -> None:
    admission = AdmissionController(
        ResourceLimit(0.0, 0.0), ResourceLimit(1.6, 0.0), device_cpu_threads=2, clock=clock
    )
    with admission.admit_stream(0):
        simulate_load(admission, clock, 0.4, seconds=300)
        assert admission.get_expected_load(Resource.CPU) == pytest.approx(0.8, abs=0.05)


def test_the_measured_cost_is_kept_during_an_idle_hour(clock: FakeClock) -> None:
    admission = AdmissionController(ResourceLimit(0.8, 0.01), clock=clock)
    with contextlib.ExitStack() as slots:
        for number in range(3):
            slots.enter_context(admission.admit_stream(number))
        simulate_load(admission, clock, 0.25, seconds=300)
    clock.now_s += 3600
    with contextlib.ExitStack() as slots:
        assert 3 <= admit_streams(admission, slots) <= 4


def test_cpu_time_of_a_finished_stream_is_counted(clock: FakeClock) -> None:
    admission = AdmissionController(ResourceLimit(0.0, 0.0), ResourceLimit(10.0, 0.0), clock=clock)
    with admission.admit_stream("continuing"):
        with admission.admit_stream("finished") as timer:
            clock.now_s += 6.0
            timer._finished_processes_s = 0.5
        assert admission.get_expected_load(Resource.CPU) > 0


def test_warm_up_time_of_streams_is_not_measured(clock: FakeClock) -> None:
    admission = AdmissionController(ResourceLimit(0.71, 0.02), clock=clock)
    with contextlib.ExitStack() as slots:
        admitted = 0
        for number in range(100):
            clock.now_s += 0.02
            with contextlib.suppress(OverloadedError):
                slots.enter_context(admission.admit_stream(number))
                admitted += 1
        assert admitted == 35


def test_cpu_time_of_threads_and_processes_is_measured() -> None:
    timer = CpuTimer()

    def use_cpu() -> None:
        with timer.track_current_thread():
            end = time.thread_time() + 0.2
            while time.thread_time() < end:
                pass

    thread = threading.Thread(target=use_cpu)
    thread.start()
    thread.join()
    assert 0.2 <= timer.total_s < 0.4
    if not Path("/proc/self/stat").exists():
        return
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as process:
        with timer.track_process(process.pid):
            assert process.stdout is not None
            process.stdout.readline()
            assert 0.45 <= timer.total_s < 1.0
            process.kill()
            process.wait()
        assert 0.45 <= timer.total_s < 1.0  # CPU time of the process is still counted after its exit
    assert 0.2 <= timer.thread_s < 0.4


def test_gil_time_is_counted_separately_from_decoder_time(clock: FakeClock) -> None:
    admission = AdmissionController(
        ResourceLimit(0.0, 0.0), ResourceLimit(16.0, 0.01), gil=ResourceLimit(1.2, 0.01), clock=clock
    )
    with contextlib.ExitStack() as slots:
        timers = [slots.enter_context(admission.admit_stream(number)) for number in range(5)]
        for _ in range(600):
            clock.now_s += 0.1
            for timer in timers:
                # Each stream uses half a CPU: 31 % in its decoder process, 19 % in its thread.
                timer._finished_processes_s += 0.031
                timer._finished_threads_s += 0.019
            admission.record_device_time("unknown", 0.0)
        assert admission.get_expected_load(Resource.CPU) == pytest.approx(2.5, abs=0.2)
        slots.enter_context(admission.admit_stream("sixth"))
        with (
            pytest.raises(OverloadedError, match="CPU time of one Python process"),
            admission.admit_stream("seventh"),
        ):
            pass
