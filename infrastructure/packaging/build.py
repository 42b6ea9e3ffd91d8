"""Build every package of the stack and check the size limits of Lambda.

Packages that come from locks are cached in ``.build/packages`` under a name that contains a hash of their inputs. Code is
packed each time.
"""

from __future__ import annotations

import fcntl
import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infrastructure.config import StackSettings
from infrastructure.function_manifest import Manifest, read_manifest
from infrastructure.packaging import lock, wheels, zip_archive
from infrastructure.packaging.package import Package, Packages
from infrastructure.packaging.wheels import Target
from infrastructure.packaging.zip_archive import Entry

# A function with its layers, unpacked: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_UNPACKED_BYTES = 250 * 2**20
# The 68-point predictor: https://github.com/ageitgey/face_recognition_models (see NOTICE for its licence).
LANDMARK_MODEL = "face_recognition_models/models/shape_predictor_68_face_landmarks.dat"
MANIFESTS = ("lambdas/functions.toml", "lambdas/operations/functions.toml")
# What ``import gorggle`` loads; together with gorggle.captions this needs only the standard library.
SDK_WITHOUT_GRPC = frozenset(
    f"gorggle/{name}.py" for name in ("__init__", "errors", "events", "results", "server_info", "version")
)
# Part of every cached package's name; change it when the format of the packages changes.
BUNDLE_FORMAT_VERSION = "2"
# Not needed at run time: type stubs, headers, sources, tests, scripts, and what the installer records.
_EXCLUDED_SUFFIXES = (".pyi", ".pxd", ".pyx", ".h", ".hpp", ".c", ".cpp", ".a", ".lib", ".exe")
_EXCLUDED_NAMES = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", ".lock"}
_EXCLUDED_FOLDERS = {"tests", "include"}


def build_packages(root: Path, settings: StackSettings) -> Packages:
    """Build all packages for the settings' architecture and Python version.

    Raises:
        ValueError: a package is too large for Lambda.
        RuntimeError: a wheel cannot be installed.
    """
    cache = root / ".build" / "packages"
    target = Target(settings.architecture, settings.python_version)
    layers = {name: build_layer(name, target, cache) for name in lock.LAYERS}
    code = build_code(root, cache)
    for path in MANIFESTS:
        check_sizes(read_manifest(root / path), code, layers)
    return Packages(code=code, layers=layers, server=build_server_bundle(root, cache))


def build_layer(name: str, target: Target, cache: Path) -> Package:
    """Build a layer: the lock's packages, in ``python/``, where Lambda looks for them.

    Raises:
        RuntimeError: a wheel cannot be installed.
    """
    lock_file = lock.LOCKS / f"{name}.lock"
    inputs = f"{BUNDLE_FORMAT_VERSION} {target} {lock_file.read_text()}"
    path = cache / f"layer-{name}-{hashlib.sha256(inputs.encode()).hexdigest()[:16]}.zip"
    with _locked(cache), tempfile.TemporaryDirectory() as folder:
        if path.exists():
            return Package.read(path)
        wheels.install_wheels(lock_file, target, Path(folder))
        return zip_archive.write(path, list_layer_files(Path(folder)))


def list_layer_files(folder: Path) -> Iterator[Entry]:
    """Yield the files that a layer needs of an installation."""
    for entry in zip_archive.list_files(folder, "python"):
        path = Path(entry.name)
        is_excluded = (
            path.suffix in _EXCLUDED_SUFFIXES
            or path.name in _EXCLUDED_NAMES
            or path.parts[1] == "bin"
            or _EXCLUDED_FOLDERS.intersection(path.parts[:-1])
        )
        if not is_excluded:
            yield entry


def check_sizes(manifest: Manifest, code: dict[str, Package], layers: dict[str, Package]) -> None:
    """Check the size of each function with its layers.

    Raises:
        ValueError: it exceeds Lambda's limit.
    """
    for name, size in compute_sizes(manifest, code, layers).items():
        if size > MAX_UNPACKED_BYTES:
            raise ValueError(
                f"{name} takes {size / 2**20:.0f} MiB with its layers; the limit of Lambda is "
                f"{MAX_UNPACKED_BYTES / 2**20:.0f} MiB: remove a dependency, or exclude more of its files"
            )


