"""The machine that figures are taken on: what it is, and what it can at most, which the floors are worked out from."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

# Larger than the caches of most processors: what a core reads of it comes from memory.
READ_BYTES = 256 * 2**20


def describe_machine(threads: int) -> dict[str, Any]:
    """The machine in words and numbers, measured with so many threads."""
    return {
        "processor": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "clock": "processor time" if threads == 1 else "wall time",
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "gflops": measure_gflops(),
        "gigabytes_per_s": measure_gigabytes_per_s(),
    }


def select_clock() -> Callable[[], float]:
    """What to time with: with one thread the processor's time, which other programs lengthen less."""
    return time.thread_time if torch.get_num_threads() == 1 else time.perf_counter


def min_time_s(work: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest of several times."""
    now, best = select_clock(), float("inf")
    for _ in range(repeats):
        began = now()
        work()
        best = min(best, now() - began)
    return best


def measure_gflops() -> float:
    """Operations a second of a large product of matrices, as fast as torch can here; in 10^9."""
    from gorggle_server.avhubert.optimization import PackedLinear

    x, layer = torch.randn(512, 2048), PackedLinear(torch.randn(2048, 2048), None)
    with torch.inference_mode():
        return 2 * 512 * 2048 * 2048 / min_time_s(lambda: layer(x), 10) / 1e9


def measure_gigabytes_per_s() -> float:
    """Bytes a second that are read from memory, in 10^9."""
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
