"""Common to the benchmarks' commands: files, and the parser of options."""

from __future__ import annotations

import argparse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DEMO = ROOT / "examples" / "demo.mp4"


def make_parser(description: str, out: Path | None = None) -> argparse.ArgumentParser:
    """Return a parser with the option ``--out``; the description is a module's docstring."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=out, help="JSON file for the results")
    return parser
