"""Finds an interpreter of a given Python version that can load packages built for Lambda.

Every candidate is executed, because version managers put shims on the PATH that may fail or run another version.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from gorggle_local.aws.lambda_runtime import Interpreter

TIMEOUT_S = 10.0
# Imports optional modules of the standard library that boto3 and numpy need.
_PROBE_SCRIPT = (
    "import ctypes, json, ssl, sys, sysconfig, zlib;"
    "print(json.dumps([sys.executable, sys.version.split()[0], sysconfig.get_config_var('SOABI')]))"
)
# Folders of version managers, relative to the home folder or absolute, with the pattern of an interpreter's folder: pyenv,
# asdf, mise, uv, rye, GitHub's runners, the manylinux images.
_VERSION_FOLDERS = (
    (".pyenv/versions", "{minor}*/bin"),
    (".asdf/installs/python", "{minor}*/bin"),
    (".local/share/mise/installs/python", "{minor}*/bin"),
    (".local/share/uv/python", "cpython-{minor}*/bin"),
    (".rye/py", "cpython@{minor}*/bin"),
    ("/opt/hostedtoolcache/Python", "{minor}*/*/bin"),
    ("/opt/python", "cp{tag}-cp{tag}/bin"),
)
_SYSTEM_FOLDERS = ("/usr/local/bin", "/usr/bin", "/opt/homebrew/bin")


def find_interpreter(
    minor: str, environment: Mapping[str, str] | None = None, home: Path | None = None, root: Path = Path("/")
) -> Interpreter | None:
    """Return the first interpreter of a version that can load packages built for Lambda, or None.

    Args:
        minor: such as "3.12".
        environment: with PATH and PYENV_ROOT; None: of this process.
        home: folder of the version managers; None: the user's.
        root: prefix of absolute folders, for tests.
    """
    for candidate in list_candidates(
        minor, os.environ if environment is None else environment, home or Path.home(), root
    ):
        interpreter = probe(candidate)
        if interpreter is not None and interpreter.version.rpartition(".")[0] == minor:
            return interpreter
    return None


def list_candidates(minor: str, environment: Mapping[str, str], home: Path, root: Path) -> Iterator[Path]:
    """Yield candidates: the current interpreter, then those on the PATH, then those of version managers, newest first."""
    yield Path(sys.executable)
    name = f"python{minor}"
    searched = [Path(each) for each in environment.get("PATH", "").split(os.pathsep) if each]
    for folder in (*searched, *_list_folders(minor, environment, home, root)):
        for each in (folder / name, folder / "python3"):
            if os.access(each, os.X_OK) and each.is_file():
                yield each


def probe(executable: Path) -> Interpreter | None:
    """Run an executable to identify it; None if it is not a CPython that can load Lambda's wheels on this machine."""
    command = [str(executable), "-I", "-S", "-c", _PROBE_SCRIPT]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL
        )
        path, version, abi = json.loads(result.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
    # Free-threaded builds and musl have other ABI tags and need other wheels.
    tag = "".join(version.split(".")[:2])
    if result.returncode or abi != f"cpython-{tag}-{platform.machine()}-linux-gnu":
        return None
    return Interpreter(Path(path), version)


def _list_folders(minor: str, environment: Mapping[str, str], home: Path, root: Path) -> Iterator[Path]:
    fields = {"minor": minor, "tag": minor.replace(".", "")}
    folders = [
        (_join_root(root, folder) if folder.startswith("/") else home / folder, pattern)
        for folder, pattern in _VERSION_FOLDERS
    ]
    if "PYENV_ROOT" in environment:
        folders.insert(0, (Path(environment["PYENV_ROOT"]) / "versions", _VERSION_FOLDERS[0][1]))
    for folder, pattern in folders:
        yield from sorted(folder.glob(pattern.format(**fields)), key=_version_key, reverse=True)
    yield from (_join_root(root, each) for each in _SYSTEM_FOLDERS)


def _join_root(root: Path, folder: str) -> Path:
    return root / folder.lstrip("/")


def _version_key(folder: Path) -> list[int]:
    """Return the numbers in a path, so that 3.12.10 sorts after 3.12.9."""
    return [int(each) for each in re.findall(r"\d+", str(folder))]
