"""Who may import whom."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_import_rules_hold() -> None:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_test_file_is_collected() -> None:
    # What any implementation must pass: its class is collected in the tests of each.
    strays = [
        path.relative_to(ROOT)
        for path in (ROOT / "tests").rglob("*.py")
        if "def test_" in path.read_text()
        and not path.name.startswith("test_")
        and not path.stem.endswith("_conformance")
    ]
    assert not strays
