"""How many real-time streams a machine carries: ``python benchmarks/load.py --kind crops --out load.json``.

Streams are added, each sending the demo clip at the pace of life, until one misses: it ends later than ``--miss-s`` after
its media, or is not served to its end. Then a server with four fifths of the places that were carried is filled, and
called once more again and again: each such call must be refused at once, and those that are served must not feel it.
(At the very border a breath of other work decides how late results are, calls or no calls.)
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
from benchmarks.server_process import ServerProcess
from tests.clips import read_clip

DEMO = Path(__file__).resolve().parents[1] / "examples" / "demo.mp4"
MAX_REFUSAL_S = 0.1
EXTRA_CALL_INTERVAL_S = 0.25
# The streams say the same, and would all ask at once where they began at once: they begin over an utterance and its pause.
STAGGER_S, SPREAD_S = 0.37, 4.0
# Of the places that were carried, those of the server that is called beyond them.
FILL_SHARE = 0.8


def load_chunks(kind: str) -> tuple[list[MediaChunk], float]:
    """The demo clip as messages with their times, and how long it lasts, in seconds."""
    pictures, waveform, rate_hz = read_clip(DEMO)
    duration_s = len(pictures) / 25
    if kind == "video":
        return split_file(DEMO.read_bytes(), duration_s), duration_s
    crops = extract_mouth_crops()
    samples = waveform[:: rate_hz // 16_000].astype("<i2").tobytes()
    return split_crops(crops.tobytes(), samples, len(crops)), len(crops) / 25


def extract_mouth_crops() -> np.ndarray:
    """The clip's mouth, as a client that does the vision itself would cut it: uint8 (T, 96, 96)."""
    from gorggle_server.media.byte_pipe import BytePipe
    from gorggle_server.settings import ServerSettings
    from gorggle_server.streaming.endpointing import FrameSpan
    from gorggle_server.streaming.media_pipeline import create_media_pipeline
    from gorggle_server.types import Modality, RecognitionOptions

    data = DEMO.read_bytes()
    pipe = BytePipe(len(data) + 1)
    pipe.write(data)
    pipe.close()
    options = RecognitionOptions(model="", modality=Modality.AUDIO_VISUAL)
    perception = create_media_pipeline(pipe, options, ServerSettings(), 3600.0)
    for events in perception.steps():
        list(events)
    track = max(perception.buffer.tracks.values(), key=lambda track: track.end - track.start)
    return track.get_crops(FrameSpan(track.start, track.end))


def run_streams(
    address: str, chunks: list[MediaChunk], streams: int, timeout_s: float
) -> list[StreamOutcome]:
    """Run so many streams at once, not quite in step."""

    def one(number: int) -> StreamOutcome:
        time.sleep(number * STAGGER_S % SPREAD_S)
        with open_channel(address) as channel:
            return run_real_time_stream(channel, chunks, timeout_s)

    with ThreadPoolExecutor(streams) as pool:
        return list(pool.map(one, range(streams)))


def summarize(outcomes: list[StreamOutcome], cpu_share: float) -> dict[str, Any]:
    """What a number of streams came to."""
    delays_s = sorted(delay for outcome in outcomes for delay in outcome.final_delays_s)
    return {
        "streams": len(outcomes),
        "statuses": sorted({outcome.code for outcome in outcomes}),
        "finals": len(delays_s),
        "final_delay_p50_s": _quantile(delays_s, 0.5),
        "final_delay_p95_s": _quantile(delays_s, 0.95),
        "behind_at_the_end_s": round(max(outcome.lag_s for outcome in outcomes), 2),
        "client_late_s": round(max(outcome.client_lag_s for outcome in outcomes), 2),
        "server_processors": round(cpu_share, 2),
    }


def has_missed_target(outcomes: list[StreamOutcome], max_lag_s: float) -> bool:
    """Whether one of the streams was not served to its end, or fell behind."""
    return any(outcome.code != "OK" or outcome.lag_s > max_lag_s for outcome in outcomes)


