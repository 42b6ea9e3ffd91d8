"""Lambda packages for the local AWS: code as on AWS, and layers.

Layers are either those built for AWS, with an interpreter that can load them, or consist of the same distributions as
installed in this environment.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

# Distributions of each layer; their other dependencies are part of the runtime.
LAYERS = {
    "base": ("aws-lambda-powertools", "aws-xray-sdk", "wrapt", "typing_extensions", "jmespath", "PyYAML"),
    "media": ("googleapis-common-protos", "grpcio", "protobuf", "av", "numpy", "typing_extensions"),
    "certificates": ("cryptography", "cffi", "pycparser"),
}
# Distributions of Lambda's Python runtime.
RUNTIME = (
    *("awslambdaric", "simplejson", "snapshot-restore-py"),
    *("boto3", "botocore", "s3transfer", "jmespath", "python-dateutil", "six", "urllib3"),
)
# A layer may contain only this file, with the names of its distributions or the path of a built layer.
REFERENCE_FILE = "distributions.json"
# Fixed, so that the same content gives the same file.
_DATE = (1980, 1, 1, 0, 0, 0)
_EXCLUDED = (
    "__pycache__",
    ".pyc",
    ".pyi",
    "/tests/",
    "/include/",
    ".dist-info/RECORD",
    ".dist-info/direct_url.json",
)


def build_code_zip(target: Path) -> Path:
    """Write the functions' code: the handlers, fusion and the SDK."""
    packages = ("gorggle_lambdas", "gorggle_fusion", "gorggle")
    files = (file for name in packages for file in _list_files(_find_package(name), name))
    return _write_zip(((name, path.read_bytes()) for path, name in files), target)


def _find_package(name: str) -> Path:
    """Return the folder of an importable package."""
    spec = find_spec(name)
    assert spec is not None, f"{name} is part of this project"
    assert spec.origin is not None, f"{name} is a regular package"
    return Path(spec.origin).parent


def build_reference_zip(reference: Sequence[str] | Path, target: Path) -> Path:
    """Write a layer that refers to its content, so that a hundred megabytes need not go through moto.

    Args:
        reference: names of distributions, or path of a built layer.
        target: of the zip.
    """
    content = str(reference.resolve()) if isinstance(reference, Path) else reference
    return _write_zip([(REFERENCE_FILE, json.dumps(content).encode())], target)


def prepare_runtime(cache: Path, built: Path | None = None) -> Path:
    """Return a folder with the packages of Lambda's runtime and nothing else.

    Args:
        cache: parent of the folder.
        built: zip with the packages for another interpreter, in ``python/``; None: those of this environment.
    """
    if built is not None:
        return unzip(built.read_bytes(), cache) / "python"
    return _copy_distributions(RUNTIME, cache, "runtime", Path())


def _copy_distributions(names: Sequence[str], cache: Path, kind: str, below: Path) -> Path:
    """Return a folder with copies of distributions; cached until they change."""
    files = list(_list_distribution_files(names))
    folder = cache / f"{kind}-{_digest(files)}"
    if not folder.exists():
        with _create_folder(folder) as draft:
            for path, name in files:
                (draft / below / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, draft / below / name)
    return folder


def unzip(content: bytes, cache: Path) -> Path:
    """Unzip a package and return its folder; cached by its content."""
    folder = cache / f"zip-{hashlib.sha256(content).hexdigest()[:32]}"
    if not folder.exists():
        with _create_folder(folder) as draft, zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(draft)
    if (folder / REFERENCE_FILE).is_file():
        listed = json.loads((folder / REFERENCE_FILE).read_text())
        if isinstance(listed, str):
            return unzip(Path(listed).read_bytes(), cache)
        return _copy_distributions(listed, cache, "layer", Path("python"))
    return folder


@contextlib.contextmanager
def _create_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, which becomes ``folder`` at the end, unless another process or thread was first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        yield draft
        with contextlib.suppress(OSError):  # the folder exists by now
            draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _list_files(folder: Path, below: str) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not _is_excluded(path.as_posix()):
            yield path, f"{below}/{path.relative_to(folder).as_posix()}"


def _list_distribution_files(names: Sequence[str]) -> Iterator[tuple[Path, Path]]:
    for name in names:
        for file in metadata.files(name) or []:
            path = Path(str(file.locate()))
            # Without scripts, which are outside of site-packages.
            if file.parts[0] != ".." and path.is_file() and not _is_excluded(path.as_posix()):
                yield path, Path(*file.parts)


def _is_excluded(path: str) -> bool:
    return any(part in path for part in _EXCLUDED)


def _write_zip(contents: Iterable[tuple[str, bytes]], target: Path) -> Path:
    draft = target.with_name(f"{target.name}.{os.getpid()}")
    # Uncompressed: it is only copied on this machine.
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents:
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    draft.rename(target)
    return target


def _digest(files: Sequence[tuple[Path, Path]]) -> str:
    listing = "\n".join(f"{name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path, name in files)
    return hashlib.sha256(listing.encode()).hexdigest()[:16]
