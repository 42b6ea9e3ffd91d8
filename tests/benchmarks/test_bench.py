"""`make bench`: the report is generated from the results, and the parts run with minimal workloads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import backends, end_to_end, engine, report, roofline, suite, vision
from benchmarks.synthetic_video import clips

ROOT = Path(__file__).parents[2]
MACHINE = {
    "cpu": "a CPU",
    "cores": 2,
    "threads": 1,
    "torch": "2",
    "clock": "wall time",
    "gflops": 100.0,
    "gigabytes_per_s": 10.0,
    "load": 0.0,
}


@pytest.fixture
def _restore_num_threads() -> Any:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def copy_page(folder: Path) -> Path:
    return Path(shutil.copy(ROOT / "docs" / "performance.md", folder / "performance.md"))


def test_the_performance_page_matches_the_results(tmp_path: Path) -> None:
    page, results = copy_page(tmp_path), ROOT / "benchmarks" / "results"
    report.write_report(results, tmp_path)
    assert page.read_text() == (ROOT / "docs" / "performance.md").read_text()
    images = {path.name for path in (tmp_path / "images").iterdir()}
    plots = report.plots.PLOTS.items()
    assert images == {file for name, (file, _) in plots if (results / f"{name}.json").is_file()}
    assert "engine-speed.png" in images


def test_sections_without_results_are_unchanged(tmp_path: Path) -> None:
    (tmp_path / "startup.json").write_text(
        json.dumps({"import_gorggle_s": 0.125, "server_ready_s": 7.25, "first_clip_extra_s": -1.0})
    )
    page = copy_page(tmp_path)
    before = page.read_text()
    report.write_report(tmp_path, tmp_path)
    changed = set(page.read_text().splitlines()) - set(before.splitlines())
    assert "| `import gorggle` | 0.12 s |" in changed
    assert "| additional time of the first clip | 0.00 s |" in {*changed, *before.splitlines()}
    assert len(changed) <= 3


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"<!-- growth: begin -->"):
        report.replace_section("# Performance\n<!-- growth: end -->", "growth", ["a table"])


def test_the_roofline_is_the_longer_of_compute_and_memory_time() -> None:
    assert roofline.roofline_s({"gflop": 200.0, "gigabytes": 5.0}, MACHINE) == 2.0
    assert roofline.roofline_s({"gflop": 200.0, "gigabytes": 50.0}, MACHINE) == 5.0
    assert roofline.roofline_s({"gflop": 200.0}, MACHINE) == 2.0
    assert roofline.roofline_s({"gflop": None}, MACHINE) is None


def test_the_vision_roofline_counts_detection_and_landmark_fits() -> None:
    clip = {"landmark_fits_per_frame": 0.5, "searched_px_per_frame": 10_000.0}
    figures = roofline.vision_roofline_ms({"one": clip, "other": clip}, MACHINE)
    assert figures["landmarks"] == pytest.approx(0.5 * 4.08e6 / 10e9 * 1e3)
    assert figures["detect"] == pytest.approx(1e4 * roofline.OPERATIONS_PER_PIXEL / 100e9 * 1e3)


def test_the_vision_benchmark_compares_with_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is too short for meaningful timings: only check that the figures are present."""
    monkeypatch.setattr(vision, "WARM_UP_FRAMES", 8)
    figures = vision.measure_clip(clips()["drawn"], 5)
    assert figures["frames"] == 5
    assert figures["lost"] == 0
    assert figures["compared"] == 2
    assert figures["with_face_percent"] == {"reference": 100, "ours": 100, "ours_live": 100}
    assert 0 < figures["landmark_fits_per_frame"] < 2
    for measurement in (figures, figures["live"], figures["reference"]):
        assert 0 < measurement["mouth_offset_percent"]["median"] < 5
    lines = report.format_vision(
        {"vision": {"machine": MACHINE, "clips": {"drawn, ordinary motion": figures}}}
    )
    assert sum(line.startswith("| drawn, ordinary motion | ") for line in lines) == 1
    assert sum(line.startswith("| landmarks | ") and line.endswith("× |") for line in lines) == 1


