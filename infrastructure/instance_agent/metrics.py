"""Metrics of the instance and its server, for scaling and alarms."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PERCENT = "Percent"
# Metrics of the server: finished requests, and histograms that are published as means of the last minute.
REQUESTS_METRIC = "gorggle_grpc_requests_total"
START_TIME_METRIC = "process_start_time_seconds"
MEAN_METRICS = (
    ("RequestTime", "gorggle_grpc_request_duration_seconds", "Seconds"),
    ("RealTimeFactor", "gorggle_real_time_factor", "None"),
)
_LINE = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)$")


def parse_metrics(page: str | None) -> dict[str, float]:
    """Parse the server's ``/metrics``: values by name and labels; empty without a page."""
    values = {}
    for line in (page or "").splitlines():
        if match := _LINE.match(line):
            labels = f"{{{match['labels']}}}" if match["labels"] else ""
            values[match["name"] + labels] = float(match["value"])
    return values


class CpuUsage:
    """CPU utilization between two calls."""

    def __init__(self, source: Path = Path("/proc/stat")) -> None:
        self._source = source
        self._last = self._read_times()

    def _read_times(self) -> tuple[float, float]:
        fields = [float(each) for each in self._source.read_text().split("\n", 1)[0].split()[1:]]
        idle = fields[3] + fields[4]
        return sum(fields), idle

    def busy_percent(self) -> float:
        """Return the utilization since the last call; 0 if no time has passed."""
        now, before = self._read_times(), self._last
        self._last = now
        passed = now[0] - before[0]
        return 100.0 * (1 - (now[1] - before[1]) / passed) if passed > 0 else 0.0


class RequestCounters:
    """Increases of the server's counters between two calls."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def compute_deltas(self, server: Mapping[str, float]) -> Iterator[tuple[str, float, str]]:
        """Yield name, value and unit; no means without new requests."""
        if server.get(START_TIME_METRIC) != self._last.get(START_TIME_METRIC):
            # A restarted server counts from zero.
            self._last = {}
        ended = {name: value for name, value in server.items() if name.startswith(REQUESTS_METRIC)}
        yield "Requests", sum(self._delta(name, value) for name, value in ended.items()), "Count"
        for metric, name, unit in MEAN_METRICS:
            total, count = (self._delta_sum(server, f"{name}_{part}") for part in ("sum", "count"))
            if count > 0:
                yield metric, total / count, unit
        self._last = dict(server)

    def _delta_sum(self, server: Mapping[str, float], name: str) -> float:
        parts = (each for each in server if each.partition("{")[0] == name)
        return sum(self._delta(each, server[each]) for each in parts)

    def _delta(self, name: str, value: float) -> float:
        return value - self._last.get(name, 0.0)


def memory_percent(source: Path = Path("/proc/meminfo")) -> float:
    """Return the memory utilization."""
    fields = dict(re.findall(r"^(\w+):\s+(\d+)", source.read_text(), re.MULTILINE))
    return 100.0 * (1 - int(fields["MemAvailable"]) / int(fields["MemTotal"]))


def disk_percent(path: str = "/") -> float:
    """Return the disk utilization."""
    usage = shutil.disk_usage(path)
    return 100.0 * usage.used / usage.total


def build_metric_data(
    page: str | None, cpu: CpuUsage, fleet: str, request_counters: RequestCounters | None = None
) -> list[dict[str, Any]]:
    """Return the data for PutMetricData, with the fleet as dimension.

    ``Streams`` is always present, with 0 while the server starts; the alarm for an idle fleet depends on it.
    """
    server = parse_metrics(page)
    dimensions = [{"Name": "AutoScalingGroupName", "Value": fleet}]
    values = [("Streams", server.get("gorggle_active_streams", 0.0), "Count")]
    if page is not None and request_counters is not None:
        values += request_counters.compute_deltas(server)
    values += [(name, value, PERCENT) for name, value in _gpu_utilization(server)]
    values += [
        ("CpuUtilization", cpu.busy_percent(), PERCENT),
        ("MemoryUtilization", memory_percent(), PERCENT),
        ("DiskUtilization", disk_percent(), PERCENT),
    ]
    return [
        {"MetricName": name, "Value": value, "Unit": unit, "Dimensions": dimensions}
        for name, value, unit in values
    ]


def _gpu_utilization(server: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    memory = {kind: server.get(f'gorggle_gpu_memory_bytes{{kind="{kind}"}}') for kind in ("free", "total")}
    if memory["total"] and memory["free"] is not None:
        yield "GpuMemoryUtilization", 100.0 * (1 - memory["free"] / memory["total"])
    if (busy := server.get("gorggle_gpu_utilisation_ratio")) is not None:
        yield "GpuUtilization", 100.0 * busy
