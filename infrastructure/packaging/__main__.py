"""``python -m infrastructure.packaging``: build the functions' layers from their locks, and hold them against Lambda's limits.

For a processor that this machine does not have, too: wheels are downloaded, checked by hash, and unpacked; nothing is
compiled or run. ``pulumi up`` does the same with the settings' own processor and Python.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from infrastructure import function_manifest
from infrastructure.packaging import build, elf, lock, wheels, zip_archive
from infrastructure.packaging.package import Package
from infrastructure.packaging.wheels import Target

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20


@dataclass(frozen=True)
class Contents:
    """What a layer holds: compiled libraries, and the newest glibc that any of them asks for."""

    libraries: int
    glibc: elf.Version


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    options = _parser().parse_args(arguments)
    targets = [
        target
        for target in lock.LAMBDA_TARGETS
        if options.architecture in (None, target.architecture) and options.python in (None, target.python)
    ]
    for target in targets:
        for line in planned(target) if options.plan else built(target, options.folder):
            print(line, flush=True)


def planned(target: Target) -> Iterator[str]:
    """What would be asked of pip."""
    for name in lock.LAYERS:
        folder = wheels.folder_of(name, target, ROOT / ".build")
        command = wheels.download_command(lock.LOCKS / f"{name}.lock", target, folder)
        yield " ".join(["pip", *command])


def built(target: Target, kept: Path) -> Iterator[str]:
    """Build the layers for a target and say what came of it.

    Raises:
        ValueError: a layer holds a library that would not load, or a function is too large with its layers.
        RuntimeError: a wheel cannot be had.
    """
    layers: dict[str, Package] = {}
    for name in lock.LAYERS:
        began = time.monotonic()
        layers[name] = made = build.layer(name, target, kept)
        found = contents(made)
        needs = f", needs glibc {'.'.join(map(str, found.glibc))}" if found.libraries else ""
        yield (
            f"{target.architecture} {target.python} {name}: {made.unpacked_bytes / MIB:.1f} MiB unpacked, "
            f"{made.path.stat().st_size / MIB:.1f} MiB packed, {found.libraries} libraries{needs} "
            f"({time.monotonic() - began:.0f} s)"
        )
    with tempfile.TemporaryDirectory() as folder:
        code = {
            name: zip_archive.write(Path(folder) / f"{name}.zip", list(entries))
            for name, entries in build.code_entries(ROOT)
        }
    for path in build.MANIFESTS:
        described = function_manifest.read_manifest(ROOT / path)
        build.check_sizes(described, code, layers)
        largest = max(build.sizes(described, code, layers).items(), key=lambda each: each[1])
        yield (
            f"{target.architecture} {target.python} largest function of {path}: {largest[0]} with "
            f"{largest[1] / MIB:.1f} of {build.MAX_UNPACKED_BYTES / MIB:.0f} MiB"
        )


def contents(layer: Package) -> Contents:
    """Look into a layer."""
    needs = []
    with zipfile.ZipFile(layer.path) as opened:
        for name in opened.namelist():
            content = opened.read(name)
            if elf.is_elf(content):
                needs.append(elf.glibc(content))
    return Contents(len(needs), max(needs, default=(0, 0)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infrastructure.packaging", description=__doc__)
    architectures = sorted({target.architecture for target in lock.LAMBDA_TARGETS})
    pythons = sorted({target.python for target in lock.LAMBDA_TARGETS})
    parser.add_argument("--architecture", choices=architectures, help="one processor alone (default: all)")
    parser.add_argument("--python", choices=pythons, help="one Python alone (default: all)")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".build" / "packages", help="where packages are kept"
    )
    parser.add_argument("--plan", action="store_true", help="say what would be downloaded, and do nothing")
    return parser


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, ValueError) as error:
        sys.exit(f"python -m infrastructure.packaging: error: {error}")