def test_other_weight_types_are_compared_with_float32() -> None:
    rows = [
        {"model": "base", "stage": "encoder", "ours_s": 0.2, "theirs_s": 0.5, "ratio": 2.5},
        {"model": "large", "stage": "beam search, beam 5", "ours_s": 1.0, "theirs_s": 1.5, "ratio": 1.5}
        | {"tokens_identical": False},
    ]
    lines = report.TABLES["engine-int8"]({"engine-int8": {"machine": MACHINE, "rows": rows}})
    assert "| Base | encoder | 0.500 s | 0.200 s | **2.50×** |  |" in lines
    assert "| Large | beam search, beam 5 | 1.500 s | 1.000 s | **1.50×** | differ |" in lines


def test_the_sum_of_front_end_and_encoder_is_reported() -> None:
    front_end = {"model": "large", "stage": "front-end", "ours_s": 0.75, "theirs_s": 1.0, "gflop": 10.0}
    encoder = {"model": "large", "stage": "encoder", "ours_s": 0.75, "theirs_s": 2.0, "gflop": 20.0}
    search = {"model": "large", "stage": "beam search, beam 5", "ours_s": 1.0, "theirs_s": 2.0, "gflop": None}
    rows = report.add_combined_rows([front_end, encoder, search])
    assert [row["stage"] for row in rows] == [
        "front-end",
        "encoder",
        "front-end and encoder",
        "beam search, beam 5",
    ]
    assert (rows[2]["ours_s"], rows[2]["theirs_s"], rows[2]["ratio"], rows[2]["gflop"]) == (
        1.5,
        3.0,
        2.0,
        30.0,
    )
    # Without fairseq there is no baseline.
    assert len(report.add_combined_rows([front_end, encoder | {"theirs_s": None}])) == 2


def test_every_part_has_a_table_and_a_module() -> None:
    assert {part.name for part in suite.PARTS} == set(report.TABLES)
    assert all((ROOT / "benchmarks" / f"{part.module}.py").is_file() for part in suite.PARTS)


def test_an_unknown_part_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        suite.main(["--parts", "engine,warp", "--results", str(tmp_path)])
    assert "unknown part warp" in capsys.readouterr().err


@pytest.mark.usefixtures("_restore_num_threads")
def test_the_engine_benchmark_runs_without_fairseq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "load_fairseq", lambda: None)
    out = tmp_path / "engine.json"
    arguments = "--models embedded --beams 2 --utterances 2 --seconds 1 --tokens 4 --repeats 1 --threads 1"
    engine.main([*arguments.split(), "--out", str(out)])
    measured = json.loads(out.read_text())
    assert [row["stage"] for row in measured["rows"]] == [
        "front-end",
        "encoder",
        "beam search, beam 2",
        "2 utterances",
    ]
    assert all(row["ours_s"] > 0 for row in measured["rows"])
    assert measured["rows"][-1]["tokens_identical"]
    lines = report.format_engine({"engine": measured})
    assert sum("embedded (gorggle-mini-1)" in line for line in lines) == 4


@pytest.mark.usefixtures("_restore_num_threads")
def test_the_backends_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "SECONDS", (1,))
    monkeypatch.setattr(backends, "SEARCHES", ((2, 3),))
    out = tmp_path / "backends.json"
    backends.main(["--repeats", "1", "--threads", "1", "--out", str(out)])
    measured = json.loads(out.read_text())
    assert measured["rows"][-1]["tokens_identical"]
    assert all(row["ratio"] > 0 for row in measured["rows"])
    assert measured["loading"]["onnxruntime"]["megabytes"] < measured["loading"]["torch"]["megabytes"]
    lines = report.format_backends({"backends": measured})
    assert sum("beam search, 2 clips, beam 3" in line and "identical" in line for line in lines) == 1


@pytest.mark.usefixtures("_restore_num_threads")
def test_the_end_to_end_benchmark_measures_each_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(end_to_end, "load_fairseq", lambda: None)
    out = tmp_path / "whole.json"
    arguments = "--models embedded --seconds 1 --tokens 4 --beam 2 --repeats 1 --threads 1"
    end_to_end.main([*arguments.split(), "--out", str(out)])
    measured = json.loads(out.read_text())
    (row,) = measured["rows"]
    assert row["ratio"] is None
    assert row["ours_s"] == pytest.approx(sum(row["ours"].values()))
    assert min(row["ours"].values()) >= 0
    assert row["times_real_time"] == pytest.approx(1 / row["ours_s"])
    lines = report.format_end_to_end({"whole": measured})
    assert any(line.startswith("| beam search, beam 2 |") for line in lines)
