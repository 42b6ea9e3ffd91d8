"""Builds every package of the stack, and refuses what Lambda would refuse.

What comes from locks is kept in ``.build`` under a name made of all that went into it; code is packed each time.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from infrastructure.config import StackSettings
from infrastructure.function_manifest import Manifest, read_manifest
from infrastructure.packaging import elf, lock, wheels, zip_archive
from infrastructure.packaging.package import Package, Packages
from infrastructure.packaging.wheels import Target
from infrastructure.packaging.zip_archive import Entry

# A function with its layers, unpacked: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_UNPACKED_BYTES = 250 * 2**20
# The 68-point predictor: https://github.com/ageitgey/face_recognition_models (NOTICE says what its licence permits).
LANDMARKS = "face_recognition_models/models/shape_predictor_68_face_landmarks.dat"
MANIFESTS = ("lambdas/functions.toml", "lambdas/operations/functions.toml")
# Modules that ``import gorggle`` loads; with gorggle.captions, they need the standard library only.
SDK_WITHOUT_GRPC = frozenset(
    f"gorggle/{name}.py" for name in ("__init__", "errors", "events", "results", "server_info", "version")
)
# Part of each kept package's name: changed when packages are made otherwise.
BUNDLE_FORMAT_VERSION = "1"


def packages(root: Path, settings: StackSettings) -> Packages:
    """Build what the settings ask for.

    Raises:
        ValueError: a package is too large for Lambda, or holds a library that would not load there.
        RuntimeError: a wheel cannot be had.
    """
    kept = root / ".build" / "packages"
    target = Target(settings.architecture, settings.python_version)
    layers = {name: layer(name, target, kept) for name in lock.LAYERS}
    code = {
        name: zip_archive.write(kept / f"code-{name}.zip", list(entries))
        for name, entries in code_entries(root)
    }
    for path in MANIFESTS:
        check_sizes(read_manifest(root / path), code, layers)
    return Packages(code=code, layers=layers, server=server_bundle(root, kept))


def layer(name: str, target: Target, kept: Path) -> Package:
    """A layer: the lock's wheels, unpacked where Lambda looks for Python packages.

    Raises:
        ValueError: it holds a library for another processor or a newer glibc.
    """
    lock_file = lock.LOCKS / f"{name}.lock"
    marks = f"{BUNDLE_FORMAT_VERSION} {target} {lock_file.read_text()}"
    path = kept / f"layer-{name}-{hashlib.sha256(marks.encode()).hexdigest()[:16]}.zip"
    if path.exists():
        return Package.of(path)
    folder = wheels.folder_of(name, target, kept.parent)
    found = wheels.download(lock_file, target, folder)
    entries = [entry for wheel in found for entry in wheels.unpacked(wheel, "python")]
    for entry in entries:
        check_library(entry, target)
    return zip_archive.write(path, entries)


def check_library(entry: Entry, target: Target) -> None:
    """Hold a compiled library against the machine it is for.

    Raises:
        ValueError: it would not load there.
    """
    if not elf.is_elf(entry.content):
        return
    machine, needed = elf.machine(entry.content), elf.glibc(entry.content)
    if machine != target.architecture:
        raise ValueError(f"{entry.name} is for {machine}, and the functions run on {target.architecture}")
    if needed > wheels.GLIBC:
        found, has = (".".join(map(str, version)) for version in (needed, wheels.GLIBC))
        raise ValueError(f"{entry.name} needs glibc {found}, and Amazon Linux 2023 has {has}")


def check_sizes(manifest: Manifest, code: dict[str, Package], layers: dict[str, Package]) -> None:
    """Add up what each function brings.

    Raises:
        ValueError: it is more than Lambda takes.
    """
    for name, size in sizes(manifest, code, layers).items():
        if size > MAX_UNPACKED_BYTES:
            raise ValueError(
                f"{name} takes {size / 2**20:.0f} MiB with its layers; Lambda takes "
                f"{MAX_UNPACKED_BYTES / 2**20:.0f} MiB: drop a dependency, or leave out more of it"
            )


def sizes(manifest: Manifest, code: dict[str, Package], layers: dict[str, Package]) -> dict[str, int]:
    """What each function takes with its layers, unpacked, in bytes."""
    found = {}
    for function in manifest.functions.values():
        own = code["full" if "media" in function.layers else "thin"]
        found[function.name] = own.unpacked_bytes + sum(
            layers[name].unpacked_bytes for name in function.layers
        )
    return found


def code_entries(root: Path) -> Iterator[tuple[str, Iterator[Entry]]]:
    """The kinds of code, and the files of each."""
    yield "thin", _without_grpc(root)
    yield "full", _with_sdk(root)
    yield "operations", _operations(root)


def _without_grpc(root: Path) -> Iterator[Entry]:
    yield from zip_archive.files_below(root / "lambdas", "gorggle_lambdas")
    for entry in zip_archive.files_below(root / "clients/python/gorggle", "gorggle"):
        if entry.name in SDK_WITHOUT_GRPC or entry.name.startswith("gorggle/captions/"):
            yield entry


def _with_sdk(root: Path) -> Iterator[Entry]:
    yield from zip_archive.files_below(root / "lambdas", "gorggle_lambdas")
    yield from zip_archive.files_below(root / "clients/python/gorggle", "gorggle")


def _operations(root: Path) -> Iterator[Entry]:
    yield Entry("gorggle_lambdas/__init__.py", (root / "lambdas/__init__.py").read_bytes())
    yield from zip_archive.files_below(root / "lambdas/operations", "gorggle_lambdas/operations")


def server_bundle(
    root: Path, kept: Path, targets: tuple[Target, ...] = lock.SERVER_TARGETS, name: str = "server"
) -> Package:
    """What a GPU instance installs: our own wheel, the locked ones, the landmark model, and the start-up files."""
    lock_file = lock.LOCKS / "server.lock"
    found = {
        wheel.name: wheel
        for target in targets
        for wheel in wheels.download(lock_file, target, kept.parent / "wheels" / f"server-{target.python}")
    }
    own = own_wheel(root, kept)
    entries = [Entry(f"wheels/{each}", wheel.read_bytes()) for each, wheel in found.items()]
    entries += [
        Entry(f"own/{own.name}", own.read_bytes()),
        Entry("server.lock", lock_file.read_bytes()),
        Entry("models/landmarks.dat", landmark_model(kept)),
        Entry("infrastructure/__init__.py", (root / "infrastructure/__init__.py").read_bytes()),
    ]
    entries += zip_archive.files_below(
        root / "infrastructure/instance_agent", "infrastructure/instance_agent"
    )
    # Wheels are compressed already.
    return zip_archive.write(kept / f"{name}.zip", entries, compressed=False)


def own_wheel(root: Path, kept: Path) -> Path:
    """This project's wheel, built from the working tree."""
    folder = kept / "own"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):
        old.unlink()
    command = ["wheel", "--quiet", "--no-deps", f"--wheel-dir={folder}", str(root)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"this project's wheel cannot be built: {done.stderr.strip()[-2000:]}")
    (built,) = folder.glob("*.whl")
    return built


def landmark_model(kept: Path) -> bytes:
    """The landmark model's file, out of the archive that the lock names."""
    folder = kept.parent / "wheels" / "landmarks"
    source = next(folder.glob("*.tar.gz"), None)
    if source is None:
        source = wheels.download_source(lock.LOCKS / "landmarks.lock", folder)
    with tarfile.open(source) as opened:
        name = next(each for each in opened.getnames() if each.endswith(LANDMARKS))
        member = opened.extractfile(name)
        assert member is not None, f"{name} is a file"
        return member.read()
