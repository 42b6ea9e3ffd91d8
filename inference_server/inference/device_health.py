"""GPU metrics and device health."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_log = logging.getLogger(__name__)


class GpuCollector(Collector):
    """Exports memory and utilisation of the CUDA device; registered only if there is one."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the current values; those that the driver does not report are left out."""
        memory = GaugeMetricFamily(
            "gorggle_gpu_memory_bytes",
            "GPU memory: allocated to tensors, reserved by torch, free, total",
            labels=["kind"],
        )
        import torch

        free, total = torch.cuda.mem_get_info()
        memory.add_metric(["tensors"], torch.cuda.memory_allocated())
        memory.add_metric(["reserved"], torch.cuda.memory_reserved())
        memory.add_metric(["free"], free)
        memory.add_metric(["total"], total)
        yield memory
        if (busy := _get_utilization()) is not None:
            yield GaugeMetricFamily(
                "gorggle_gpu_utilisation_ratio",
                "Share of the last second in which the GPU was busy",
                value=busy,
            )


def _get_utilization() -> float | None:
    import torch

    try:
        return torch.cuda.utilization() / 100
    except Exception as error:  # boundary to the driver's library, which has its own error classes
        _log.debug("GPU utilisation is not available: %s", error)
        return None


def run_probe_kernel(device: str) -> None:
    """Run a trivial kernel on a GPU; raise torch's error if it is unusable. A CPU ("cpu") always works."""
    if device == "cpu":
        return
    import torch

    torch.ones(2, device=device).sum().item()


class DeviceHealthCheck:
    """Checks whether the device still works.

    After some CUDA errors (CUDA's documentation calls them unrecoverable; an illegal memory access is one) every later call
    of the process fails, and only a new process helps. So after a failed inference the next check runs a trivial kernel; if
    that fails too, the device is lost for good.

    Args:
        device: "cpu" or "cuda".
        probe: for tests: replaces the trivial kernel.

    Attributes:
        on_lost: called once, on the thread that ran the check.
    """

    def __init__(self, device: str, probe: Callable[[], object] | None = None) -> None:
        self.on_lost: Callable[[], None] = lambda: None
        self._probe = probe or (lambda: run_probe_kernel(device))
        self._is_suspected = self._is_lost = False

    def mark_suspect(self) -> None:
        """Record that inference has failed."""
        self._is_suspected = True

    @property
    def is_healthy(self) -> bool:
        """Whether the device can be used. May run a kernel, so it must not be called on the event loop."""
        if self._is_suspected and not self._is_lost:
            self._is_suspected = False
            try:
                self._probe()
            except Exception as error:  # device boundary
                self._is_lost = True
                _log.error("CUDA device failed; restart the server: %s", error)
                self.on_lost()
        return not self._is_lost