def find_capacity(
    chunks: list[MediaChunk], duration_s: float, options: argparse.Namespace
) -> tuple[int, list[dict[str, Any]]]:
    """Add streams until one misses; how many were carried, and the figures of each step."""
    steps: list[dict[str, Any]] = []
    best, count, step = 0, options.start, options.start
    # Nothing is refused for want of capacity: that is what is to be found.
    with ServerProcess(
        "--max-streams",
        "512",
        "--max-live-device-utilization",
        "0",
        "--max-live-cpu-utilization",
        "0",
        log_level="ERROR",
    ) as server:
        run_streams(server.address, chunks, 1, duration_s * 6)  # what is loaded late is loaded now
        while count <= options.max_streams and (not steps or time.monotonic() < options.end):
            before = cpu_time_s(server), time.monotonic()
            outcomes = run_streams(server.address, chunks, count, duration_s * 6)
            share = (cpu_time_s(server) - before[0]) / (time.monotonic() - before[1])
            missed = has_missed_target(outcomes, options.miss_s)
            steps.append({**summarize(outcomes, share), "missed": missed})
            print(steps[-1], file=sys.stderr, flush=True)
            if not missed:
                best = max(best, count)
                step = step * 2 if not any(found["missed"] for found in steps) else max(1, step // 2)
            else:
                step = max(1, step // 2)
            failed = [found["streams"] for found in steps if found["missed"]]
            count = best + step
            if best < options.max_streams:
                count = min(count, options.max_streams)
            if failed and count >= min(failed):
                if best + 1 >= min(failed):
                    break
                count = (best + min(failed)) // 2
    return best, steps


def measure_overload(chunks: list[MediaChunk], duration_s: float, streams: int) -> dict[str, Any]:
    """Fill a server and keep knocking: how fast it refuses, and whether those inside feel it."""
    limits = (
        "--max-streams",
        str(streams),
        "--max-live-device-utilization",
        "0",
        "--max-live-cpu-utilization",
        "0",
    )
    with ServerProcess(*limits, log_level="ERROR") as server:
        alone = run_streams(server.address, chunks, streams, duration_s * 6)
        refused: list[StreamOutcome] = []
        over = threading.Event()

        def knock() -> None:
            with open_channel(server.address) as channel:
                while not over.wait(EXTRA_CALL_INTERVAL_S):
                    refused.append(run_real_time_stream(channel, chunks[:1], 30))

        # Only while all places are taken.
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
        "places": streams,
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
    """Offer a server more streams than it can carry, with its own judgement of how many those are."""
    with ServerProcess("--max-streams", "512", log_level="ERROR") as server:
        run_streams(server.address, chunks, 1, duration_s * 6)  # what one takes is measured
        outcomes = run_streams(server.address, chunks, streams, duration_s * 6)
    inside = [outcome for outcome in outcomes if outcome.code != "RESOURCE_EXHAUSTED"]
    return {"offered": streams, "refused": streams - len(inside), "admitted": summarize(inside, 0.0)}


def _quantile(ordered: list[float], share: float) -> float | None:
    return round(float(np.quantile(ordered, share)), 3) if ordered else None


def cpu_time_s(server: ServerProcess) -> float:
    """Processor time of the server and of its children, those that have ended included."""
    ticks = 0
    for pid in (server.pid, *server.children):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        # Its own, and those of its children that it has buried.
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def main(arguments: list[str] | None = None) -> int:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kind", choices=["crops", "video"], default="crops")
    parser.add_argument("--start", type=int, default=1, help="streams to begin with")
    parser.add_argument("--max-streams", type=int, default=64, help="more are not tried")
    parser.add_argument(
        "--miss-s", type=float, default=1.5, help="a stream that ends so much after its media has missed"
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="begin no further step after so long")
    parser.add_argument("--places", type=int, help="leave the ramp out: go beyond so many")
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    options = parser.parse_args(arguments)
    pieces, duration_s = load_chunks(options.kind)
    share_filled = 1.0 if options.places else FILL_SHARE
    options.end = time.monotonic() + options.minutes * 60
    best, steps = (options.places, []) if options.places else find_capacity(pieces, duration_s, options)
    report = {
        "kind": options.kind,
        "media_s": duration_s,
        "processors": os.cpu_count(),
        "carried": best,
        "steps": steps,
        "beyond": measure_overload(pieces, duration_s, max(1, int(share_filled * best))) if best else None,
        "by_measured_capacity": measure_admission(pieces, duration_s, best * 2 + 2) if best else None,
        "load_average": statistics.mean(os.getloadavg()),
    }
    text = json.dumps(report, indent=1)
    if options.out:
        options.out.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
