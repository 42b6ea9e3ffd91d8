"""Finds the Python that Lambda would run functions under, where this machine has it.

A command of that name need not be an interpreter: tools that manage several Pythons put scripts on the path which fail
unless a version is selected. So every candidate is run, and says itself what it is.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 10.0
# Imports what boto3 and numpy take of the standard library: an interpreter that was built without them is of no use.
_PROBE_SCRIPT = (
    "import ctypes, json, ssl, sys, sysconfig, zlib;"
    "print(json.dumps([sys.executable, sys.version.split()[0], sysconfig.get_config_var('SOABI')]))"
)
# Folders of whole versions, below the home folder or at the root, and the pattern of an interpreter in them: pyenv,
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


@dataclass(frozen=True)
class Interpreter:
    """A CPython.

    Attributes:
        executable: the interpreter itself, not a script that stands for it.
        version: with its micro part, such as "3.12.1".
    """

    executable: Path
    version: str

    def __str__(self) -> str:
        return f"CPython {self.version} ({self.executable})"


def current_interpreter() -> Interpreter:
    """The one that runs this."""
    return Interpreter(Path(sys.executable), platform.python_version())


def find_interpreter(
    minor: str, environment: Mapping[str, str] | None = None, home: Path | None = None, root: Path = Path("/")
) -> Interpreter | None:
    """The first interpreter of a version that loads what is built for Lambda on this processor; None: there is none.

    Args:
        minor: such as "3.12".
        environment: where PATH and PYENV_ROOT are looked up; None: this process's own.
        home: the folder below which tools keep their versions; None: the user's.
        root: what stands before the machine's own folders.
    """
    for candidate in list_candidates(
        minor, os.environ if environment is None else environment, home or Path.home(), root
    ):
        found = probe(candidate)
        if found is not None and found.version.rpartition(".")[0] == minor:
            return found
    return None


def list_candidates(minor: str, environment: Mapping[str, str], home: Path, root: Path) -> Iterator[Path]:
    """What may be such an interpreter: this one, then the path's, then the usual places', the newest first."""
    yield Path(sys.executable)
    name = f"python{minor}"
    searched = [Path(each) for each in environment.get("PATH", "").split(os.pathsep) if each]
    for folder in (*searched, *_list_folders(minor, environment, home, root)):
        for each in (folder / name, folder / "python3"):
            if os.access(each, os.X_OK) and each.is_file():
                yield each


def probe(executable: Path) -> Interpreter | None:
    """What an executable says that it is; None where it is no CPython that loads wheels for Lambda on this processor."""
    command = [str(executable), "-I", "-S", "-c", _PROBE_SCRIPT]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL
        )
        itself, version, abi = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
    # Of Linux with glibc and of one kind: free-threaded builds and musl have other names, and take other wheels.
    tag = "".join(version.split(".")[:2])
    if done.returncode or abi != f"cpython-{tag}-{platform.machine()}-linux-gnu":
        return None
    return Interpreter(Path(itself), version)


def _list_folders(minor: str, environment: Mapping[str, str], home: Path, root: Path) -> Iterator[Path]:
    fills = {"minor": minor, "tag": minor.replace(".", "")}
    places = [
        (_join_root(root, place) if place.startswith("/") else home / place, shape)
        for place, shape in _VERSION_FOLDERS
    ]
    if "PYENV_ROOT" in environment:
        places.insert(0, (Path(environment["PYENV_ROOT"]) / "versions", _VERSION_FOLDERS[0][1]))
    for place, shape in places:
        yield from sorted(place.glob(shape.format(**fills)), key=_version_key, reverse=True)
    yield from (_join_root(root, each) for each in _SYSTEM_FOLDERS)


def _join_root(root: Path, place: str) -> Path:
    return root / place.lstrip("/")


def _version_key(folder: Path) -> list[int]:
    """By the numbers in its path: 3.12.10 is newer than 3.12.9."""
    return [int(each) for each in re.findall(r"\d+", str(folder))]
