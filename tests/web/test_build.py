"""The built page in the package is what its sources give, and its own unit tests pass; left out where there is no Node."""

from __future__ import annotations

import filecmp
import shutil
import subprocess
from pathlib import Path

import pytest

from gorggle_gateway import static_files
from tests.web.conftest import ROOT

WEB = ROOT / "clients" / "web"


def node(*arguments: str) -> None:
    npx = shutil.which("npx")
    if npx is None or not (WEB / "node_modules").is_dir():
        pytest.skip("there is no Node, or its packages are not installed: npm ci --prefix clients/web")
    done = subprocess.run(
        [npx, "--no-install", *arguments], cwd=WEB, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_built_page_is_up_to_date(tmp_path: Path) -> None:
    node("vite", "build", "--outDir", str(tmp_path), "--emptyOutDir", "--logLevel", "error")
    assert files(tmp_path) == files(static_files.PAGE_DIR), "build it anew: make web"
    different = filecmp.cmpfiles(tmp_path, static_files.PAGE_DIR, files(tmp_path), shallow=False)[1:]
    assert different == ([], []), "build it anew: make web"


def test_the_sources_have_no_type_errors() -> None:
    node("tsc", "--noEmit")


def test_its_pure_functions_pass_their_tests() -> None:
    node("vitest", "run")


def test_the_page_is_small() -> None:
    if not static_files.is_built():
        pytest.skip("the page is not built: make web")
    assert sum(path.stat().st_size for path in static_files.PAGE_DIR.rglob("*") if path.is_file()) < 250_000
