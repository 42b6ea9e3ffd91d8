"""What can be read, and how it becomes messages: files, file objects, chunks of bytes, arrays.

Nothing is read before its turn: messages are made one by one, as fast as the call takes them.
"""

from __future__ import annotations

import inspect
import os
import stat
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

from gorggle import arrays
from gorggle._protobuf.encode import StreamRequest, encode_media
from gorggle.errors import DataLossError, InvalidRequestError, InvalidSourceError

MAX_CHUNK_BYTES = 16 * 2**20
S3_SCHEME = "s3://"

Bytes: TypeAlias = bytes | bytearray | memoryview
Messages: TypeAlias = Generator[StreamRequest, None, None]
AsyncMessages: TypeAlias = AsyncGenerator[StreamRequest, None]


class BinaryFile(Protocol):
    """Anything with a ``read`` that gives bytes."""

    def read(self, size: int, /) -> Any:
        """Read up to ``size`` bytes; empty at the end."""


Chunk: TypeAlias = Bytes | arrays.MouthCrops | arrays.AudioChunk
Source: TypeAlias = (
    str | os.PathLike[str] | BinaryFile | Bytes | Iterable[Chunk] | AsyncIterable[Chunk] | arrays.Array | None
)
"""A path, a binary file object, a media file's bytes, an iterable of its chunks (or of mouth crops and sound), or an
array of frames."""


