"""Build the Lambda layers of every architecture and Python version, and print their sizes: ``python -m infrastructure.packaging``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from infrastructure.function_manifest import read_manifest
from infrastructure.packaging import build, lock
from infrastructure.packaging.wheels import Target

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20


def main(args: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m infrastructure.packaging", description=__doc__)
    parser.add_argument("--architecture", choices=("x86_64", "arm64"), help="build for one architecture only")
    parser.add_argument("--python", choices=("3.12", "3.13"), help="build for one Python version only")
    parser.add_argument("--folder", type=Path, default=ROOT / ".build" / "packages", help="output folder")
    options = parser.parse_args(args)
    for target in lock.LAMBDA_TARGETS:
        if options.architecture in (None, target.architecture) and options.python in (None, target.python):
            for line in build_layers(target, options.folder):
                print(line, flush=True)


def build_layers(target: Target, cache: Path) -> Iterator[str]:
    """Build the layers of one target and yield a line for each.

    Raises:
        ValueError: a function is too large with its layers.
        RuntimeError: a wheel cannot be installed.
    """
    name = f"{target.architecture} {target.python}"
    layers = {}
    for role in lock.LAYERS:
        layers[role] = layer = build.build_layer(role, target, cache)
        packed_mib = layer.path.stat().st_size / MIB
        yield f"{name} {role}: {layer.unpacked_bytes / MIB:.1f} MiB unpacked, {packed_mib:.1f} MiB packed"
    with tempfile.TemporaryDirectory() as folder:
        code = build.build_code(ROOT, Path(folder))
    for path in build.MANIFESTS:
        manifest = read_manifest(ROOT / path)
        build.check_sizes(manifest, code, layers)
        sizes = build.compute_sizes(manifest, code, layers)
        largest = max(sizes, key=sizes.__getitem__)
        yield (
            f"{name} largest function of {path}: {largest}, {sizes[largest] / MIB:.1f} of "
            f"{build.MAX_UNPACKED_BYTES / MIB:.0f} MiB"
        )


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, ValueError) as error:
        sys.exit(f"python -m infrastructure.packaging: error: {error}")
