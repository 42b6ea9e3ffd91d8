"""Stores S3 objects and DynamoDB tables of the local AWS in a folder.

``state.json`` lists everything and is replaced atomically, so that a killed process leaves a consistent state. Each object's
content is in a separate file, which never changes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

FORMAT = 1
CHUNK_BYTES = 2**20
# A process that is shutting down needs a moment to release the lock.
LOCK_TIMEOUT_S, LOCK_POLL_INTERVAL_S = 4.0, 0.1
_LINE_SEPARATOR = ",\n"


class StateStoreError(Exception):
    """The folder cannot be used; the message says what to do."""


@dataclass(frozen=True)
class StoredObject:
    """One version of an object.

    Attributes:
        version_id: "null" without versioning.
        file: name of the file with its content.
        etag: without quotation marks.
        modified_at: ISO 8601, UTC.
        metadata: such as its content type.
    """

    bucket: str
    key: str
    version_id: str
    file: str
    size_bytes: int
    etag: str
    modified_at: str
    metadata: dict[str, str]


@dataclass(frozen=True)
class SavedState:
    """The saved state.

    Attributes:
        objects: oldest version of a key first.
        tables: items in DynamoDB's JSON format, by table name.
    """

    objects: list[StoredObject] = field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def to_text(self) -> str:
        """Return JSON with one line per object and item."""
        tables = (f"{json.dumps(name)}: {_format_lines(items)}" for name, items in self.tables.items())
        objects = _format_lines(map(asdict, self.objects))
        return f'{{"format": {FORMAT},\n"objects": {objects},\n"tables": {{\n{_LINE_SEPARATOR.join(tables)}\n}}}}\n'

    @classmethod
    def from_text(cls, text: str) -> SavedState:
        """Parse a saved state.

        Raises:
            ValueError: the format is invalid.
        """
        document = json.loads(text)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError(f"expected format {FORMAT}")
        try:
            objects = [StoredObject(**each) for each in document["objects"]]
            return cls(objects, dict(document["tables"]))
        except (KeyError, TypeError) as error:
            raise ValueError(str(error)) from error


def _format_lines(documents: Iterable[Any]) -> str:
    return f"[\n{_LINE_SEPARATOR.join(map(json.dumps, documents))}\n]"


class StateFolder:
    """The folder, locked for one process.

    Args:
        path: created if missing; only its owner can read it.
        timeout_s: maximum time to wait for the lock.

    Raises:
        StateStoreError: another process uses it.
    """

    def __init__(self, path: Path, timeout_s: float = LOCK_TIMEOUT_S) -> None:
        self.path = path
        self._objects = path / "objects"
        self._objects.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
        self._lock = _acquire_lock(path / "lock", timeout_s)
        self._last_saved = ""

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()

    def load(self) -> SavedState:
        """Load the state and remove unused content files.

        Raises:
            StateStoreError: the state is damaged.
        """
        try:
            text = (self.path / "state.json").read_text("utf-8")
        except FileNotFoundError:
            state = SavedState()
        else:
            try:
                state = SavedState.from_text(text)
            except ValueError as error:
                raise StateStoreError(
                    f"{self.path / 'state.json'} is damaged ({error}): restore it from a backup, "
                    f"or move {self.path} away to start with an empty state"
                ) from error
        objects = [each for each in state.objects if self._is_complete(each)]
        self.remove_unused(each.file for each in objects)
        return SavedState(objects, state.tables)

    def save(self, state: SavedState) -> bool:
        """Save the state; return False if nothing has changed."""
        text = state.to_text()
        if text == self._last_saved:
            return False
        self._write_atomically(self.path / "state.json", [text.encode()])
        self._last_saved = text
        return True

    def add_content(self, chunks: Iterable[bytes]) -> str:
        """Store a content and return the name of its file."""
        name = secrets.token_hex(16)
        self._write_atomically(self._objects / name, chunks)
        return name

    def get_content(self, file: str) -> Content:
        """Return a stored content."""
        return Content(self._objects / file)

    def remove_unused(self, used_files: Iterable[str]) -> None:
        """Remove content files that are not used."""
        used = set(used_files)
        for path in self._objects.iterdir():
            if path.name not in used:
                path.unlink(missing_ok=True)

    def _is_complete(self, stored: StoredObject) -> bool:
        path = self._objects / stored.file
        return "/" not in stored.file and path.is_file() and path.stat().st_size == stored.size_bytes

    def _write_atomically(self, path: Path, chunks: Iterable[bytes]) -> None:
        draft = path.with_name(f"{path.name}.draft")
        try:
            with draft.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise


def _acquire_lock(path: Path, timeout_s: float) -> TextIO:
    file = path.open("w")
    end = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() < end:
                time.sleep(LOCK_POLL_INTERVAL_S)
                continue
            file.close()
            raise StateStoreError(
                f"{path.parent} is in use: stop the other Gorggle first, or use another directory"
            ) from error
        return file


class Content:
    """A read-only file object that opens its file for each read, because a process can hold few files open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def seek(self, offset: int) -> int:
        """Set the position."""
        self._offset = offset
        return offset

    def read(self, size_bytes: int = -1) -> bytes:
        """Read from the position; to the end without a size."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            chunk = file.read(size_bytes)
        self._offset += len(chunk)
        return chunk

    def close(self) -> None:
        """Do nothing: no file is open."""


def read_chunks(file: Any) -> Iterator[bytes]:
    """Yield a file's content in chunks."""
    file.seek(0)
    while chunk := file.read(CHUNK_BYTES):
        yield chunk
