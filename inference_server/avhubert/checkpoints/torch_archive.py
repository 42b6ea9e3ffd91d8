"""Reads the two file formats of torch.save: a zip archive, and before 2020 a sequence of pickles."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from gorggle_server.avhubert.checkpoints import safe_unpickler
from gorggle_server.avhubert.checkpoints.tensor_storage import StorageReference
from gorggle_server.errors import ModelFormatError

ZIP_SIGNATURE = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

# Raised by zipfile on damaged archives.
_DAMAGE = (
    zipfile.BadZipFile,
    EOFError,
    ValueError,
    RuntimeError,
    OSError,
    OverflowError,
    MemoryError,
    struct.error,
)


@contextmanager
def open_checkpoint(path: Path) -> Iterator[Any]:
    """Load the object in a file; its tensors are ``TensorRecord``s that can be read until the context exits.

    Raises:
        ModelFormatError: the file is damaged, or names classes that are not allowed.
    """
    with path.open("rb") as file:
        is_zip = file.read(len(ZIP_SIGNATURE)) == ZIP_SIGNATURE
        file.seek(0)
        yield _load_zip(file) if is_zip else _load_legacy(file)


class _Storages:
    """Converts the pickle's storage references."""

    def __init__(self, read: Callable[[str], bytearray]) -> None:
        self.dtypes: dict[str, torch.dtype] = {}
        self._read = read
        self._last: tuple[str, bytearray] | None = None

    def load_reference(self, persistent_id: object) -> StorageReference:
        """Parse the persistent id ("storage", class, key, device, length), in legacy files followed by None."""
        if (
            not isinstance(persistent_id, tuple)
            or len(persistent_id) not in (5, 6)
            or persistent_id[0] != "storage"
        ):
            raise ModelFormatError("the checkpoint's pickle has a persistent id that is not a storage")
        _, storage_type, key, _, length, *view = persistent_id
        dtype = safe_unpickler.get_storage_dtype(storage_type)
        if dtype is None or not isinstance(key, str) or type(length) is not int or not 0 <= length < 2**48:
            raise ModelFormatError("the checkpoint's pickle describes an invalid storage")
        if view not in ([], [None]):
            raise ModelFormatError(
                "the checkpoint has storage views, which only torch before 2018 wrote: convert it"
            )
        if self.dtypes.setdefault(key, dtype) != dtype:
            raise ModelFormatError(f"the checkpoint gives storage {key} two dtypes")
        return StorageReference(dtype, length, lambda: self._read_storage(key))

    def _read_storage(self, key: str) -> bytearray:
        # Tensors that share a storage are read one after another.
        if self._last is None or self._last[0] != key:
            self._last = (key, self._read(key))
        return self._last[1]


def _load_zip(file: BinaryIO) -> Any:
    archive = _open_archive(file)
    names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(names) != 1:
        raise ModelFormatError(
            "the zip archive has no single data.pkl: expected a checkpoint written by torch.save"
        )
    folder = names[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and _read_entry(archive, f"{folder}byteorder") != b"little":
        raise ModelFormatError("the checkpoint was written on a big-endian machine; convert it there")
    storages = _Storages(lambda key: _read_entry(archive, f"{folder}data/{key}"))
    return safe_unpickler.loads(_read_entry(archive, names[0]), storages.load_reference)


def _open_archive(file: BinaryIO) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(file)
    except _DAMAGE as error:
        raise ModelFormatError(f"the checkpoint's zip archive is damaged or cut off: {error}") from error
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
        raise ModelFormatError(
            "the checkpoint's zip archive is compressed or encrypted, which torch.save does not do"
        )
    # Overlapping entries could announce far more data than the file has.
    size = file.seek(0, 2)
    if sum(entry.file_size for entry in entries) > size:
        raise ModelFormatError(
            f"the entries of the checkpoint's zip archive announce more than the file's {size} bytes"
        )
    return archive


def _read_entry(archive: zipfile.ZipFile, name: str) -> bytearray:
    try:
        data = bytearray(archive.getinfo(name).file_size)
        with archive.open(name) as entry:
            read = cast(io.BufferedIOBase, entry).readinto(data)
            # The checksum is verified when the end is reached.
            is_complete = read == len(data) and not entry.read(1)
    except KeyError:
        raise ModelFormatError(f"the checkpoint's zip archive has no {name}") from None
    except _DAMAGE as error:
        raise ModelFormatError(f"{name} in the checkpoint's zip archive is damaged: {error}") from error
    if not is_complete:
        raise ModelFormatError(
            f"{name} in the checkpoint's zip archive does not have the announced {len(data)} bytes"
        )
    return data


def _load_legacy(file: BinaryIO) -> Any:
    if safe_unpickler.load(file) != _LEGACY_MAGIC:
        raise ModelFormatError(
            "the file is a pickle but not a checkpoint: expected a file written by torch.save"
        )
    if safe_unpickler.load(file) != _LEGACY_PROTOCOL:
        raise ModelFormatError(f"the checkpoint's protocol is not torch's {_LEGACY_PROTOCOL}")
    machine = safe_unpickler.load(file)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ModelFormatError("the checkpoint was written on a big-endian machine; convert it there")
    places: dict[str, tuple[int, int]] = {}

    def read(key: str) -> bytearray:
        place, length = places[key]
        file.seek(place)
        return bytearray(file.read(length))

    storages = _Storages(read)
    loaded = safe_unpickler.load(file, storages.load_reference)
    places.update(_find_storages(file, storages.dtypes))
    return loaded


def _find_storages(file: BinaryIO, dtypes: dict[str, torch.dtype]) -> dict[str, tuple[int, int]]:
    """Return the offset and length in bytes of each storage of a legacy file, without reading it."""
    keys = safe_unpickler.load(file)
    if not isinstance(keys, list) or len(keys) != len(dtypes) or not all(key in dtypes for key in keys):
        raise ModelFormatError("the checkpoint's list of storages does not match its tensors")
    place = file.tell()
    end = file.seek(0, 2)
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        file.seek(place)
        length = int.from_bytes(file.read(8), "little", signed=True) * dtypes[key].itemsize
        places[key] = (place + 8, length)
        place += 8 + length
        if length < 0 or place > end:
            raise ModelFormatError(
                f"storage {key} of the checkpoint reaches beyond the file: it is damaged or cut off"
            )
    if len(places) != len(dtypes):
        raise ModelFormatError("the checkpoint's list of storages names one twice")
    return places
