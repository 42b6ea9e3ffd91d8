"""Soak test with well-behaved and misbehaving clients: ``python benchmarks/soak.py --minutes 30 --out soak.json``.

Every 30 s all calls end and the idle server's resource usage is recorded, because leaks are visible only when idle. Usage
after the warm-up is compared with usage at the end.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.client_streams import SCENARIOS, ClientScenarios
from benchmarks.command import DEMO, make_parser
from benchmarks.server_process import ResourceUsage, ServerProcess
from tests.clips import transcode

MIB = 2**20
CLIP_S = 3.0
IDLE_TIMEOUT_S = 60.0  # maximum time for streams to end after their clients have disconnected
# Allowed growth of the idle server; memory grows by fragmentation.
MAX_GROWTH = {"threads": 1, "open_files": 2, "tasks": 1, "children": 0}
MAX_GROWTH_BYTES = 32 * MIB
MAX_STREAMS = 6


@dataclass
class Sample:
    """Resource usage at one moment."""

    at_s: float
    is_idle: bool
    usage: ResourceUsage


@dataclass
class SoakRecord:
    """Samples and outcomes of a run."""

    samples: list[Sample] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)


def soak(server: ServerProcess, options: argparse.Namespace, data: bytes) -> SoakRecord:
    """Alternate between load and idle until the time is up."""
    record, began = SoakRecord(), time.monotonic()
    end = began + options.minutes * 60
    rngs = [random.Random(f"{options.seed}-{number}") for number in range(options.workers)]
    with ThreadPoolExecutor(options.workers) as pool:
        while time.monotonic() < end and server.is_running:
            until = min(end, time.monotonic() + options.cycle_s)
            working = [pool.submit(_work, server.address, data, rng, until, record) for rng in rngs]
            while not all(worker.done() for worker in working):
                record.samples.append(Sample(time.monotonic() - began, False, server.usage()))
                time.sleep(options.sample_s)
            for worker in working:
                worker.result()
            server.wait_until_idle(IDLE_TIMEOUT_S)
            time.sleep(1.0)  # for connections
            record.samples.append(Sample(time.monotonic() - began, True, server.usage()))
    return record


def _work(address: str, data: bytes, rng: random.Random, until: float, record: SoakRecord) -> None:
    calls = ClientScenarios(address, data, rng)
    while time.monotonic() < until:
        scenario = rng.choice(SCENARIOS)
        outcome = scenario(calls)
        with record.lock:
            record.outcomes[f"{scenario.__name__}: {outcome}"] += 1


def summarize(record: SoakRecord, warm_s: float) -> dict[str, Any]:
    """Compare idle resource usage after the warm-up and at the end."""
    resting = [sample for sample in record.samples if sample.is_idle]
    warm = [sample for sample in resting if sample.at_s >= warm_s] or resting[-1:]
    size = max(1, len(warm) // 4)
    grown = {
        kind: statistics.median(getattr(sample.usage, kind) for sample in warm[-size:])
        - statistics.median(getattr(sample.usage, kind) for sample in warm[:size])
        for kind in (*MAX_GROWTH, "private_bytes", "rss_bytes")
    }
    excess = [kind for kind, allowed in MAX_GROWTH.items() if grown[kind] > allowed]
    if grown["private_bytes"] > MAX_GROWTH_BYTES:
        excess.append("private_bytes")
    return {
        "after_warm_up": asdict(warm[0].usage),
        "at_the_end": asdict(warm[-1].usage),
        "grown": grown,
        "excess": excess,
        "idle_samples": len(resting),
        "compared": len(warm),
    }


def plot(record: SoakRecord, warm_s: float, path: Path) -> None:
    """Plot resource usage over time."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(5, 1, sharex=True, figsize=(9, 11), layout="constrained")
    memory = (("private_bytes", "private memory, MiB", MIB), ("rss_bytes", "RSS, MiB", MIB))
    shown = (*memory, ("threads", "threads", 1), ("open_files", "open files", 1))
    for axis, (kind, label, unit) in zip(axes, (*shown, ("tasks", "asyncio tasks", 1)), strict=True):
        for resting, style in ((False, "-"), (True, "o")):
            chosen = [sample for sample in record.samples if sample.is_idle is resting]
            axis.plot(
                [sample.at_s / 60 for sample in chosen],
                [getattr(sample.usage, kind) / unit for sample in chosen],
                style,
                label="idle" if resting else "under load",
                alpha=1.0 if resting else 0.4,
            )
        axis.axvline(warm_s / 60, linestyle=":", color="grey")
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
    axes[0].legend(loc="lower right")
    axes[-1].set_xlabel("minutes")
    figure.savefig(path)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """Run the soak test; return 1 if a resource grew."""
    parser = make_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--warm-up-minutes", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=4, help="concurrent calls")
    parser.add_argument("--cycle-s", type=float, default=30.0, help="duration of load between idle phases")
    parser.add_argument("--sample-s", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, help="PNG file for the plot")
    options = parser.parse_args(arguments)
    warm_s = options.warm_up_minutes * 60
    with tempfile.TemporaryDirectory() as folder:
        data = transcode(DEMO, Path(folder) / "clip.mp4", max_s=CLIP_S).read_bytes()
    limits = ("--max-streams", str(MAX_STREAMS), "--idle-timeout-s", "10", "--decoder-timeout-s", "10")
    with ServerProcess(*limits, log_level="WARNING") as server:
        record = soak(server, options, data)
        metrics = server.metrics()
    report = {
        "minutes": options.minutes,
        "calls": record.outcomes.total(),
        "outcomes": dict(sorted(record.outcomes.items())),
        "server_counted": {name: n for name, n in metrics.items() if "grpc_requests_total" in name},
        **summarize(record, warm_s),
        "samples": [
            {"at_s": round(sample.at_s, 1), "is_idle": sample.is_idle, **asdict(sample.usage)}
            for sample in record.samples
        ],
    }
    if options.out:
        options.out.write_text(json.dumps(report, indent=1))
    if options.plot:
        plot(record, warm_s, options.plot)
    print(json.dumps({name: value for name, value in report.items() if name != "samples"}, indent=1))
    return 1 if report["excess"] else 0


if __name__ == "__main__":
    sys.exit(main())
