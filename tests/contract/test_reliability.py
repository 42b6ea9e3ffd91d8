"""The fault list in docs/reliability.md names existing tests, and all status codes are documented."""

from __future__ import annotations

import re

from benchmarks.fuzz import DOCUMENTED_STATUSES
from tests.contract.test_imports import ROOT

RELIABILITY_PAGE = (ROOT / "docs" / "reliability.md").read_text()
TESTS = {
    path.name: set(re.findall(r"def (test_\w+)", path.read_text()))
    for path in (ROOT / "tests").rglob("test_*.py")
}


def test_documented_tests_exist_in_the_documented_files() -> None:
    count = 0
    for cell in re.findall(r"[^|;]+", RELIABILITY_PAGE):
        files = re.findall(r"`(?:[\w/]+/)?(test_\w+\.py)`", cell)
        assert set(files) <= TESTS.keys(), cell
        for name in re.findall(r"`(test_\w+)`", cell):
            count += 1
            assert any(name in TESTS[file] for file in files), f"{name} in {cell.strip()}"
    assert count > 40


def test_faults_are_numbered_consecutively_and_name_their_tests() -> None:
    rows = [line.split("|")[1:-1] for line in RELIABILITY_PAGE.splitlines() if re.match(r"\| \d+ \|", line)]
    assert [int(row[0]) for row in rows] == list(range(1, 36))
    assert all(len(row) == 4 and all(cell.strip() for cell in row) for row in rows)


def test_every_status_code_the_fuzzer_accepts_is_documented() -> None:
    table = (ROOT / "docs" / "operations.md").read_text().split("## Status codes")[1]
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", table, re.MULTILINE))
    assert DOCUMENTED_STATUSES - {"OK"} <= documented
