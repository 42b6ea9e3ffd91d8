"""Tests that the built page matches its sources and that its unit tests pass; skipped without Node."""

from __future__ import annotations

import filecmp
import shutil
import subprocess
from pathlib import Path

import pytest

from gorggle_gateway import static_files
from tests.web.conftest import ROOT

WEB = ROOT / "clients" / "web"


def run_npx(*arguments: str) -> None:
    npx = shutil.which("npx")
    if npx is None or not (WEB / "node_modules").is_dir():
        pytest.skip("Node or the page's packages are not installed: npm ci --prefix clients/web")
    process = subprocess.run(
        [npx, "--no-install", *arguments], cwd=WEB, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr


def list_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_built_page_is_up_to_date(tmp_path: Path) -> None:
    run_npx("vite", "build", "--outDir", str(tmp_path), "--emptyOutDir", "--logLevel", "error")
    assert list_files(tmp_path) == list_files(static_files.PAGE_DIR), (
        "the built page is outdated; run: make web"
    )
    different = filecmp.cmpfiles(tmp_path, static_files.PAGE_DIR, list_files(tmp_path), shallow=False)[1:]
    assert different == ([], []), "the built page is outdated; run: make web"


def test_the_sources_have_no_type_errors() -> None:
    run_npx("tsc", "--noEmit")


def test_the_unit_tests_pass() -> None:
    run_npx("vitest", "run")


def test_the_page_is_small() -> None:
    if not static_files.is_built():
        pytest.skip("the page is not built: make web")
    assert sum(path.stat().st_size for path in static_files.PAGE_DIR.rglob("*") if path.is_file()) < 250_000
