"""The device's thread: batches, order, errors, cancellation, its end."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError

import numpy as np
import pytest

from inference_server.errors import NotFoundError, NotReadyError
from inference_server.recognizer import SearchOptions, Window
from inference_server.scheduler import DeviceScheduler
from inference_server.transcript import Reading

SEARCH = SearchOptions(5, 1.0, 0, True)


def window(frames: int) -> Window:
    return Window(np.zeros((frames, 96, 96), np.uint8), None)


class GatedRecognizer:
    """Reads a window as its length; waits at a gate before each batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.arrived = threading.Semaphore(0)

    def read(self, windows: Sequence[Window], search: SearchOptions) -> list[list[Reading]]:
        self.batches.append([window.frames for window in windows])
        self.arrived.release()
        assert self.gate.wait(10)
        if any(window.frames == 13 for window in windows):
            raise RuntimeError("the device has failed")
        return [[Reading(str(window.frames), 1.0)] for window in windows]


@pytest.fixture
def recognizer() -> GatedRecognizer:
    return GatedRecognizer()


@pytest.fixture
def scheduler(recognizer: GatedRecognizer) -> Iterator[DeviceScheduler]:
    scheduler = DeviceScheduler({"m": recognizer})  # type: ignore[dict-item]
    yield scheduler
    recognizer.gate.set()
    scheduler.close()


def held(scheduler: DeviceScheduler, recognizer: GatedRecognizer) -> None:
    """Keep the device busy with a window, so that what follows has to wait."""
    scheduler.submit("m", window(1), SEARCH)
    assert recognizer.arrived.acquire(timeout=10)


def test_windows_that_wait_together_are_read_together(scheduler, recognizer) -> None:
    held(scheduler, recognizer)
    futures = [scheduler.submit("m", window(frames), SEARCH) for frames in (10, 20, 30)]
    recognizer.gate.set()
    assert [future.result(10)[0].text for future in futures] == ["10", "20", "30"]
    assert recognizer.batches == [[1], [10, 20, 30]]


def test_windows_read_differently_are_not_batched(scheduler, recognizer) -> None:
    held(scheduler, recognizer)
    one = scheduler.submit("m", window(10), SEARCH)
    other = scheduler.submit("m", window(11), SearchOptions(9, 1.0, 0, True))
    recognizer.gate.set()
    one.result(10), other.result(10)
    assert recognizer.batches[1:] == [[10], [11]]


def test_a_batch_is_no_larger_than_the_device_takes(scheduler, recognizer) -> None:
    held(scheduler, recognizer)
    futures = [scheduler.submit("m", window(500), SEARCH) for _ in range(5)]
    recognizer.gate.set()
    for future in futures:
        future.result(10)
    assert recognizer.batches[1:] == [[500] * 4, [500]]


def test_interim_work_yields_to_final_work(scheduler, recognizer) -> None:
    held(scheduler, recognizer)
    interim = scheduler.submit("m", window(10), SearchOptions(1, 1.0, 0, True), interim=True)
    final = scheduler.submit("m", window(20), SEARCH)
    recognizer.gate.set()
    interim.result(10), final.result(10)
    assert recognizer.batches[1:] == [[20], [10]]


def test_a_failed_batch_fails_its_callers_and_no_others(scheduler, recognizer) -> None:
    recognizer.gate.set()
    with pytest.raises(RuntimeError, match="device"):
        scheduler.submit("m", window(13), SEARCH).result(10)
    assert scheduler.submit("m", window(14), SEARCH).result(10)[0].text == "14"


def test_a_cancelled_window_is_not_read(scheduler, recognizer) -> None:
    held(scheduler, recognizer)
    cancelled, kept = scheduler.submit("m", window(10), SEARCH), scheduler.submit("m", window(20), SEARCH)
    assert cancelled.cancel()
    recognizer.gate.set()
    kept.result(10)
    assert recognizer.batches[1:] == [[20]]


def test_an_unknown_model_is_refused(scheduler) -> None:
    with pytest.raises(NotFoundError, match="there are: m"):
        scheduler.submit("n", window(10), SEARCH)


def test_nobody_waits_for_a_scheduler_that_has_ended(recognizer) -> None:
    scheduler = DeviceScheduler({"m": recognizer})  # type: ignore[dict-item]
    held(scheduler, recognizer)
    waiting = scheduler.submit("m", window(10), SEARCH)
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    recognizer.gate.set()
    closing.join(10)
    with pytest.raises(CancelledError):
        waiting.result(10)
    with pytest.raises(NotReadyError):
        scheduler.submit("m", window(10), SEARCH)
