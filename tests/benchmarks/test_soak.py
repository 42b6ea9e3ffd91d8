"""The report of a soak run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import soak
from benchmarks.client_streams import SCENARIOS


@pytest.mark.drill
def test_a_short_soak_counts_its_calls_by_scenario(tmp_path: Path) -> None:
    out = tmp_path / "soak.json"
    soak.main(["--minutes", "0.1", "--warm-up-minutes", "0", "--cycle-s", "5", "--out", str(out)])
    report = json.loads(out.read_text())
    assert report["calls"] == sum(report["outcomes"].values()) > 0
    names = {outcome.partition(":")[0] for outcome in report["outcomes"]}
    assert names <= {scenario.__name__ for scenario in SCENARIOS}
