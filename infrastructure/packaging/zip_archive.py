"""Reproducible zip files: the same files always give the same bytes."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from infrastructure.packaging.package import Package

# The earliest date that a zip file can hold.
DATE = (1980, 1, 1, 0, 0, 0)
MODE = 0o100644
EXCLUDED = {"__pycache__", ".pytest_cache", ".mypy_cache", ".DS_Store"}


@dataclass(frozen=True)
class Entry:
    """One file of an archive."""

    name: str
    content: bytes


def list_files(folder: Path, prefix: str = "") -> Iterator[Entry]:
    """Yield the files below a folder, without caches of tools."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and path.suffix != ".pyc" and not EXCLUDED.intersection(parts):
            yield Entry(str(PurePosixPath(prefix, *parts)), path.read_bytes())


def write(path: Path, entries: Iterable[Entry], *, compressed: bool = True) -> Package:
    """Write an archive with sorted entries, fixed dates and fixed modes.

    Raises:
        ValueError: two entries have the same name.
    """
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    last = ""
    with zipfile.ZipFile(draft, "w", method, compresslevel=9 if compressed else None) as archive:
        for entry in sorted(entries, key=lambda each: each.name):
            if entry.name == last:
                raise ValueError(f"{path.name} would contain {entry.name} twice")
            last = entry.name
            info = zipfile.ZipInfo(entry.name, DATE)
            info.external_attr, info.compress_type = MODE << 16, method
            info.create_system = 3  # Unix, on every platform
            archive.writestr(info, entry.content)
    draft.replace(path)
    return Package.read(path)
