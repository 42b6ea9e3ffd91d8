"""The list of faults names tests that there are, and the statuses that callers get are explained."""

from __future__ import annotations

import re

from benchmarks.fuzz import DOCUMENTED_STATUSES
from tests.contract.test_imports import ROOT

TEXT = (ROOT / "docs" / "reliability.md").read_text()
TESTS = {
    path.name: set(re.findall(r"def (test_\w+)", path.read_text()))
    for path in (ROOT / "tests").rglob("test_*.py")
}


def test_every_test_that_is_named_is_there_and_in_the_file_that_is_named() -> None:
    named = 0
    for cell in re.findall(r"[^|;]+", TEXT):
        files = re.findall(r"`(?:[\w/]+/)?(test_\w+\.py)`", cell)
        assert set(files) <= TESTS.keys(), cell
        for name in re.findall(r"`(test_\w+)`", cell):
            named += 1
            assert any(name in TESTS[file] for file in files), f"{name} in {cell.strip()}"
    assert named > 40


def test_every_fault_is_listed_once_with_what_shows_it() -> None:
    rows = [line.split("|")[1:-1] for line in TEXT.splitlines() if re.match(r"\| \d+ \|", line)]
    assert [int(row[0]) for row in rows] == list(range(1, 36))
    assert all(len(row) == 4 and all(cell.strip() for cell in row) for row in rows)


def test_every_status_a_fuzzer_may_get_is_explained_to_operators() -> None:
    table = (ROOT / "docs" / "operations.md").read_text().split("## Status codes")[1]
    explained = set(re.findall(r"^\| `([A-Z_]+)` \|", table, re.MULTILINE))
    assert DOCUMENTED_STATUSES - {"OK"} <= explained
