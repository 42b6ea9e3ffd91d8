"""The functions' packages for this machine: code as on AWS, and layers of one of two kinds.

On AWS the layers hold wheels for Lambda's Python and glibc. Where somebody has built those and names an interpreter that
takes them, they are used here as they are; else layers hold the same distributions as they are installed beside this
file, for the interpreter that runs it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

# What each layer holds; further distributions that these need are in none of them but in the runtime.
LAYERS = {
    "base": ("aws-lambda-powertools", "aws-xray-sdk", "wrapt", "typing_extensions", "jmespath", "PyYAML"),
    "media": ("grpcio", "protobuf", "av", "numpy", "typing_extensions"),
    "certificates": ("cryptography", "cffi", "pycparser"),
}
# What Lambda's own Python runtime brings.
RUNTIME = (
    *("awslambdaric", "simplejson", "snapshot-restore-py"),
    *("boto3", "botocore", "s3transfer", "jmespath", "python-dateutil", "six", "urllib3"),
)
# In a layer that lists what it consists of: names of distributions, or the path of a built layer.
REFERENCE_FILE = "distributions.json"
# A zip's own dates and modes, so that the same content is the same file.
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
    """The functions' code: ``lambdas``, and the SDK that some of them speak to the server with."""
    sources = [
        source
        for name in ("gorggle_lambdas", "gorggle")
        for source in _list_files(_find_package(name), Path(name))
    ]
    return _zip_files(sources, target)


def _find_package(name: str) -> Path:
    """A package's folder, in a working tree or where it was installed."""
    found = find_spec(name)
    assert found is not None, f"{name} comes with this package"
    assert found.origin is not None, f"{name} is a regular package"
    return Path(found.origin).parent


def build_layer_zip(layer: str, target: Path) -> Path:
    """A layer of this environment's distributions, below ``python/`` as Lambda wants it."""
    sources = [(path, Path("python") / name) for path, name in _list_distribution_files(LAYERS[layer])]
    return _zip_files(sources, target)


def build_distributions_layer_zip(layer: str, target: Path) -> Path:
    """A layer that lists its distributions instead of holding them: whoever unzips it on this machine finds them.

    Most of the time that a pipeline takes to start would go into moving a hundred megabytes through moto.
    """
    return _zip_texts({REFERENCE_FILE: json.dumps(LAYERS[layer])}, target)


def build_path_layer_zip(built: Path, target: Path) -> Path:
    """A layer that says where a built one lies: whoever unzips it on this machine gets that one."""
    return _zip_texts({REFERENCE_FILE: json.dumps(str(built.resolve()))}, target)


def prepare_runtime(cache: Path, built: Path | None = None) -> Path:
    """A folder with what Lambda's runtime brings; nothing else of this environment can be imported from it.

    Args:
        cache: where it is made.
        built: a zip of it for another interpreter, below ``python/`` as in a layer; None: of this environment.
    """
    if built is not None:
        return unzip(built.read_bytes(), cache) / "python"
    return _copy_distributions(RUNTIME, cache, "runtime", Path())


def _copy_distributions(names: Sequence[str], cache: Path, kind: str, below: Path) -> Path:
    """A folder with distributions, made once for each state of them."""
    files = list(_list_distribution_files(names))
    folder = cache / f"{kind}-{_digest(files)}"
    if not folder.exists():
        draft = folder.with_name(f"{folder.name}.{os.getpid()}")
        for path, name in files:
            (draft / below / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, draft / below / name)
        _move_into_place(draft, folder)
    return folder


def unzip(content: bytes, cache: Path) -> Path:
    """A zip's content in a folder, made once for each content."""
    folder = cache / f"zip-{hashlib.sha256(content).hexdigest()[:32]}"
    if not folder.exists():
        draft = folder.with_name(f"{folder.name}.{os.getpid()}")
        archive = draft.with_suffix(".zip")
        archive.parent.mkdir(parents=True, exist_ok=True)
        archive.write_bytes(content)
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(draft)
        archive.unlink()
        _move_into_place(draft, folder)
    if (folder / REFERENCE_FILE).is_file():
        listed = json.loads((folder / REFERENCE_FILE).read_text())
        if isinstance(listed, str):
            return unzip(Path(listed).read_bytes(), cache)
        return _copy_distributions(listed, cache, "layer", Path("python"))
    return folder


def _move_into_place(draft: Path, folder: Path) -> None:
    try:
        draft.rename(folder)
    except OSError:
        # Another process was quicker; it has made the same.
        shutil.rmtree(draft)


def _list_files(folder: Path, below: Path) -> Iterator[tuple[Path, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not _is_excluded(path.as_posix()):
            yield path, below / path.relative_to(folder)


def _list_distribution_files(names: Sequence[str]) -> Iterator[tuple[Path, Path]]:
    for name in names:
        for file in metadata.files(name) or []:
            path = Path(str(file.locate()))
            # Scripts lie outside of the packages' folder; nothing imports them.
            if file.parts[0] != ".." and path.is_file() and not _is_excluded(path.as_posix()):
                yield path, Path(*file.parts)


def _is_excluded(path: str) -> bool:
    return any(part in path for part in _EXCLUDED)


def _zip_files(sources: Sequence[tuple[Path, Path]], target: Path) -> Path:
    ordered = sorted(sources, key=lambda source: source[1].as_posix())
    return _write_zip(((name.as_posix(), path.read_bytes()) for path, name in ordered), target)


def _zip_texts(texts: Mapping[str, str], target: Path) -> Path:
    return _write_zip(((name, text.encode()) for name, text in sorted(texts.items())), target)


def _write_zip(contents: Iterable[tuple[str, bytes]], target: Path) -> Path:
    draft = target.with_name(f"{target.name}.{os.getpid()}")
    # Not compressed: it goes nowhere but into this machine's memory.
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents:
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    draft.rename(target)
    return target


def _digest(files: Sequence[tuple[Path, Path]]) -> str:
    told = "\n".join(f"{name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path, name in files)
    return hashlib.sha256(told.encode()).hexdigest()[:16]
