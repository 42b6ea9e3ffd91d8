"""The device's thread: batches, order, fairness, errors, cancellation, its end."""

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
from gorggle_server.inference.recognizer import DecodingOptions, InferenceInput
from gorggle_server.inference.scheduler import DeviceScheduler
from gorggle_server.inference.scheduler_metrics import SchedulerMetrics
from gorggle_server.recognition_options import Modality
from tests.server import backend_conformance
from tests.server.backend_conformance import BackendConformance, make_window

SEARCH, INTERIM = DecodingOptions(5, 1.0, 0, True), DecodingOptions(1, 1.0, 0, True)
VIDEO = Modality.VIDEO_ONLY


@pytest.fixture(scope="module")
def backend() -> Iterator[DeviceScheduler]:
    scheduler = DeviceScheduler(
        {backend_conformance.MODEL: backend_conformance.golden_recognizer()}, 0.01, 2000
    )
    yield scheduler
    scheduler.close()


class TestDeviceScheduler(BackendConformance):
    pass


class SteppedDevice:
    """Reads a window as its length; waits at a gate before it encodes; needs as many steps as the window has frames.

    It fails to encode windows of 13 frames, and a step with a window of 17 in it; it lacks memory for more than
    ``memory`` windows at a time; windows of 19 frames give no finite numbers.
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
        self.left: dict[Hashable, tuple[int, int]] = {}

    def add(self, keys: Sequence[Hashable], encoded: Sequence[torch.Tensor]) -> None:
        self.left.update({key: (len(one), len(one)) for key, one in zip(keys, encoded, strict=True)})

    def remove(self, key: Hashable) -> None:
        del self.left[key]

    def step(self) -> dict[Hashable, list[Hypothesis]]:
        self.device.steps.append(sorted(frames for frames, _ in self.left.values()))
        self.device.stepped.release()
        assert self.device.step_gate.wait(10)
        if any(frames == 17 for frames, _ in self.left.values()):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        self.left = {key: (frames, left - 1) for key, (frames, left) in self.left.items()}
        ended = {key: frames for key, (frames, left) in self.left.items() if left <= 0}
        for key in ended:
            del self.left[key]
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
    """Streams in the order in which their windows finish; the list grows while they do."""
    order: list[str] = []
    for stream, some in futures.items():
        for future in some:
            future.add_done_callback(lambda _, stream=stream: order.append(stream))
    return order


def count_drops(metrics: CollectorRegistry) -> dict[str, float | None]:
    name = "gorggle_requests_dropped_total"
    return {cause: metrics.get_sample_value(name, {"cause": cause}) for cause in ("failed", "cancelled")}


def occupy_device(scheduler: DeviceScheduler, device: SteppedDevice) -> Future[list[Hypothesis]]:
    """Keep the device busy with a window, so that what follows has to wait."""
    future = submit(scheduler, 1, stream="holder")
    assert device.arrived.acquire(timeout=10)
    return future


def test_windows_that_wait_together_are_batched(scheduler, device) -> None:
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
    one = submit(scheduler, 10)
    other = submit(scheduler, 11, search=DecodingOptions(9, 1.0, 0, True))
    device.gate.set()
    one.result(10), other.result(10)
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
    # The one that came later and is shorter waited for no more than the step at hand.
    assert device.steps == [[60]] + [[5, 60]] * 5 + [[60]] * 54


def test_a_stream_with_many_windows_does_not_starve_another(scheduler, device) -> None:
    occupy_device(scheduler, device)
    flood = [submit(scheduler, 400, stream="flood") for _ in range(20)]
    modest = [submit(scheduler, 400, stream="modest") for _ in range(2)]
    order = record_order({"flood": flood, "modest": modest})
    device.gate.set()
    for future in (*modest, *flood):
        future.result(20)
    assert (
        order[:5].count("modest") == 2
    )  # the first batch holds five: every other window was the modest stream's
    assert order.count("flood") == 20


def test_an_idle_stream_does_not_accumulate_credit(scheduler, device) -> None:
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


def test_interim_work_yields_to_final_work(scheduler, device) -> None:
    occupy_device(scheduler, device)
    interim = submit(scheduler, 10, search=INTERIM, interim=True)
    final = submit(scheduler, 20)
    device.gate.set()
    interim.result(10), final.result(10)
    assert device.encoded[1:] == [[20], [10]]


def test_interim_searches_pause_while_final_work_waits(device) -> None:
    scheduler = DeviceScheduler({"m": device}, 0.01, 60)  # type: ignore[dict-item]
    device.gate.set()
    device.step_gate.clear()
    interim = submit(scheduler, 40, search=INTERIM, interim=True)
    assert device.stepped.acquire(timeout=10)
    finals = [submit(scheduler, 50, stream=number) for number in range(3)]
    device.step_gate.set()
    for future in (*finals, interim):
        future.result(10)
    # The third is encoded when the second leaves; from then on nothing waits, and interim work continues.
    first = device.steps.index([50])
    until = len(device.steps) - 1 - device.steps[::-1].index([50])
    assert device.steps[first:until].count([40]) <= 60
    assert device.steps[first : first + 90].count([50]) >= 85
    scheduler.close()


def test_a_window_that_fails_in_a_batch_fails_alone(scheduler, device, metrics) -> None:
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


def test_a_window_that_fails_in_a_step_fails_alone(scheduler, device) -> None:
    occupy_device(scheduler, device)
    futures = {frames: submit(scheduler, frames) for frames in (10, 17, 14)}
    device.gate.set()
    assert futures[10].result(10)[0].text == "10"
    assert futures[14].result(10)[0].text == "14"
    with pytest.raises(RuntimeError, match="illegal memory access"):
        futures[17].result(10)
    assert submit(scheduler, 15).result(10)[0].text == "15"


def test_a_batch_without_memory_is_retried_one_by_one(scheduler, device) -> None:
    occupy_device(scheduler, device)
    device.memory = 1
    futures = [submit(scheduler, frames) for frames in (10, 11, 12)]
    device.gate.set()
    assert [future.result(10)[0].text for future in futures] == ["10", "11", "12"]
    assert device.released == 1


def test_a_single_window_that_finds_no_memory_is_tried_once_more(scheduler, device) -> None:
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


def test_a_cancelled_window_is_not_read(scheduler, device) -> None:
    occupy_device(scheduler, device)
    cancelled, kept = submit(scheduler, 10), submit(scheduler, 20)
    assert cancelled.cancel()
    device.gate.set()
    kept.result(10)
    assert device.encoded[1:] == [[20]]


def test_a_window_cancelled_during_its_search_leaves_the_batch_at_once(scheduler, device, metrics) -> None:
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


def test_an_unknown_model_is_refused(scheduler) -> None:
    with pytest.raises(NotFoundError, match="available: m"):
        scheduler.submit("n", make_window(10, VIDEO), SEARCH)


def test_pending_futures_are_cancelled_when_the_scheduler_ends(device) -> None:
    scheduler = DeviceScheduler({"m": device}, 0.01, 2000)  # type: ignore[dict-item]
    being_read = occupy_device(scheduler, device)
    waiting = submit(scheduler, 10)
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    time.sleep(0.05)
    device.gate.set()
    closing.join(10)
    with pytest.raises(CancelledError):
        waiting.result(10)
    assert being_read.result(10)[0].text == "1"
    with pytest.raises(NotReadyError):
        submit(scheduler, 10)
