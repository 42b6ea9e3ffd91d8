"""Install and download hash-locked wheels for the platforms of Lambda and of the GPU instances."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Amazon Linux 2023 has glibc 2.34. pip matches platform tags literally, so every older tag is listed too.
GLIBC = (2, 34)
OLDEST_GLIBC = (2, 17)
_MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Target:
    """A platform: architecture (``x86_64`` or ``arm64``) and Python version, such as ``3.12``."""

    architecture: str
    python: str

    @property
    def uv_platform(self) -> str:
        """The platform as uv names it."""
        return f"{_MACHINES[self.architecture]}-manylinux_{GLIBC[0]}_{GLIBC[1]}"

    @property
    def pip_platforms(self) -> list[str]:
        """All platform tags that run there, newest first."""
        machine = _MACHINES[self.architecture]
        minors = range(GLIBC[1], OLDEST_GLIBC[1] - 1, -1)
        return [f"manylinux_2_{minor}_{machine}" for minor in minors] + [f"manylinux2014_{machine}"]


def install_wheels(lock: Path, target: Target, folder: Path) -> None:
    """Install the wheels of a lock for another platform into a folder.

    Raises:
        RuntimeError: a wheel does not exist, or its hash does not match.
    """
    platform = ("--python-platform", target.uv_platform, "--python-version", target.python)
    _install(lock, folder, *platform, "--only-binary", ":all:")


def install_source(lock: Path, folder: Path) -> None:
    """Build and install the source distribution of a lock into a folder.

    Raises:
        RuntimeError: it does not exist, its hash does not match, or the build fails.
    """
    _install(lock, folder)


def _install(lock: Path, folder: Path, *options: str) -> None:
    run_uv("pip", "install", "--no-deps", "--require-hashes", "--target", folder, *options, "-r", lock)


def download_wheels(lock: Path, target: Target, folder: Path) -> list[Path]:
    """Download the wheels of a lock into a folder, with pip: uv has no such command.

    Raises:
        RuntimeError: a wheel does not exist, or its hash does not match.
    """
    minor = target.python.replace(".", "")
    options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", f"--dest={folder}"]
    options += ["--implementation=cp", f"--python-version={target.python}"]
    options += [f"--abi={abi}" for abi in (f"cp{minor}", "abi3", "none")]
    options += [f"--platform={tag}" for tag in target.pip_platforms]
    _run("pip", "download", "--disable-pip-version-check", *options, "--requirement", lock)
    return sorted(folder.glob("*.whl"))


def run_uv(*args: str | Path) -> None:
    """Run uv.

    Raises:
        RuntimeError: it fails; the message ends with its error output.
    """
    _run("uv", "--quiet", "--no-python-downloads", *args)


def _run(module: str, *args: str | Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", module, *args], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise RuntimeError(f"{module} {' '.join(map(str, args[:2]))} failed: {result.stderr.strip()[-2000:]}")