def compute_sizes(manifest: Manifest, code: dict[str, Package], layers: dict[str, Package]) -> dict[str, int]:
    """Return the unpacked size in bytes of each function with its layers."""
    return {
        function.name: code["full" if "media" in function.layers else "thin"].unpacked_bytes
        + sum(layers[name].unpacked_bytes for name in function.layers)
        for function in manifest.functions.values()
    }


def build_code(root: Path, folder: Path) -> dict[str, Package]:
    """Build the code packages by kind: ``thin`` (handlers, fusion, SDK without gRPC), ``full`` (the whole SDK), ``operations``."""
    return {
        kind: zip_archive.write(folder / f"code-{kind}.zip", entries)
        for kind, entries in list_code_files(root).items()
    }


def list_code_files(root: Path) -> dict[str, list[Entry]]:
    """Return the files of each kind of code package."""
    handlers = list(zip_archive.list_files(root / "lambdas", "gorggle_lambdas"))
    fusion = list(zip_archive.list_files(root / "fusion", "gorggle_fusion"))
    sdk = list(zip_archive.list_files(root / "clients/python/gorggle", "gorggle"))
    base = [
        each for each in sdk if each.name in SDK_WITHOUT_GRPC or each.name.startswith("gorggle/captions/")
    ]
    operations = zip_archive.list_files(root / "lambdas/operations", "gorggle_lambdas/operations")
    package = Entry("gorggle_lambdas/__init__.py", (root / "lambdas/__init__.py").read_bytes())
    return {
        "thin": [*handlers, *fusion, *base],
        "full": [*handlers, *fusion, *sdk],
        "operations": [package, *operations],
    }


def build_server_bundle(
    root: Path, cache: Path, targets: tuple[Target, ...] = lock.SERVER_TARGETS, name: str = "server"
) -> Package:
    """Build what a GPU instance installs: this project's wheel, the locked wheels, the landmark model and the agent."""
    lock_file = lock.LOCKS / "server.lock"
    inputs = hashlib.sha256(f"{targets} {lock_file.read_text()}".encode()).hexdigest()[:16]
    downloads = cache.parent / "wheels" / f"server-{inputs}"
    with _locked(downloads):
        found = [
            wheel for target in targets for wheel in wheels.download_wheels(lock_file, target, downloads)
        ]
        landmark_model = _install_landmark_model(downloads / "landmarks.dat")
    entries = [Entry(f"wheels/{wheel.name}", wheel.read_bytes()) for wheel in sorted(set(found))]
    with tempfile.TemporaryDirectory() as folder:
        own = build_own_wheel(root, Path(folder))
        entries.append(Entry(f"own/{own.name}", own.read_bytes()))
    agent = "infrastructure/instance_agent"
    entries += [
        Entry("server.lock", lock_file.read_bytes()),
        Entry("models/landmarks.dat", landmark_model.read_bytes()),
        Entry("infrastructure/__init__.py", (root / "infrastructure/__init__.py").read_bytes()),
        *zip_archive.list_files(root / agent, agent),
    ]
    # Wheels are compressed already.
    return zip_archive.write(cache / f"{name}.zip", entries, compressed=False)


def build_own_wheel(root: Path, folder: Path) -> Path:
    """Build this project's wheel from the working tree into an empty folder.

    Raises:
        RuntimeError: the build fails.
    """
    wheels.run_uv("build", "--wheel", "--out-dir", folder, root)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _install_landmark_model(path: Path) -> Path:
    """Return the model's file; it is published in a source distribution only."""
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            wheels.install_source(lock.LOCKS / "landmarks.lock", Path(folder))
            (Path(folder) / LANDMARK_MODEL).rename(path)
    return path


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time write to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
