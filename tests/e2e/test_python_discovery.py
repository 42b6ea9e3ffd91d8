"""Discovery of the Python version that Lambda runs: searched folders, shims and ABI checks."""

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


def write_script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def write_fake_interpreter(path: Path, version: str = "9.99.1", abi: str = ABI) -> Path:
    """Write a fake interpreter that reports this version and ABI."""
    answer = json.dumps([str(path), version, abi])
    return write_script(path, f"cat <<'ANSWER'\n{answer}\nANSWER")


def find_interpreter(tmp_path: Path, **environment: str) -> Interpreter | None:
    environment = {"PATH": str(tmp_path / "path"), **environment}
    return python_discovery.find_interpreter("9.99", environment, tmp_path / "home", tmp_path / "root")


def test_the_current_interpreter_is_found() -> None:
    minor = ".".join(platform.python_version_tuple()[:2])
    interpreter = python_discovery.find_interpreter(minor)
    assert interpreter is not None
    assert interpreter.version == platform.python_version()
    assert interpreter.executable.samefile(sys.executable)
    assert str(interpreter) == f"CPython {platform.python_version()} ({interpreter.executable})"


def test_a_shim_that_fails_is_skipped(tmp_path: Path) -> None:
    write_script(tmp_path / "path/python9.99", "echo 'python9.99: command not found' >&2; exit 127")
    assert find_interpreter(tmp_path) is None
    real = write_fake_interpreter(tmp_path / "home/.pyenv/versions/9.99.1/bin/python9.99")
    assert find_interpreter(tmp_path) == Interpreter(real, "9.99.1")


def test_a_shim_resolves_to_its_interpreter(tmp_path: Path) -> None:
    real = write_fake_interpreter(tmp_path / "elsewhere/python9.99")
    write_script(tmp_path / "path/python9.99", f'exec {real} "$@"')
    interpreter = find_interpreter(tmp_path)
    assert interpreter is not None
    assert interpreter.executable == real


@pytest.mark.parametrize(
    "folder",
    [
        *(f"home/{folder}/bin" for folder in (".pyenv/versions/9.99.1", ".asdf/installs/python/9.99.1")),
        "home/.local/share/mise/installs/python/9.99.1/bin",
        "home/.local/share/uv/python/cpython-9.99.1-linux-x86_64-gnu/bin",
        "home/.rye/py/cpython@9.99.1/bin",
        "root/opt/hostedtoolcache/Python/9.99.1/x64/bin",
        "root/opt/python/cp999-cp999/bin",
        *(f"root/{folder}" for folder in ("usr/local/bin", "usr/bin")),
        "path",
    ],
)
def test_folders_of_version_managers_are_searched(tmp_path: Path, folder: str) -> None:
    real = write_fake_interpreter(tmp_path / folder / "python9.99")
    assert find_interpreter(tmp_path) == Interpreter(real, "9.99.1")


def test_pyenv_root_is_searched(tmp_path: Path) -> None:
    real = write_fake_interpreter(tmp_path / "pyenv/versions/9.99.1/bin/python9.99")
    assert find_interpreter(tmp_path) is None
    assert find_interpreter(tmp_path, PYENV_ROOT=str(tmp_path / "pyenv")) == Interpreter(real, "9.99.1")


def test_the_newest_version_is_selected(tmp_path: Path) -> None:
    for version in ("9.99.9", "9.99.10", "9.99.2"):
        write_fake_interpreter(tmp_path / f"home/.pyenv/versions/{version}/bin/python9.99", version)
    interpreter = find_interpreter(tmp_path)
    assert interpreter is not None
    assert interpreter.version == "9.99.10"


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
    write_fake_interpreter(tmp_path / "path/python9.99", version, abi)
    assert find_interpreter(tmp_path) is None


def test_interpreters_without_required_modules_are_skipped(tmp_path: Path) -> None:
    """For example, an interpreter built without OpenSSL: it fails although it has printed a version."""
    answer = json.dumps(["/x", "9.99.1", ABI])
    write_script(
        tmp_path / "path/python9.99", f"echo '{answer}'; echo \"No module named '_ssl'\" >&2; exit 1"
    )
    assert find_interpreter(tmp_path) is None
