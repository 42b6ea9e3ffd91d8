"""All speed benchmarks, then the tables and plots: ``make bench``, ``python -m benchmarks.suite``.

Each part runs in a subprocess and writes JSON into ``benchmarks/results``. ``--quick`` runs all parts with minimal work,
as a smoke test.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import report
from benchmarks.command import RESULTS


@dataclass(frozen=True)
class Part:
    """A benchmark: its module, arguments of a full and a quick run, and whether it takes ``--threads``.

    ``quick_args`` is None for parts that stream whole clips in real time.
    """

    name: str
    module: str
    args: str = ""
    quick_args: str | None = ""
    threaded: bool = True


WEIGHTS_ARGS = "--baseline float32 --beams 1,5,20 --repeats 2"
QUICK_ARGS = "--seconds 1 --repeats 1 --tokens 6"
PARTS = (
    Part("engine", "engine", "--repeats 2", f"--models embedded --beams 1,5 --utterances 2 {QUICK_ARGS}"),
    Part(
        "engine-int8",
        "engine",
        f"--int8 {WEIGHTS_ARGS}",
        f"--int8 --baseline float32 --models embedded --beams 5 --stages encoder,search {QUICK_ARGS}",
    ),
    Part(
        "engine-bfloat16",
        "engine",
        f"--dtype bfloat16 {WEIGHTS_ARGS}",
        f"--dtype bfloat16 --baseline float32 --models embedded --beams 5 --stages encoder,search {QUICK_ARGS}",
    ),
    Part("backends", "backends", "", "--repeats 1"),
    Part("vision", "vision", "", "--seconds 1 --clips drawn", threaded=False),
    Part("whole", "end_to_end", "", f"--models embedded --beam 3 {QUICK_ARGS}"),
    Part("growth", "stream_scaling", "", "--kinds crops --streams 1,2 --repeats 1", threaded=False),
    Part("startup", "startup", "", "--repeats 1", threaded=False),
    Part("load-crops", "load", "--kind crops --start 15", None, threaded=False),
    Part("load-video", "load", "--kind video --start 3 --max-streams 16", None, threaded=False),
)


def run(part: Part, folder: Path, threads: int, *, quick: bool) -> None:
    """Run one part and show its output.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    arguments = ((part.quick_args or "") if quick else part.args).split()
    if part.threaded:
        arguments += ["--threads", str(threads)]
    # Renamed when complete: the page is checked against the results.
    unfinished = folder / f"{part.name}.unfinished"
    print(f"--- {part.name}", flush=True)
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", f"benchmarks.{part.module}", *arguments, "--out", str(unfinished)], check=True
    )
    unfinished.replace(folder / f"{part.name}.json")
    print(f"--- {part.name}: {time.monotonic() - began:.0f} s", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the selected parts and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [part.name for part in PARTS]
    parser.add_argument(
        "--parts", default=",".join(known), help=f"parts to run (default: {', '.join(known)})"
    )
    parser.add_argument("--threads", type=int, default=2, help="model threads (default: 2)")
    parser.add_argument("--quick", action="store_true", help="minimal work, as a smoke test")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=report.DOCS, help="folder of performance.md and images/")
    options = parser.parse_args(arguments)
    wanted = options.parts.split(",")
    if unknown := set(wanted) - set(known):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; expected some of {', '.join(known)}")
    options.results.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        if part.name in wanted and not (options.quick and part.quick_args is None):
            run(part, options.results, options.threads, quick=options.quick)
    report.write_report(options.results, options.docs)


if __name__ == "__main__":
    main()
