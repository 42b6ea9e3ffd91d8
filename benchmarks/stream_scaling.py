"""Cost of n concurrent streams: ``python -m benchmarks.stream_scaling --streams 1,2,4,8,16``.

A server transcribes the demo clip n times concurrently, sent at full speed. Reported are the wall time until all are done
and the CPU time of the server and its decoders; neither may grow per stream. Every round runs all stream counts, and the
minimum over rounds counts, so that other load affects all counts alike.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.client_streams import Request, Stub, config_request, open_channel
from benchmarks.command import DEMO, RESULTS, make_parser
from benchmarks.load import cpu_time_s, load_chunks
from benchmarks.server_process import ServerProcess

TIMEOUT_S = 600.0


def transcribe_once(address: str, requests: Sequence[Request]) -> int:
    """Send a clip at full speed; return the number of final segments."""
    with open_channel(address) as channel:
        responses = Stub(channel).StreamingRecognize(iter([config_request(), *requests]), timeout=TIMEOUT_S)
        return sum(one.WhichOneof("event") == "segment" and one.segment.is_final for one in responses)


def measure_cost(server: ServerProcess, requests: Sequence[Request], streams: int) -> dict[str, Any]:
    """Measure the given number of concurrent streams."""
    cpu_s, began = cpu_time_s(server), time.monotonic()
    with ThreadPoolExecutor(streams) as pool:
        segments = list(pool.map(lambda _: transcribe_once(server.address, requests), range(streams)))
    wall_s = time.monotonic() - began
    if len(set(segments)) > 1 or not segments[0]:
        raise AssertionError(
            f"streams of one clip gave {segments} segments; expected the same number, above 0"
        )
    return {
        "streams": streams,
        "segments": segments[0],
        "wall_s": round(wall_s, 3),
        "cpu_s": round(cpu_time_s(server) - cpu_s, 3),
    }


def measure_scaling(kind: str, counts: Sequence[int], repeats: int) -> dict[str, Any]:
    """Measure the cost for all stream counts; minimum over repetitions."""
    requests = [Request(media=DEMO.read_bytes())]
    duration_s = 0.0
    if kind == "crops":
        pieces, duration_s = load_chunks("crops")
        requests = [piece.content for piece in pieces]
    tried: dict[int, list[dict[str, Any]]] = {count: [] for count in counts}
    with ServerProcess(
        "--max-streams", "64", "--max-live-device-utilization", "0", log_level="ERROR"
    ) as server:
        measure_cost(server, requests, 1)  # warm-up
        for _ in range(repeats):
            for count in counts:
                tried[count].append(measure_cost(server, requests, count))
                print(kind, tried[count][-1], flush=True)
    steps = [min(costs, key=lambda cost: cost["wall_s"]) for costs in tried.values()]
    return {"kind": kind, "media_s": duration_s, "steps": steps}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and write JSON."""
    parser = make_parser(__doc__, RESULTS / "growth.json")
    parser.add_argument("--kinds", default="crops,video")
    parser.add_argument("--streams", default="1,2,4,8,16")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    counts = [int(count) for count in options.streams.split(",")]
    kinds = [measure_scaling(kind, counts, options.repeats) for kind in options.kinds.split(",")]
    options.out.write_text(json.dumps({"cores": os.cpu_count(), "kinds": kinds}, indent=1))


if __name__ == "__main__":
    main()
