"""Real-time stream capacity of this machine: ``python benchmarks/load.py --kind crops --out load.json``.

Streams of the demo clip are added until one misses the target: it ends more than ``--miss-s`` after its media, or fails.
Then a server limited to 80 % of that capacity is filled and receives extra calls: each must be refused immediately without
affecting the admitted streams. (At full capacity, small disturbances dominate the latency.)
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.client_streams import (
    MediaChunk,
    StreamOutcome,
    open_channel,
    run_real_time_stream,
    split_crops,
    split_file,
)
from benchmarks.command import DEMO, make_parser
from benchmarks.server_process import ServerProcess
from gorggle_server.input_format import SAMPLE_RATE_HZ
from gorggle_server.media.byte_pipe import BytePipe
from gorggle_server.observability.stage_timer import StageTimer
from gorggle_server.recognition_options import Modality, RecognitionOptions
from gorggle_server.settings import ServerSettings
from gorggle_server.streaming.endpointing import FrameSpan
from gorggle_server.streaming.media_pipeline import ContainerPipeline
from tests.clips import read_clip

MAX_REFUSAL_S = 0.1
EXTRA_CALL_INTERVAL_S = 0.25
# Streams of the same clip start staggered, so that their utterances do not end simultaneously.
STAGGER_S, SPREAD_S = 0.37, 4.0
# Share of the capacity for the overload test.
FILL_SHARE = 0.8
NO_ADMISSION_CONTROL = ("--max-live-device-utilization", "0", "--max-live-cpu-utilization", "0")


def load_chunks(kind: str) -> tuple[list[MediaChunk], float]:
    """Return the demo clip as chunks, and its duration in seconds."""
    frames, waveform, rate_hz = read_clip(DEMO)
    duration_s = len(frames) / 25
    if kind == "video":
        return split_file(DEMO.read_bytes(), duration_s), duration_s
    crops = extract_mouth_crops(DEMO.read_bytes(), Modality.AUDIO_VISUAL)
    samples = waveform[:: rate_hz // SAMPLE_RATE_HZ].astype("<i2").tobytes()
    return split_crops(crops.tobytes(), samples, len(crops)), len(crops) / 25


def extract_mouth_crops(data: bytes, modality: Modality, timer: StageTimer | None = None) -> np.ndarray:
    """Return the mouth crops of the only face in a file, as the server cuts them: uint8 (T, 96, 96)."""
    pipe = BytePipe(len(data) + 1)
    pipe.write(data)
    pipe.close()
    options = RecognitionOptions(model="", modality=modality)
    pipeline = ContainerPipeline(pipe, options, ServerSettings(), 3600.0, timer=timer)
    for events in pipeline.steps():
        list(events)
    track = max(pipeline.buffer.tracks.values(), key=lambda track: track.end - track.start)
    return track.get_crops(FrameSpan(track.start, track.end))


def run_streams(
    address: str, chunks: list[MediaChunk], streams: int, timeout_s: float
) -> list[StreamOutcome]:
    """Run the given number of staggered streams."""

    def one(number: int) -> StreamOutcome:
        time.sleep(number * STAGGER_S % SPREAD_S)
        with open_channel(address) as channel:
            return run_real_time_stream(channel, chunks, timeout_s)

    with ThreadPoolExecutor(streams) as pool:
        return list(pool.map(one, range(streams)))


def summarize(outcomes: list[StreamOutcome], cpu_share: float) -> dict[str, Any]:
    """Summarize the outcomes of a number of streams."""
    delays_s = sorted(delay for outcome in outcomes for delay in outcome.final_delays_s)
    return {
        "streams": len(outcomes),
        "statuses": sorted({outcome.code for outcome in outcomes}),
        "finals": len(delays_s),
        "final_delay_p50_s": _quantile(delays_s, 0.5),
        "final_delay_p95_s": _quantile(delays_s, 0.95),
        "lag_s": round(max(outcome.lag_s for outcome in outcomes), 2),
        "client_lag_s": round(max(outcome.client_lag_s for outcome in outcomes), 2),
        "server_cpus": round(cpu_share, 2),
    }


def find_capacity(
    chunks: list[MediaChunk], duration_s: float, options: argparse.Namespace
) -> tuple[int, list[dict[str, Any]]]:
    """Add streams until one misses the target; return the capacity and the figures of each step."""
    steps: list[dict[str, Any]] = []
    # Without admission control, which would hide the capacity.
    with ServerProcess("--max-streams", "512", *NO_ADMISSION_CONTROL, log_level="ERROR") as server:
        run_streams(server.address, chunks, 1, duration_s * 6)  # warm-up
        search = CapacitySearch(options.start, options.max_streams)
        while search.next is not None and (not steps or time.monotonic() < options.end):
            before = cpu_time_s(server), time.monotonic()
            outcomes = run_streams(server.address, chunks, search.next, duration_s * 6)
            cpus = (cpu_time_s(server) - before[0]) / (time.monotonic() - before[1])
            missed = any(outcome.code != "OK" or outcome.lag_s > options.miss_s for outcome in outcomes)
            steps.append({**summarize(outcomes, cpus), "missed": missed})
            print(steps[-1], file=sys.stderr, flush=True)
            search.record(missed)
    return search.best, steps


class CapacitySearch:
    """Searches for the largest number of streams that meets the target: exponential, then binary.

    Attributes:
        best: largest number that met the target, 0 if none did.
        next: number to try next; None when the search is complete.
    """

    def __init__(self, start: int, maximum: int) -> None:
        self.best = 0
        self.next: int | None = min(start, maximum)
        self._step, self._failed = start, maximum + 1

    def record(self, missed: bool) -> None:
        """Record whether the last number missed the target."""
        assert self.next is not None, "the search is complete"
        if missed:
            self._failed = self.next
        else:
            self.best = self.next
            self._step *= 2
        if self.best + 1 == self._failed:
            self.next = None
        elif missed or self._failed <= self.best + self._step:
            self.next = (self.best + self._failed) // 2
        else:
            self.next = self.best + self._step


def measure_overload(chunks: list[MediaChunk], duration_s: float, streams: int) -> dict[str, Any]:
    """Fill a server and send extra calls: measure refusals and the effect on admitted streams."""
    with ServerProcess("--max-streams", str(streams), *NO_ADMISSION_CONTROL, log_level="ERROR") as server:
        alone = run_streams(server.address, chunks, streams, duration_s * 6)
        refused: list[StreamOutcome] = []
        over = threading.Event()

        def knock() -> None:
            with open_channel(server.address) as channel:
                while not over.wait(EXTRA_CALL_INTERVAL_S):
                    refused.append(run_real_time_stream(channel, chunks[:1], 30))

        # Only while all streams are running.
        knocking = threading.Thread(target=knock)
        timer = threading.Timer(SPREAD_S + 1.0, knocking.start)
        timer.start()
        stopping = threading.Timer(duration_s - 1.0, over.set)
        stopping.start()
        crowded = run_streams(server.address, chunks, streams, duration_s * 6)
        over.set()
        knocking.join()
    times_s = sorted(outcome.response_s for outcome in refused if outcome.code == "RESOURCE_EXHAUSTED")
    return {
        "streams": streams,
        "extra_calls": len(refused),
        "refused": len(times_s),
        "refused_p50_s": _quantile(times_s, 0.5),
        "refused_p95_s": _quantile(times_s, 0.95),
        "refused_max_s": round(times_s[-1], 4) if times_s else None,
        "refused_in_time": sum(time_s <= MAX_REFUSAL_S for time_s in times_s),
        "admitted_alone": summarize(alone, 0.0),
        "admitted_crowded": summarize(crowded, 0.0),
    }


def measure_admission(chunks: list[MediaChunk], duration_s: float, streams: int) -> dict[str, Any]:
    """Offer more streams than the capacity, with the server's own admission control."""
    with ServerProcess("--max-streams", "512", log_level="ERROR") as server:
        run_streams(server.address, chunks, 1, duration_s * 6)  # the server measures the cost of a stream
        outcomes = run_streams(server.address, chunks, streams, duration_s * 6)
    inside = [outcome for outcome in outcomes if outcome.code != "RESOURCE_EXHAUSTED"]
    return {"offered": streams, "refused": streams - len(inside), "admitted": summarize(inside, 0.0)}


