"""Zip files that are the same, byte for byte, whenever they are made of the same files."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from infrastructure.packaging.package import Package

# The first date that a zip file knows.
DATE = (1980, 1, 1, 0, 0, 0)
MODE = 0o100644
LEFT_OUT = ("__pycache__", ".pytest_cache", ".mypy_cache", ".DS_Store")


@dataclass(frozen=True)
class Entry:
    """One file of an archive: its name there, and what it holds."""

    name: str
    content: bytes


def files_below(folder: Path, prefix: str = "") -> Iterator[Entry]:
    """A folder's files, without what tools leave behind."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and path.suffix != ".pyc" and not set(parts) & set(LEFT_OUT):
            yield Entry(str(PurePosixPath(prefix, *parts)), path.read_bytes())


def write(path: Path, entries: Iterable[Entry], *, compressed: bool = True) -> Package:
    """Write an archive: sorted, with fixed dates and modes.

    Raises:
        ValueError: two entries have one name.
    """
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    last = ""
    with zipfile.ZipFile(unfinished, "w", method, compresslevel=9 if compressed else None) as archive:
        for entry in sorted(entries, key=lambda each: each.name):
            if entry.name == last:
                raise ValueError(f"{path.name} would hold {entry.name} twice")
            last = entry.name
            info = zipfile.ZipInfo(entry.name, DATE)
            info.external_attr, info.compress_type = MODE << 16, method
            info.create_system = 3  # Unix, wherever it is made
            archive.writestr(info, entry.content)
    unfinished.replace(path)
    return Package.of(path)