@dataclass(frozen=True)
class Media:
    """A source that was checked: its name, and the messages that carry it.

    ``reopen`` gives the same messages once more; None where the source can be read only once.
    """

    name: str
    messages: Messages | AsyncMessages
    reopen: Callable[[], Messages] | None = None


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How to take a source; ``Client.transcribe`` explains each."""

    chunk_bytes: int = 65536
    frame_rate_hz: float | None = None
    crops: bool = False
    audio: arrays.Samples | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.chunk_bytes <= MAX_CHUNK_BYTES:
            raise InvalidRequestError(f"chunk_bytes is {self.chunk_bytes}: give 1 to {MAX_CHUNK_BYTES}")


def open_source(source: Source, options: SourceOptions) -> Media:
    """Check a source and make its messages ready.

    Raises:
        InvalidSourceError: it cannot be read, is empty, or is of a type that is not understood.
        InvalidRequestError: the options do not go with it.
    """
    if source is None or arrays.is_array(source):
        return _create_replayable("", lambda: _encode_array(source, options))
    if options.crops or options.audio is not None or options.frame_rate_hz is not None:
        raise InvalidRequestError("crops, audio and frame_rate_hz go with arrays of frames: leave them out")
    chunk_bytes = options.chunk_bytes
    if isinstance(source, str | os.PathLike):
        validate_path(source)
        return _open_path(os.fspath(source), chunk_bytes)
    if isinstance(source, Bytes):
        content = source
        if not memoryview(content).nbytes:
            raise InvalidSourceError("the source holds no bytes: give the bytes of a media file")
        return _create_replayable("", lambda: _encode_chunks(iter([content]), chunk_bytes))
    if hasattr(source, "read"):
        return _open_file(cast(BinaryFile, source), chunk_bytes)
    if isinstance(source, AsyncIterable):
        return Media("", _encode_chunks_async(source, chunk_bytes))
    if isinstance(source, list | tuple):
        pieces = source
        return _create_replayable("", lambda: _encode_chunks(iter(pieces), chunk_bytes))
    if isinstance(source, Iterable):
        return Media("", _encode_chunks(iter(source), chunk_bytes))
    raise InvalidSourceError(
        f"the source is a {type(source).__name__}: give a path, a binary file, chunks of bytes or an array of frames"
    )


def _create_replayable(name: str, messages: Callable[[], Messages]) -> Media:
    return Media(name, messages(), messages)


def _open_path(path: str, chunk_bytes: int) -> Media:
    def messages() -> Messages:
        return _encode_chunks(_read_path(path, chunk_bytes), chunk_bytes)

    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        return Media(path, messages())

    def again() -> Messages:
        try:
            now = Path(path).stat()
        except OSError as error:
            raise create_read_error(path, error) from error
        if (now.st_ino, now.st_size, now.st_mtime_ns) != (status.st_ino, status.st_size, status.st_mtime_ns):
            raise DataLossError(f"{path} has changed since it was begun: it cannot be sent again")
        return messages()

    return Media(path, messages(), again)


def _open_file(file: BinaryFile, chunk_bytes: int) -> Media:
    name, messages = _get_name(file), _encode_file(file, chunk_bytes)
    start = None if inspect.iscoroutinefunction(file.read) else _get_seek_position(file)
    if start is None:
        return Media(name, messages)

    def again() -> Messages:
        cast(Any, file).seek(start)
        return _encode_chunks(_read_file(file, chunk_bytes), chunk_bytes)

    return Media(name, messages, again)


def _get_seek_position(file: BinaryFile) -> int | None:
    """Where a file stands that can be read again; None for one that cannot, such as a pipe."""
    seekable: Any = file
    try:
        return int(seekable.tell()) if seekable.seekable() else None
    except (AttributeError, OSError, ValueError, TypeError):
        return None


def validate_path(path: str | os.PathLike[str]) -> None:
    """Find out before a call is made that a path cannot be read.

    Raises:
        InvalidSourceError: no path, no such file, a directory, an empty file, or no permission.
    """
    name = os.fspath(path)
    if not name:
        raise InvalidSourceError("the path is empty: give the path of a media file")
    if name.startswith(S3_SCHEME):
        raise InvalidSourceError(f"{name} cannot be streamed: read it with recognize(), or download it")
    try:
        status = Path(name).stat()
    except (OSError, ValueError) as error:
        raise create_read_error(name, error) from error
    if stat.S_ISDIR(status.st_mode):
        raise InvalidSourceError(f"{name} is a directory: give the path of a media file")
    if not os.access(name, os.R_OK):
        raise InvalidSourceError(f"{name} cannot be read: permission denied")
    # Pipes and devices have no size: only a regular file is known to be empty.
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        raise InvalidSourceError(f"{name} is empty: give a media file")


def create_read_error(name: str, error: OSError | ValueError) -> InvalidSourceError:
    """The error for a file that the system refuses to open or read."""
    if isinstance(error, FileNotFoundError):
        return InvalidSourceError(f"{name} does not exist")
    shown = name if name.isprintable() else repr(name)
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return InvalidSourceError(f"{shown} cannot be read: {reason.lower()}")


def _get_name(file: object) -> str:
    name = getattr(file, "name", "")
    return name if isinstance(name, str) else ""


# ------------------------------------------------------------------------------------------------------------ messages


def _encode_array(source: arrays.Array | None, options: SourceOptions) -> Messages:
    audio = None if options.audio is None else arrays.encode_audio(options.audio)
    if source is None:
        if audio is None:
            raise InvalidSourceError(
                "there is no source: give a path, a file, chunks of bytes or an array of frames"
            )
        return arrays.encode_audio_chunks(audio, options.chunk_bytes)
    rate_hz = arrays.validate_frame_rate(options.frame_rate_hz)
    if options.crops:
        return arrays.encode_crops(arrays.validate_mouth_crops(source), rate_hz, audio, options.chunk_bytes)
    chunks = arrays.encode_matroska(arrays.validate_frames(source), rate_hz, audio)
    return _encode_chunks(chunks, options.chunk_bytes)


def _encode_chunks(chunks: Iterator[Chunk], chunk_bytes: int) -> Messages:
    for number, chunk in enumerate(chunks):
        yield from _split_chunk(chunk, number, chunk_bytes)


async def _encode_chunks_async(chunks: AsyncIterable[Chunk], chunk_bytes: int) -> AsyncMessages:
    number = 0
    async for chunk in chunks:
        for piece in _split_chunk(chunk, number, chunk_bytes):
            yield piece
        number += 1


def _split_chunk(chunk: Chunk, number: int, chunk_bytes: int) -> Iterator[StreamRequest]:
    """Cut a chunk of any size; small ones are sent at once, since a live source may have no more for a while."""
    if isinstance(chunk, arrays.MouthCrops | arrays.AudioChunk):
        yield from chunk.to_messages(chunk_bytes)
        return
    if not isinstance(chunk, Bytes):
        raise InvalidSourceError(
            f"chunk {number} is a {type(chunk).__name__}: give bytes, gorggle.MouthCrops or gorggle.Sound"
        )
    view = memoryview(chunk).cast("B")
    for start in range(0, len(view), chunk_bytes):
        yield encode_media(bytes(view[start : start + chunk_bytes]))


# ----------------------------------------------------------------------------------------------------------- reading


def _read_path(path: str | os.PathLike[str], chunk_bytes: int) -> Iterator[Bytes]:
    try:
        with Path(path).open("rb", buffering=0) as file:
            while chunk := file.read(chunk_bytes):
                yield chunk
    except OSError as error:
        raise create_read_error(os.fspath(path), error) from error


def _encode_file(file: BinaryFile, chunk_bytes: int) -> Messages | AsyncMessages:
    if inspect.iscoroutinefunction(file.read):
        return _encode_chunks_async(_read_file_async(file, chunk_bytes), chunk_bytes)
    return _encode_chunks(_read_file(file, chunk_bytes), chunk_bytes)


def _read_file(file: BinaryFile, chunk_bytes: int) -> Iterator[Bytes]:
    # A buffered file's read() waits until all is there; read1() gives what a pipe has.
    read = getattr(file, "read1", file.read)
    while len(chunk := _validate_bytes(read(chunk_bytes), file)):
        yield chunk


async def _read_file_async(file: BinaryFile, chunk_bytes: int) -> AsyncIterator[Bytes]:
    while len(chunk := _validate_bytes(await file.read(chunk_bytes), file)):
        yield chunk


def _validate_bytes(chunk: Any, file: BinaryFile) -> Bytes:
    if isinstance(chunk, str):
        raise InvalidSourceError(
            f"{_get_name(file) or 'the file'} is open in text mode: open it with mode 'rb'"
        )
    if not isinstance(chunk, Bytes):
        raise InvalidSourceError(
            f"read() gave a {type(chunk).__name__}: give a file that is open for reading bytes"
        )
    return chunk
