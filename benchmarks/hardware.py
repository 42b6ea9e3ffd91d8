"""The machine of a benchmark: description, and peak rates for roofline estimates."""

from __future__ import annotations

import os
import platform
import time
import timeit
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

T = TypeVar("T")
# Larger than CPU caches, so that reads come from memory.
READ_BYTES = 256 * 2**20


def describe_machine(threads: int) -> dict[str, Any]:
    """Describe the machine, measured with the given number of threads."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "clock": "CPU time" if threads == 1 else "wall time",
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "gflops": measure_gflops(),
        "gigabytes_per_s": measure_gigabytes_per_s(),
    }


def select_clock() -> Callable[[], float]:
    """Return CPU time with one thread, which is less affected by other programs, else wall time."""
    return time.thread_time if torch.get_num_threads() == 1 else time.perf_counter


def min_time_s(work: Callable[[], Any], repeats: int) -> float:
    """Return the minimum time over repetitions, in seconds."""
    return min(timeit.repeat(work, timer=select_clock(), number=1, repeat=repeats))


class StageTimes:
    """Seconds per stage."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._clock = clock

    def measure(self, stage: str, work: Callable[[], T]) -> T:
        """Run work and add its time to a stage."""
        began = self._clock()
        result = work()
        self.seconds[stage] += self._clock() - began
        return result

    @property
    def total(self) -> float:
        """Return the sum over all stages."""
        return sum(self.seconds.values())


def measure_gflops() -> float:
    """Measure torch's peak rate on a large matrix product, in GFLOP/s."""
    from gorggle_server.avhubert.optimization import PackedLinear

    x, layer = torch.randn(512, 2048), PackedLinear(torch.randn(2048, 2048), None)
    with torch.inference_mode():
        return 2 * 512 * 2048 * 2048 / min_time_s(lambda: layer(x), 10) / 1e9


def measure_gigabytes_per_s() -> float:
    """Measure the memory read bandwidth, in GB/s."""
    numbers = torch.ones(READ_BYTES // 4)
    with torch.inference_mode():
        return READ_BYTES / min_time_s(numbers.sum, 5) / 1e9


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if "model name" in line)
    return next(named, platform.processor() or platform.machine())