def _quantile(ordered: list[float], share: float) -> float | None:
    return round(float(np.quantile(ordered, share)), 3) if ordered else None


def cpu_time_s(server: ServerProcess) -> float:
    """Return the CPU time of the server and its subprocesses, exited ones included."""
    ticks = 0
    for pid in (server.pid, *server.children):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        # Its own, and that of reaped children.
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--kind", choices=["crops", "video"], default="crops")
    parser.add_argument("--start", type=int, default=1, help="initial number of streams")
    parser.add_argument("--max-streams", type=int, default=64, help="maximum number of streams")
    parser.add_argument("--miss-s", type=float, default=1.5, help="maximum lag of a stream after its media")
    parser.add_argument("--minutes", type=float, default=30.0, help="start no new step after this time")
    parser.add_argument("--streams", type=int, help="skip the search and use this capacity")
    options = parser.parse_args(arguments)
    pieces, duration_s = load_chunks(options.kind)
    share_filled = 1.0 if options.streams else FILL_SHARE
    options.end = time.monotonic() + options.minutes * 60
    best, steps = (options.streams, []) if options.streams else find_capacity(pieces, duration_s, options)
    report = {
        "kind": options.kind,
        "media_s": duration_s,
        "cores": os.cpu_count(),
        "capacity": best,
        "steps": steps,
        "overload": measure_overload(pieces, duration_s, max(1, int(share_filled * best))) if best else None,
        "admission_control": measure_admission(pieces, duration_s, best * 2 + 2) if best else None,
        "load_average": statistics.mean(os.getloadavg()),
    }
    text = json.dumps(report, indent=1)
    if options.out:
        options.out.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
