"""What the local AWS keeps between two runs: objects and tables, in a folder.

``state.json`` tells everything and is replaced as a whole, so that a process that is killed leaves the state of a
moment before. The objects' contents lie beside it, each in a file of its own that is written once and never changed.
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
# A process that was told to end, or whose parent was killed, needs a moment to let go.
LOCK_TIMEOUT_S, LOCK_POLL_INTERVAL_S = 4.0, 0.1
_LINE_SEPARATOR = ",\n"


class StateStoreError(Exception):
    """The folder cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class StoredObject:
    """One version of an object.

    Attributes:
        bucket, key, version_id: its names; ``version_id`` is "null" where the bucket keeps no versions.
        file: name of the file with its content.
        size_bytes: of its content.
        etag: without quotation marks.
        modified_at: ISO 8601, UTC.
        metadata: what was sent with it, such as its type.
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
    """Everything that is kept.

    Attributes:
        objects: oldest version of a key first.
        tables: items as DynamoDB's JSON, by the table's name.
    """

    objects: list[StoredObject] = field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def to_text(self) -> str:
        """One line for each object and each item: a person can read it, and a tool can compare it."""
        tables = (f"{json.dumps(name)}: {_format_lines(items)}" for name, items in self.tables.items())
        objects = _format_lines(map(asdict, self.objects))
        return f'{{"format": {FORMAT},\n"objects": {objects},\n"tables": {{\n{_LINE_SEPARATOR.join(tables)}\n}}}}\n'

    @classmethod
    def from_text(cls, text: str) -> SavedState:
        """Read it.

        Raises:
            ValueError: it is none.
        """
        document = json.loads(text)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError(f"it is not of format {FORMAT}")
        try:
            objects = [StoredObject(**each) for each in document["objects"]]
            return cls(objects, dict(document["tables"]))
        except (KeyError, TypeError) as error:
            raise ValueError(str(error)) from error


def _format_lines(documents: Iterable[Any]) -> str:
    return f"[\n{_LINE_SEPARATOR.join(map(json.dumps, documents))}\n]"


class StateFolder:
    """The folder; one process at a time uses it.

    Args:
        path: made where it is missing; nobody else may look into it.
        timeout_s: how long to wait for another process that uses it.

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
        """Let others use it."""
        self._lock.close()

    def load(self) -> SavedState:
        """What was kept; what belongs to nothing is removed.

        Raises:
            StateStoreError: it cannot be read.
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
                    f"{self.path / 'state.json'} is damaged ({error}): put an older copy in its place, "
                    f"or move {self.path} away to begin with nothing"
                ) from error
        objects = [each for each in state.objects if self._is_complete(each)]
        self.remove_unused(each.file for each in objects)
        return SavedState(objects, state.tables)

    def save(self, state: SavedState) -> bool:
        """Replace what is kept; False where nothing has changed."""
        text = state.to_text()
        if text == self._last_saved:
            return False
        self._write_atomically(self.path / "state.json", [text.encode()])
        self._last_saved = text
        return True

    def add_content(self, chunks: Iterable[bytes]) -> str:
        """Keep a content; the name of its file."""
        name = secrets.token_hex(16)
        self._write_atomically(self._objects / name, chunks)
        return name

    def get_content(self, file: str) -> Content:
        """A kept content, opened whenever it is read: there are more of them than a process may hold open."""
        return Content(self._objects / file)

    def remove_unused(self, used_files: Iterable[str]) -> None:
        """Remove the contents that are not used."""
        kept = set(used_files)
        for path in self._objects.iterdir():
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def _is_complete(self, stored: StoredObject) -> bool:
        path = self._objects / stored.file
        return "/" not in stored.file and path.is_file() and path.stat().st_size == stored.size_bytes

    def _write_atomically(self, path: Path, chunks: Iterable[bytes]) -> None:
        draft = path.with_name(f"{path.name}.draft")
        try:
            with draft.open("wb") as file:
                for piece in chunks:
                    file.write(piece)
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
                f"{path.parent} is in use: end the other Gorggle first, or keep the data elsewhere"
            ) from error
        return file


class Content:
    """A file that is open only while it is read; it reads like one that was opened. Writing is an error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def seek(self, offset: int) -> int:
        """Go to a byte."""
        self._offset = offset
        return offset

    def read(self, size_bytes: int = -1) -> bytes:
        """Read on; everything up to the end where no size is given."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            piece = file.read(size_bytes)
        self._offset += len(piece)
        return piece

    def close(self) -> None:
        """Nothing is open."""


def read_chunks(file: Any) -> Iterator[bytes]:
    """A file's content from its beginning, in pieces."""
    file.seek(0)
    while piece := file.read(CHUNK_BYTES):
        yield piece
