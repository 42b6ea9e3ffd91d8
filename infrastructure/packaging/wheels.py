"""Wheels for another machine than this one: resolved, locked by hash, downloaded, unpacked."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from infrastructure.packaging.zip_archive import Entry

# Amazon Linux 2023's glibc. pip takes a platform by its word: 2_34 alone would find no wheel that is tagged 2_28.
GLIBC = (2, 34)
OLDEST_GLIBC = (2, 17)
_MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}
# Not for running: type stubs, headers, sources, tests.
_LEFT_OUT_SUFFIXES = (".pyi", ".pxd", ".pyx", ".h", ".hpp", ".c", ".cpp", ".a", ".lib", ".exe")
_LEFT_OUT_FOLDERS = {"tests", "include"}


@dataclass(frozen=True)
class Target:
    """What wheels are for: ``x86_64`` or ``arm64``, and a Python such as ``3.12``."""

    architecture: str
    python: str

    @property
    def options(self) -> list[str]:
        """How pip is told; built packages alone, since nothing can be compiled for another machine."""
        minor = self.python.replace(".", "")
        abis = [f"cp{minor}", "abi3", "none"]
        options = ["--only-binary=:all:", "--implementation=cp", f"--python-version={self.python}"]
        options += [f"--abi={abi}" for abi in abis]
        return options + [f"--platform={each}" for each in self.platforms]

    @property
    def platforms(self) -> list[str]:
        """Every tag that runs there, the newest first."""
        name = _MACHINES[self.architecture]
        versions = range(GLIBC[1], OLDEST_GLIBC[1] - 1, -1)
        return [f"manylinux_2_{minor}_{name}" for minor in versions] + [f"manylinux2014_{name}"]


def resolve(requirements: Sequence[str], target: Target) -> dict[str, tuple[str, str]]:
    """What pip would install: name to version and SHA-256.

    Raises:
        RuntimeError: pip finds no answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "install",
            "--dry-run",
            "--ignore-installed",
            "--report=-",
            "--quiet",
            f"--target={folder}",
        ]
        report = json.loads(_pip([*command, *target.options, *requirements]))
    return {each["metadata"]["name"]: _locked(each) for each in report["install"]}


def _locked(found: dict[str, Any]) -> tuple[str, str]:
    return found["metadata"]["version"], found["download_info"]["archive_info"]["hashes"]["sha256"]


def download(lock: Path, target: Target, folder: Path) -> list[Path]:
    """The lock's wheels for a target; each is checked against its hash.

    Raises:
        RuntimeError: one is not there, or is not what was locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _pip(download_command(lock, target, folder))
    # The folder is kept: wheels of older locks lie there, too.
    wanted = set(locked_versions(lock.read_text()).items())
    return [wheel for wheel in sorted(folder.glob("*.whl")) if _name_and_version(wheel) in wanted]


def download_command(lock: Path, target: Target, folder: Path) -> list[str]:
    """What pip is told: this lock and nothing else, for the target and not for this machine."""
    command = ["download", "--quiet", "--no-deps", "--require-hashes", f"--dest={folder}"]
    return [*command, *target.options, "--requirement", str(lock)]


def folder_of(name: str, target: Target, build: Path) -> Path:
    """Where a layer's wheels are kept."""
    return build / "wheels" / f"{name}-{target.architecture}-{target.python}"


def locked_versions(lock: str) -> dict[str, str]:
    """Names and versions in a lock."""
    return {canonicalize_name(name): version for name, version in re.findall(r"(?m)^([\w.-]+)==(\S+)", lock)}


def canonicalize_name(name: str) -> str:
    """A package's name as PyPI compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _name_and_version(wheel: Path) -> tuple[str, str]:
    name, version = wheel.name.split("-")[:2]
    return canonicalize_name(name), version


def download_source(lock: Path, folder: Path) -> Path:
    """The lock's one source archive.

    Raises:
        RuntimeError: it is not there, or is not what was locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--quiet", "--no-deps", "--require-hashes", "--no-binary=:all:", f"--dest={folder}"]
    _pip(["download", *options, "--requirement", str(lock)])
    (archive,) = folder.glob("*.tar.gz")
    return archive


def _pip(arguments: Sequence[str]) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip {arguments[0]} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


def unpacked(wheel: Path, prefix: str) -> Iterator[Entry]:
    """A wheel's files as they lie when installed, without scripts and what nobody runs."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            place = _place(PurePosixPath(name))
            if place is not None and not name.endswith("/"):
                yield Entry(str(PurePosixPath(prefix, place)), archive.read(name))


def _place(path: PurePosixPath) -> PurePosixPath | None:
    parts = path.parts
    if parts[0].endswith(".data"):
        if parts[1] not in ("purelib", "platlib"):
            return None
        parts = parts[2:]
    # RECORD speaks of all files, also of those that are left out here.
    unwanted = (
        path.suffix in _LEFT_OUT_SUFFIXES or path.name == "RECORD" or _LEFT_OUT_FOLDERS & set(parts[:-1])
    )
    return None if unwanted else PurePosixPath(*parts)
