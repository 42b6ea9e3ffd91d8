"""The search for the Python that Lambda runs: what is one, what only has its name, and where it looks."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import pytest

from gorggle_local.aws.lambda_runtime import Interpreter
from tests.e2e.emulator import python_discovery

MACHINE = platform.machine()
ABI = f"cpython-999-{MACHINE}-linux-gnu"


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def speaking(path: Path, version: str = "9.99.1", abi: str = ABI) -> Path:
    """An interpreter that answers as one of that version would."""
    answer = json.dumps([str(path), version, abi])
    return script(path, f"cat <<'ANSWER'\n{answer}\nANSWER")


def found(tmp_path: Path, **environment: str) -> Interpreter | None:
    environment = {"PATH": str(tmp_path / "path"), **environment}
    return python_discovery.find_interpreter("9.99", environment, tmp_path / "home", tmp_path / "root")


def test_the_current_interpreter_is_found() -> None:
    minor = ".".join(platform.python_version_tuple()[:2])
    itself = python_discovery.find_interpreter(minor)
    assert itself is not None
    assert itself.version == platform.python_version()
    assert itself.executable.samefile(sys.executable)
    assert str(itself) == f"CPython {platform.python_version()} ({itself.executable})"


def test_a_shim_that_fails_is_skipped(tmp_path: Path) -> None:
    script(tmp_path / "path/python9.99", "echo 'python9.99: command not found' >&2; exit 127")
    assert found(tmp_path) is None
    real = speaking(tmp_path / "home/.pyenv/versions/9.99.1/bin/python9.99")
    assert found(tmp_path) == Interpreter(real, "9.99.1")


def test_a_shim_resolves_to_its_interpreter(tmp_path: Path) -> None:
    real = speaking(tmp_path / "elsewhere/python9.99")
    script(tmp_path / "path/python9.99", f'exec {real} "$@"')
    itself = found(tmp_path)
    assert itself is not None
    assert itself.executable == real


@pytest.mark.parametrize(
    "place",
    [
        *(f"home/{each}/bin" for each in (".pyenv/versions/9.99.1", ".asdf/installs/python/9.99.1")),
        "home/.local/share/mise/installs/python/9.99.1/bin",
        "home/.local/share/uv/python/cpython-9.99.1-linux-x86_64-gnu/bin",
        "home/.rye/py/cpython@9.99.1/bin",
        "root/opt/hostedtoolcache/Python/9.99.1/x64/bin",
        "root/opt/python/cp999-cp999/bin",
        *(f"root/{each}" for each in ("usr/local/bin", "usr/bin")),
        "path",
    ],
)
def test_folders_of_version_managers_are_searched(tmp_path: Path, place: str) -> None:
    real = speaking(tmp_path / place / "python9.99")
    assert found(tmp_path) == Interpreter(real, "9.99.1")


def test_pyenv_root_is_searched(tmp_path: Path) -> None:
    real = speaking(tmp_path / "pyenv/versions/9.99.1/bin/python9.99")
    assert found(tmp_path) is None
    assert found(tmp_path, PYENV_ROOT=str(tmp_path / "pyenv")) == Interpreter(real, "9.99.1")


def test_the_newest_version_is_selected(tmp_path: Path) -> None:
    for version in ("9.99.9", "9.99.10", "9.99.2"):
        speaking(tmp_path / f"home/.pyenv/versions/{version}/bin/python9.99", version)
    itself = found(tmp_path)
    assert itself is not None
    assert itself.version == "9.99.10"


@pytest.mark.parametrize(
    ("version", "abi"),
    [
        pytest.param("9.98.1", f"cpython-998-{MACHINE}-linux-gnu", id="another version"),
        pytest.param("9.99.1", f"cpython-999t-{MACHINE}-linux-gnu", id="free-threaded"),
        pytest.param("9.99.1", f"cpython-999-{MACHINE}-linux-musl", id="musl"),
        pytest.param("9.99.1", "cpython-999-sparc64-linux-gnu", id="another processor"),
        pytest.param("9.99.1", "pypy999-pp73", id="not CPython"),
    ],
)
def test_interpreters_with_another_abi_are_skipped(tmp_path: Path, version: str, abi: str) -> None:
    speaking(tmp_path / "path/python9.99", version, abi)
    assert found(tmp_path) is None


def test_interpreters_without_required_modules_are_skipped(tmp_path: Path) -> None:
    """It was built without OpenSSL, say: then importing fails, after whatever was said before."""
    answer = json.dumps(["/x", "9.99.1", ABI])
    script(tmp_path / "path/python9.99", f"echo '{answer}'; echo \"No module named '_ssl'\" >&2; exit 1")
    assert found(tmp_path) is None
