"""The published wheel: what it holds, and that ``gorggle local`` runs from it with nothing of the working tree."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import requests

from infrastructure.packaging import build

# Building it fetches the build system.
pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).resolve().parents[2]
INSTALLED = {
    "gorggle",
    "gorggle_gateway",
    "gorggle_local",
    "gorggle_server",
    "gorggle_evaluation",
    "gorggle_lambdas",
}
# What is read as a file, beside the modules.
FILES = {
    *(
        "gorggle_lambdas/functions.toml",
        "gorggle_lambdas/api/openapi.yaml",
    ),
    *("gorggle_lambdas/fusion/result.schema.json", "gorggle/py.typed", "gorggle_gateway/page/index.html"),
    *(
        "gorggle_server/assets/gorggle-mini-1.safetensors",
        "gorggle_lambdas/operations/certificate_authority.py",
    ),
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.build_own_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel, and this one's packages but for the working tree."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / minor / "site-packages"
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(packages)
    # As a path alone: what leads from there to the working tree is not followed.
    (packages / "further.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin" / "python"


def test_the_wheel_holds_the_product_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == INSTALLED
    assert set(names) >= FILES
    assert not [
        name for name in names if "__pycache__" in name or "node_modules" in name or name.endswith(".pyc")
    ]
    handlers = {f"gorggle_lambdas/handlers/{path.name}" for path in (ROOT / "lambdas/handlers").glob("*.py")}
    assert handlers <= set(names)
    assert wheel.stat().st_size < 60 * 2**20


def test_the_product_runs_from_the_wheel_alone(installed: Path, tmp_path: Path) -> None:
    code = "import gorggle, gorggle_lambdas, gorggle_local.aws; print(gorggle.__file__, gorggle_lambdas.__file__, gorggle_local.aws.__file__)"
    files = subprocess.run(
        [installed, "-P", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert all(file.startswith(str(installed.parents[1])) for file in files.stdout.split())
    command = [installed, "-P", "-m", "gorggle", "local", "--print-ready", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*map(str, command), "--data-dir", str(tmp_path / "product")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        url = json.loads(line)["listening"].rstrip("/")
        # The page, and by way of the API two functions out of their package: who calls, and which jobs there are.
        assert "<script" in requests.get(url, timeout=60).text
        assert requests.get(f"{url}/api/jobs", timeout=60).json() == {"jobs": []}
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    assert process.returncode == 0
