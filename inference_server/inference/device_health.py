"""What the GPU does, for Prometheus; and whether it still does anything at all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import torch
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_log = logging.getLogger(__name__)


class GpuCollector(Collector):
    """Memory and utilisation of the CUDA device that the models run on; registered only where there is one."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The values of this moment; what the driver cannot tell is left out."""
        memory = GaugeMetricFamily(
            "gorggle_gpu_memory_bytes",
            "Memory of the GPU: in tensors, kept by torch for more of them, free for anybody, in all",
            labels=["kind"],
        )
        free, total = torch.cuda.mem_get_info()
        memory.add_metric(["tensors"], torch.cuda.memory_allocated())
        memory.add_metric(["reserved"], torch.cuda.memory_reserved())
        memory.add_metric(["free"], free)
        memory.add_metric(["total"], total)
        yield memory
        if (busy := _get_utilization()) is not None:
            yield GaugeMetricFamily(
                "gorggle_gpu_utilisation_ratio",
                "Share of the last second in which the GPU worked",
                value=busy,
            )


def _get_utilization() -> float | None:
    try:
        return torch.cuda.utilization() / 100
    except Exception as error:  # the border to the driver's library, which has a class of errors of its own
        _log.debug("the GPU does not tell how busy it is: %s", error)
        return None


def run_probe_kernel(device: str) -> None:
    """As little as tells whether a device ("cpu" or "cuda") can calculate; raises what torch raises where it cannot."""
    torch.ones(2, device=device).sum().item()


class DeviceHealthCheck:
    """Whether the device still calculates.

    After some CUDA errors every later call of the process fails too, and only a new process helps (CUDA's documentation
    calls them unrecoverable; an illegal memory access is one). So when a reading has failed, something small is calculated
    the next time anybody asks; where that fails as well, the device is lost for good.

    Args:
        device: "cpu" or "cuda".
        probe: for tests: what must succeed.

    Attributes:
        on_lost: called once, on the thread that found out.
    """

    def __init__(self, device: str, probe: Callable[[], object] | None = None) -> None:
        self.on_lost: Callable[[], None] = lambda: None
        self._probe = probe or (lambda: run_probe_kernel(device))
        self._is_suspected = self._is_lost = False

    def mark_suspect(self) -> None:
        """A reading has failed on it."""
        self._is_suspected = True

    @property
    def is_healthy(self) -> bool:
        """Whether it can be used; may calculate, so it is not for the event loop."""
        if self._is_suspected and not self._is_lost:
            self._is_suspected = False
            try:
                self._probe()
            except Exception as error:  # the border to the device
                self._is_lost = True
                _log.error("the device is lost, the server must be started anew: %s", error)
                self.on_lost()
        return not self._is_lost
