"""Import rules between packages, and the naming of test files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_packages_follow_the_import_rules() -> None:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_test_file_is_collected() -> None:
    # The tests of a *_conformance file are in classes that the tests of each implementation inherit.
    uncollected = [
        path.relative_to(ROOT)
        for path in (ROOT / "tests").rglob("*.py")
        if "def test_" in path.read_text()
        and not path.name.startswith("test_")
        and not path.stem.endswith("_conformance")
    ]
    assert not uncollected
