"""Device scheduler: batching, ordering, fairness, errors, cancellation and shutdown."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest
import torch
from prometheus_client import CollectorRegistry

from gorggle_server.errors import ModelFormatError, NotFoundError, NotReadyError
from gorggle_server.events import Hypothesis
from gorggle_server.inference.interface import DecodingOptions, InferenceInput
from gorggle_server.inference.scheduler import DeviceScheduler
from gorggle_server.inference.scheduler_metrics import SchedulerMetrics
from gorggle_server.recognition_options import Modality
from tests.server import backend_conformance
from tests.server.backend_conformance import BackendConformance, make_window

SEARCH, INTERIM = DecodingOptions(5, 1.0, 0, True), DecodingOptions(1, 1.0, 0, True)
VIDEO = Modality.VIDEO_ONLY


@pytest.fixture(scope="module")
def backend() -> Iterator[DeviceScheduler]:
    scheduler = DeviceScheduler(backend_conformance.create_recognizers(), 0.01, 2000)
    yield scheduler
    scheduler.close()


class TestDeviceScheduler(BackendConformance):
    pass


class SteppedDevice:
    """Fake recognizer that transcribes a window as its number of frames, one decoding step per frame.

    ``gate`` blocks encoding and ``step_gate`` blocks decoding steps. Windows of certain lengths fail: 13 frames in
    ``encode``, 17 frames in ``step``, and 19 frames yield a non-finite result. A batch of more than ``memory``
    windows runs out of memory.
    """

    def __init__(self) -> None:
        self.encoded: list[list[int]] = []
        self.steps: list[list[int]] = []
        self.memory = 1000
        self.released = 0
        self.gate, self.arrived = threading.Event(), threading.Semaphore(0)
        self.step_gate, self.stepped = threading.Event(), threading.Semaphore(0)
        self.step_gate.set()

    def encode(self, windows: Sequence[InferenceInput]) -> list[Any]:
        self.encoded.append([window.frames for window in windows])
        self.arrived.release()
        assert self.gate.wait(10)
        if any(window.frames == 13 for window in windows):
            raise RuntimeError("the device has failed")
        if len(windows) > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [
            ModelFormatError("not finite") if window.frames == 19 else torch.zeros(window.frames)
            for window in windows
        ]

    def start_decoding(self, search: DecodingOptions) -> SteppedDecoding:
        return SteppedDecoding(self)

    def release_memory(self) -> None:
        self.released += 1
        self.memory = 1000


class SteppedDecoding:
    def __init__(self, device: SteppedDevice) -> None:
        self.device = device
        self.remaining: dict[Hashable, tuple[int, int]] = {}

    def add(self, keys: Sequence[Hashable], encoded: Sequence[torch.Tensor]) -> None:
        self.remaining.update({key: (len(one), len(one)) for key, one in zip(keys, encoded, strict=True)})

    def remove(self, key: Hashable) -> None:
        del self.remaining[key]

    def step(self) -> dict[Hashable, list[Hypothesis]]:
        self.device.steps.append(sorted(frames for frames, _ in self.remaining.values()))
        self.device.stepped.release()
        assert self.device.step_gate.wait(10)
        if any(frames == 17 for frames, _ in self.remaining.values()):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        self.remaining = {key: (frames, left - 1) for key, (frames, left) in self.remaining.items()}
        ended = {key: frames for key, (frames, left) in self.remaining.items() if left <= 0}
        for key in ended:
            del self.remaining[key]
        return {key: [Hypothesis(str(frames), 1.0)] for key, frames in ended.items()}


@pytest.fixture
def device() -> SteppedDevice:
    return SteppedDevice()


@pytest.fixture
def metrics() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def scheduler(device: SteppedDevice, metrics: CollectorRegistry) -> Iterator[DeviceScheduler]:
    scheduler = DeviceScheduler({"m": device}, 0.01, 2000, SchedulerMetrics(metrics))  # type: ignore[dict-item]
    yield scheduler
    device.gate.set()
    device.step_gate.set()
    scheduler.close()


def submit(scheduler: DeviceScheduler, frames: int, **options: Any) -> Future[list[Hypothesis]]:
    return scheduler.submit("m", make_window(frames, VIDEO), options.pop("search", SEARCH), **options)


def record_order(futures: dict[str, list[Future[list[Hypothesis]]]]) -> list[str]:
    """Return a list that receives the stream of each window when the window finishes."""
    order: list[str] = []
    for stream, stream_futures in futures.items():
        for future in stream_futures:
            future.add_done_callback(lambda _, stream=stream: order.append(stream))
    return order


def count_drops(metrics: CollectorRegistry) -> dict[str, float | None]:
    name = "gorggle_requests_dropped_total"
    return {cause: metrics.get_sample_value(name, {"cause": cause}) for cause in ("failed", "cancelled")}


def occupy_device(scheduler: DeviceScheduler, device: SteppedDevice) -> Future[list[Hypothesis]]:
    """Keep the device busy with one window so that later windows are queued."""
    future = submit(scheduler, 1, stream="holder")
    assert device.arrived.acquire(timeout=10)
    return future


def test_queued_windows_are_batched(scheduler, device) -> None:
    occupy_device(scheduler, device)
    futures = [submit(scheduler, frames) for frames in (10, 20, 25)]
    device.gate.set()
    assert [future.result(10)[0].text for future in futures] == ["10", "20", "25"]
    assert device.encoded == [[1], [10, 20, 25]]


def test_windows_within_the_batch_delay_are_batched(device) -> None:
    scheduler = DeviceScheduler({"m": device}, 0.5, 2000)  # type: ignore[dict-item]
    device.gate.set()
    futures = [submit(scheduler, 10)]
    time.sleep(0.05)
    futures.append(submit(scheduler, 11))
    for future in futures:
        future.result(10)
    assert device.encoded == [[10, 11]]
    scheduler.close()


def test_windows_with_different_options_are_not_batched(scheduler, device) -> None:
    occupy_device(scheduler, device)
    first = submit(scheduler, 10)
    second = submit(scheduler, 11, search=DecodingOptions(9, 1.0, 0, True))
    device.gate.set()
    first.result(10), second.result(10)
    assert device.encoded[1:] == [[10], [11]]


def test_a_batch_does_not_exceed_the_frame_limit(scheduler, device) -> None:
    occupy_device(scheduler, device)
    futures = [submit(scheduler, 500) for _ in range(5)]
    device.gate.set()
    for future in futures:
        future.result(10)
    assert device.encoded[1:] == [[500] * 4, [500]]


def test_a_batch_is_never_mostly_padding(scheduler, device) -> None:
    occupy_device(scheduler, device)
    futures = [submit(scheduler, frames) for frames in (100, 10, 9, 90)]
    device.gate.set()
    for future in futures:
        future.result(10)
    assert device.encoded[1:] == [[100, 10, 90], [9]]


def test_windows_join_and_leave_a_running_batch_between_steps(scheduler, device) -> None:
    device.gate.set()
    device.step_gate.clear()
    long = submit(scheduler, 60)
    assert device.stepped.acquire(timeout=10)
    short = submit(scheduler, 5)
    time.sleep(0.05)
    device.step_gate.set()
    short.result(10), long.result(10)
    # The later, shorter window joined after the running step.
    assert device.steps == [[60]] + [[5, 60]] * 5 + [[60]] * 54


def test_a_stream_with_many_windows_does_not_starve_another(scheduler, device) -> None:
    occupy_device(scheduler, device)
    flood = [submit(scheduler, 400, stream="flood") for _ in range(20)]
    modest = [submit(scheduler, 400, stream="modest") for _ in range(2)]
    order = record_order({"flood": flood, "modest": modest})
    device.gate.set()
    for future in (*modest, *flood):
        future.result(20)
    # The first batch holds five windows, taken alternately from both streams.
    assert order[:5].count("modest") == 2
    assert order.count("flood") == 20


def test_an_idle_stream_gains_no_scheduling_priority(scheduler, device) -> None:
    device.gate.set()
    for _ in range(10):
        submit(scheduler, 900, stream="busy").result(10)
    device.gate.clear()
    occupy_device(scheduler, device)
    late = [submit(scheduler, 900, stream="new") for _ in range(6)]
    busy = [submit(scheduler, 900, stream="busy") for _ in range(6)]
    order = record_order({"new": late, "busy": busy})
    device.gate.set()
    for future in (*late, *busy):
        future.result(20)
    assert order.index("busy") <= 2


def test_final_windows_are_scheduled_before_interim_windows(scheduler, device) -> None:
    occupy_device(scheduler, device)
    interim = submit(scheduler, 10, search=INTERIM, interim=True)
    final = submit(scheduler, 20)
    device.gate.set()
    interim.result(10), final.result(10)
    assert device.encoded[1:] == [[20], [10]]


def test_interim_decoding_pauses_while_final_windows_wait(device) -> None:
    scheduler = DeviceScheduler({"m": device}, 0.01, 60)  # type: ignore[dict-item]
    device.gate.set()
    device.step_gate.clear()
    interim = submit(scheduler, 40, search=INTERIM, interim=True)
    assert device.stepped.acquire(timeout=10)
    finals = [submit(scheduler, 50, stream=number) for number in range(3)]
    device.step_gate.set()
    for future in (*finals, interim):
        future.result(10)
    # The third window is encoded when the second finishes; then the queue is empty and interim decoding resumes.
    first = device.steps.index([50])
    assert device.steps[first : first + 90].count([50]) >= 85
    scheduler.close()


def test_an_encoding_failure_affects_only_its_own_window(scheduler, device, metrics) -> None:
    occupy_device(scheduler, device)
    futures = {frames: submit(scheduler, frames) for frames in (10, 13, 14)}
    device.gate.set()
    assert futures[10].result(10)[0].text == "10"
    assert futures[14].result(10)[0].text == "14"
    with pytest.raises(RuntimeError, match="the device has failed"):
        futures[13].result(10)
    assert device.encoded[1:] == [[10, 13, 14], [10], [13], [14]]
    assert submit(scheduler, 15).result(10)[0].text == "15"
    assert count_drops(metrics) == {"failed": 1, "cancelled": 0}


def test_a_decoding_failure_affects_only_its_own_window(scheduler, device) -> None:
    occupy_device(scheduler, device)
    futures = {frames: submit(scheduler, frames) for frames in (10, 17, 14)}
    device.gate.set()
    assert futures[10].result(10)[0].text == "10"
    assert futures[14].result(10)[0].text == "14"
    with pytest.raises(RuntimeError, match="illegal memory access"):
        futures[17].result(10)
    assert submit(scheduler, 15).result(10)[0].text == "15"


def test_a_batch_that_runs_out_of_memory_is_retried_one_window_at_a_time(scheduler, device) -> None:
    occupy_device(scheduler, device)
    device.memory = 1
    futures = [submit(scheduler, frames) for frames in (10, 11, 12)]
    device.gate.set()
    assert [future.result(10)[0].text for future in futures] == ["10", "11", "12"]
    assert device.released == 1


def test_a_single_window_that_runs_out_of_memory_is_retried_once(scheduler, device) -> None:
    occupy_device(scheduler, device)
    device.memory = 0
    future = submit(scheduler, 10)
    device.gate.set()
    assert future.result(10)[0].text == "10"
    assert device.encoded == [[1], [1], [10], [10]] or device.released >= 1


def test_non_finite_output_fails_only_its_own_window(scheduler, device) -> None:
    occupy_device(scheduler, device)
    futures = {frames: submit(scheduler, frames) for frames in (10, 19)}
    device.gate.set()
    assert futures[10].result(10)[0].text == "10"
    with pytest.raises(ModelFormatError, match="finite"):
        futures[19].result(10)


def test_a_cancelled_window_is_not_encoded(scheduler, device) -> None:
    occupy_device(scheduler, device)
    cancelled, kept = submit(scheduler, 10), submit(scheduler, 20)
    assert cancelled.cancel()
    device.gate.set()
    kept.result(10)
    assert device.encoded[1:] == [[20]]


def test_a_window_cancelled_during_decoding_leaves_the_batch(scheduler, device, metrics) -> None:
    device.gate.set()
    device.step_gate.clear()
    cancelled = submit(scheduler, 500)
    assert device.stepped.acquire(timeout=10)
    kept = submit(scheduler, 20)
    assert cancelled.cancel()
    device.step_gate.set()
    kept.result(10)
    assert sum(500 in step for step in device.steps) <= 2
    assert count_drops(metrics) == {"failed": 0, "cancelled": 1}


def test_an_unknown_model_is_rejected(scheduler) -> None:
    with pytest.raises(NotFoundError, match="available: m"):
        scheduler.submit("n", make_window(10, VIDEO), SEARCH)


def test_close_cancels_queued_windows(device) -> None:
    scheduler = DeviceScheduler({"m": device}, 0.01, 2000)  # type: ignore[dict-item]
    running = occupy_device(scheduler, device)
    queued = submit(scheduler, 10)
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    time.sleep(0.05)
    device.gate.set()
    closing.join(10)
    with pytest.raises(CancelledError):
        queued.result(10)
    assert running.result(10)[0].text == "1"
    with pytest.raises(NotReadyError):
        submit(scheduler, 10)
