"""The wheel: its contents, and its commands without the working tree and beside a user's own packages."""

from __future__ import annotations

import json
import os
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

# Building the wheel downloads the build system.
pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).resolve().parents[2]
TOP_LEVEL_PACKAGES = {
    "gorggle",
    "gorggle_gateway",
    "gorggle_local",
    "gorggle_server",
    "gorggle_evaluation",
    "gorggle_training",
    "gorggle_fusion",
    "gorggle_lambdas",
}
# Files that the wheel must contain.
REQUIRED_FILES = {
    *(
        "gorggle_lambdas/functions.toml",
        "gorggle_lambdas/api/openapi.yaml",
    ),
    *("gorggle_fusion/result.schema.json", "gorggle/py.typed", "gorggle_gateway/page/index.html"),
    *(
        "gorggle_server/assets/gorggle-mini-1.safetensors",
        "gorggle_server/assets/gorggle-mini-2.safetensors",
        "gorggle_server/model_catalogue/catalogue.toml",
        "gorggle_server/assets/face_detection_yunet_2023mar_int8bq.onnx",
        "gorggle_server/assets/face_recognition_sface_2021dec.onnx",
        "gorggle_server/assets/mediapipe-face-mesh.onnx",
        "gorggle_server/assets/mediapipe-face-mesh-68.json",
        "gorggle_server/assets/gorggle-mini-graphs/alignment.onnx",
        "gorggle_server/assets/gorggle-mini-graphs/decoder_step.onnx",
        "gorggle_server/assets/gorggle-mini-graphs/encoder.onnx",
        "gorggle_server/assets/gorggle-mini-graphs/graphs.json",
        "gorggle_server/assets/gorggle-mini-graphs/source_projection.onnx",
        "gorggle_server/assets/gorggle-mini-graphs/video_frontend.onnx",
        "gorggle_server/assets/moonshine-tiny-en-letters.safetensors",
        "gorggle_server/assets/silero-vad-16k.onnx",
        "gorggle_server/assets/silero-vad-16k.LICENSE",
        "gorggle_lambdas/operations/certificate_authority.py",
    ),
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.build_own_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment with the wheel and the current dependencies, without the working tree."""
    folder = tmp_path_factory.mktemp("installed_python")
    venv.create(folder, with_pip=False)
    minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / minor / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # A path in a .pth file: the .pth files in that folder, which point to the working tree, are not processed.
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin" / "python"


def test_the_wheel_contains_only_the_product(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == TOP_LEVEL_PACKAGES
    assert all(name.startswith("gorggle") for name in names), "no generic top-level package"
    assert set(names) >= REQUIRED_FILES
    assert not [
        name for name in names if "__pycache__" in name or "node_modules" in name or name.endswith(".pyc")
    ]
    handlers = {f"gorggle_lambdas/handlers/{path.name}" for path in (ROOT / "lambdas/handlers").glob("*.py")}
    assert handlers <= set(names)
    assert wheel.stat().st_size <= 25 * 10**6


def test_the_product_runs_from_the_wheel(installed_python: Path, tmp_path: Path) -> None:
    code = "import gorggle, gorggle_lambdas, gorggle_local.aws; print(gorggle.__file__, gorggle_lambdas.__file__, gorggle_local.aws.__file__)"
    files = subprocess.run(
        [installed_python, "-P", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert all(file.startswith(str(installed_python.parents[1])) for file in files.stdout.split())
    command = [installed_python, "-P", "-m", "gorggle", "local", "--print-ready", "--listen", "127.0.0.1:0"]
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
        # The page, and through the API two Lambda functions: the authorizer and the list of jobs.
        assert "<script" in requests.get(url, timeout=60).text
        assert requests.get(f"{url}/api/jobs", timeout=60).json() == {"jobs": []}
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    assert process.returncode == 0


# Folders of the repository whose names a user's project may also use.
USER_PACKAGES = (
    "evaluation",
    "training",
    "lambdas",
    "inference_server",
    "infrastructure",
    "benchmarks",
    "tests",
)


@pytest.fixture
def user_project(tmp_path: Path) -> Path:
    """Create a project whose packages have the names of folders of the repository."""
    for name in USER_PACKAGES:
        (tmp_path / name).mkdir()
        for file in ("__init__.py", "__main__.py"):
            (tmp_path / name / file).write_text(f"raise SystemExit('the user package {name} was run')\n")
    return tmp_path


@pytest.mark.parametrize("on_python_path", [False, True])
@pytest.mark.parametrize("as_module", [False, True])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["evaluate", "--help"], "usage: gorggle evaluate"),
        (["train", "--help"], "usage: gorggle train"),
        (["cost"], "List prices of us-east-1"),
        (["serve", "--help"], "usage: gorggle serve"),
        (["transcribe", "--help"], "usage: gorggle transcribe"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_commands_run_beside_a_users_own_packages(
    installed_python: Path,
    user_project: Path,
    arguments: list[str],
    expected: str,
    as_module: bool,
    on_python_path: bool,
) -> None:
    script = ["-c", "import sys; sys.path.remove(''); from gorggle.cli.main import main; sys.exit(main())"]
    environment = {**os.environ, "PYTHONPATH": str(user_project) if on_python_path else ""}
    completed = subprocess.run(
        [installed_python, *(["-m", "gorggle"] if as_module else script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=user_project,
        env=environment,
    )
    assert (completed.returncode, completed.stderr) == (0, "")
    assert expected in completed.stdout
