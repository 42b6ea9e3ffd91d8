"""Startup times: ``python -m benchmarks.startup``.

``import gorggle`` without the interpreter's own startup, and ``gorggle serve`` with the embedded model until it is ready.
Minimum over repetitions, so files are in the page cache.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time
import timeit
from collections.abc import Sequence

from benchmarks.client_streams import Request
from benchmarks.command import DEMO, RESULTS, make_parser
from benchmarks.server_process import ServerProcess
from benchmarks.stream_scaling import transcribe_once


def time_program_s(program: str, repeats: int) -> float:
    """Return the minimum run time of a Python program, in seconds."""
    command = [sys.executable, "-c", program]
    return min(timeit.repeat(lambda: subprocess.run(command, check=True), number=1, repeat=repeats))


def time_server_start_s(repeats: int) -> tuple[float, float]:
    """Return the server's startup time, and the additional time of its first clip compared with the second."""
    ready_s, extra_s = float("inf"), float("inf")
    requests = [Request(media=DEMO.read_bytes())]
    for _ in range(repeats):
        began = time.perf_counter()
        with ServerProcess(log_level="ERROR") as server:
            ready_s = min(ready_s, time.perf_counter() - began)
            transcribe = functools.partial(transcribe_once, server.address, requests)
            first_s, second_s = timeit.repeat(transcribe, number=1, repeat=2)
        extra_s = min(extra_s, first_s - second_s)
    return ready_s, extra_s


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, print the results and write JSON."""
    parser = make_parser(__doc__, RESULTS / "startup.json")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    ready_s, extra_s = time_server_start_s(options.repeats)
    interpreter_s, with_import_s = (
        time_program_s(program, 2 * options.repeats) for program in ("pass", "import gorggle")
    )
    measured = {
        "import_gorggle_s": with_import_s - interpreter_s,
        "server_ready_s": ready_s,
        "first_clip_extra_s": extra_s,
    }
    print(measured)
    options.out.write_text(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
