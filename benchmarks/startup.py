"""Startup times: ``python -m benchmarks.startup``.

``import gorggle`` without the interpreter's own startup, and ``gorggle serve`` with the embedded model until it is ready.
Minimum over repetitions, so files are in the page cache.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks.client_streams import Request
from benchmarks.command import DEMO, RESULTS, make_parser
from benchmarks.server_process import ServerProcess
from benchmarks.stream_scaling import transcribe_once


def time_program_s(program: str) -> float:
    """Return the run time of a Python program, in seconds."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - began


def time_import_s(module: str, repeats: int) -> float:
    """Return the import time of a module in a new process, without the interpreter's startup."""
    return min(time_program_s(f"import {module}") for _ in range(repeats)) - min(
        time_program_s("pass") for _ in range(repeats)
    )


def time_server_start_s(repeats: int) -> tuple[float, float]:
    """Return the server's startup time, and the additional time of its first clip compared with the second."""
    ready_s, extra_s = float("inf"), float("inf")
    requests = [Request(media=DEMO.read_bytes())]
    for _ in range(repeats):
        began = time.perf_counter()
        with ServerProcess(log_level="ERROR") as server:
            ready_s = min(ready_s, time.perf_counter() - began)
            took = []
            for _ in range(2):
                began = time.perf_counter()
                transcribe_once(server.address, requests)
                took.append(time.perf_counter() - began)
        extra_s = min(extra_s, took[0] - took[1])
    return ready_s, extra_s


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, print the results and write JSON."""
    parser = make_parser(__doc__, RESULTS / "startup.json")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    ready_s, extra_s = time_server_start_s(options.repeats)
    measured = {
        "import_gorggle_s": time_import_s("gorggle", 2 * options.repeats),
        "server_ready_s": ready_s,
        "first_clip_extra_s": extra_s,
    }
    print(measured)
    options.out.write_text(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
