"""The scripts in ``examples/`` run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.clips import EXAMPLES
from tests.integration.conftest import DEMO


def run_example(name: str, *arguments: str | Path) -> str:
    """Run a script and return its output."""
    command = [sys.executable, EXAMPLES / name, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_demo_reports_word_errors_and_word_times() -> None:
    output = run_example("demo.py", DEMO, DEMO.with_suffix(".json"))
    assert output.count("word error rate") == output.count("word timestamps") == 2
    assert output.count("(0 of 12 words: ") == 2, "with capitals and full stops, as by two models, or without"
    assert "real-time factor" in output
    assert "warning: the model gorggle-mini-1 recognizes only the words that it was trained on" in output
    assert re.search(
        r"^Real people: .* not in the training, .* [\d.]+ % \(lips and audio\), [\d.]+ % \(lips alone\)",
        output,
        re.MULTILINE,
    )


def test_the_image_of_the_readme_is_rendered(tmp_path: Path) -> None:
    run_example("plot_demo.py", tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
