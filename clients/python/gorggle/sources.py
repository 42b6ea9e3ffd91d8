"""Media sources and their conversion to messages: files, file objects, chunks of bytes, frames, arrays.

Messages are created lazily, at the rate at which the call sends them.
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
from typing import Any, Literal, Protocol, TypeAlias, cast

from gorggle import arrays
from gorggle._protobuf.encode import StreamRequest, encode_media
from gorggle.errors import DataLossError, InvalidRequestError, InvalidSourceError

CHUNK_BYTES, MAX_CHUNK_BYTES = 65536, 16 * 2**20
S3_SCHEME = "s3://"

Bytes: TypeAlias = bytes | bytearray | memoryview
Messages: TypeAlias = Generator[StreamRequest, None, None]
AsyncMessages: TypeAlias = AsyncGenerator[StreamRequest, None]


class BinaryFile(Protocol):
    """An object with a ``read`` method that returns bytes."""

    def read(self, size: int, /) -> Any:
        """Return up to ``size`` bytes; empty at the end."""


Chunk: TypeAlias = Bytes | arrays.Array | arrays.MouthCrops | arrays.AudioChunk | arrays.VideoFrame
InputFormat: TypeAlias = Literal["frames", "mouth_crops"]
Source: TypeAlias = (
    str | os.PathLike[str] | BinaryFile | Bytes | Iterable[Chunk] | AsyncIterable[Chunk] | arrays.Array | None
)
"""A path, a binary file object, the bytes of a media file, an iterable of its chunks (or of frames, mouth crops and
audio), or an array of frames."""


@dataclass(frozen=True)
class Media:
    """A validated source: its name and its messages.

    ``reopen`` returns the same messages again; None if the source can be read only once.
    """

    name: str
    messages: Messages | AsyncMessages
    reopen: Callable[[], Messages] | None = None


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How to read a source; see ``Client.transcribe``."""

    chunk_bytes: int = CHUNK_BYTES
    frame_rate_hz: float | None = None
    input_format: InputFormat = "frames"
    audio: arrays.Samples | None = None
    audio_sample_rate_hz: int = arrays.SAMPLE_RATE_HZ

    def __post_init__(self) -> None:
        if not 1 <= self.chunk_bytes <= MAX_CHUNK_BYTES:
            raise InvalidRequestError(f"chunk_bytes is {self.chunk_bytes}: give 1 to {MAX_CHUNK_BYTES}")
        if self.input_format not in ("frames", "mouth_crops"):
            raise InvalidRequestError(
                f"input_format is {self.input_format!r}: give 'frames' or 'mouth_crops'"
            )
        arrays.validate_sample_rate(self.audio_sample_rate_hz)


def open_source(source: Source, options: SourceOptions) -> Media:
    """Validate a source and prepare its messages.

    Raises:
        InvalidSourceError: it cannot be read, is empty, or has an unsupported type.
        InvalidRequestError: the options do not apply to it.
    """
    if source is None or arrays.is_array(source):
        return _create_replayable(lambda: _encode_array(source, options))
    if options.input_format != "frames" or options.audio is not None:
        raise InvalidRequestError("input_format and audio apply to arrays of frames only: leave them out")
    is_stream = isinstance(source, AsyncIterable | Iterable) and not (
        isinstance(source, str | os.PathLike | Bytes) or hasattr(source, "read")
    )
    if options.frame_rate_hz is not None:
        if not is_stream:
            raise InvalidRequestError("frame_rate_hz applies to arrays and iterables of frames: leave it out")
        arrays.validate_frame_rate(options.frame_rate_hz)
    if isinstance(source, str | os.PathLike):
        validate_path(source)
        return _open_path(os.fspath(source), options)
    if isinstance(source, Bytes):
        content = source
        if not memoryview(content).nbytes:
            raise InvalidSourceError("the source holds no bytes: give the bytes of a media file")
        return _create_replayable(lambda: _encode_chunks(iter([content]), options))
    if hasattr(source, "read"):
        return _open_file(cast(BinaryFile, source), options)
    if isinstance(source, AsyncIterable):
        return Media("", _encode_chunks_async(source, options))
    if isinstance(source, list | tuple):
        chunks = source
        return _create_replayable(lambda: _encode_chunks(iter(chunks), options))
    if isinstance(source, Iterable):
        return Media("", _encode_chunks(iter(source), options))
    raise InvalidSourceError(
        f"the source is a {type(source).__name__}: give a path, a binary file, chunks of bytes, or frames"
    )


def _create_replayable(messages: Callable[[], Messages]) -> Media:
    return Media("", messages(), messages)


def _open_path(path: str, options: SourceOptions) -> Media:
    def messages() -> Messages:
        return _encode_chunks(_read_path(path, options.chunk_bytes), options)

    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        return Media(path, messages())

    def reopen() -> Messages:
        try:
            now = Path(path).stat()
        except OSError as error:
            raise create_read_error(path, error) from error
        if (now.st_ino, now.st_size, now.st_mtime_ns) != (status.st_ino, status.st_size, status.st_mtime_ns):
            raise DataLossError(f"{path} has changed since the call started: it cannot be sent again")
        return messages()

    return Media(path, messages(), reopen)


def _open_file(file: BinaryFile, options: SourceOptions) -> Media:
    name = _get_name(file)
    if inspect.iscoroutinefunction(file.read):
        return Media(name, _encode_chunks_async(_read_file_async(file, options.chunk_bytes), options))
    start = _get_seek_position(file)

    def messages() -> Messages:
        return _encode_chunks(_read_file(file, options.chunk_bytes), options)

    def reopen() -> Messages:
        cast(Any, file).seek(start)
        return messages()

    return Media(name, messages(), None if start is None else reopen)


def _get_seek_position(file: BinaryFile) -> int | None:
    """Return the position of a seekable file; None for a pipe or the like."""
    seekable: Any = file
    try:
        return int(seekable.tell()) if seekable.seekable() else None
    except (AttributeError, OSError, ValueError, TypeError):
        return None


def validate_path(path: str | os.PathLike[str]) -> None:
    """Check that a path can be read, before a call is made.

    Raises:
        InvalidSourceError: an empty path, no such file, a directory, an empty file, or no permission.
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
    # Pipes and devices report size 0 too.
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        raise InvalidSourceError(f"{name} is empty: give a media file")


def create_read_error(name: str, error: OSError | ValueError) -> InvalidSourceError:
    """Return the error for a file that cannot be opened or read."""
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
        return arrays.encode_audio_chunks(audio, options.audio_sample_rate_hz, options.chunk_bytes)
    rate_hz = arrays.validate_frame_rate(options.frame_rate_hz)
    sample_rate_hz = options.audio_sample_rate_hz
    if options.input_format == "mouth_crops":
        crops = arrays.validate_mouth_crops(source)
        return arrays.encode_crops(crops, rate_hz, audio, sample_rate_hz, options.chunk_bytes)
    chunks = arrays.encode_matroska(arrays.validate_frames(source), rate_hz, audio, sample_rate_hz)
    return _encode_chunks(chunks, SourceOptions(chunk_bytes=options.chunk_bytes))


def _encode_chunks(chunks: Iterator[Chunk], options: SourceOptions) -> Messages:
    encoder = _ChunkEncoder(options)
    for chunk in chunks:
        yield from encoder.encode(chunk)
    yield from encoder.flush()


async def _encode_chunks_async(chunks: AsyncIterable[Chunk], options: SourceOptions) -> AsyncMessages:
    encoder = _ChunkEncoder(options)
    async for chunk in chunks:
        for message in encoder.encode(chunk):
            yield message
    for message in encoder.flush():
        yield message


class _ChunkEncoder:
    """Converts the chunks of an iterable to messages."""

    def __init__(self, options: SourceOptions) -> None:
        rate_hz = options.frame_rate_hz
        self._frame_rate = None if rate_hz is None else arrays.validate_frame_rate(rate_hz)
        self._chunk_bytes = options.chunk_bytes
        self._chunk_count = self._frame_count = 0
        # A stream of frames has to start with a frame: earlier audio is held back.
        self._held_audio: list[StreamRequest] = []

    def encode(self, chunk: Chunk) -> Iterator[StreamRequest]:
        """Yield the messages of a chunk: large chunks are split, small ones sent at once."""
        number, self._chunk_count = self._chunk_count, self._chunk_count + 1
        if self._frame_rate is not None and (arrays.is_array(chunk) or isinstance(chunk, Bytes)):
            image = chunk if arrays.is_array(chunk) else bytes(cast(Bytes, chunk))
            chunk = arrays.VideoFrame(image, float(self._frame_count / self._frame_rate))
        match chunk:
            case arrays.VideoFrame():
                self._frame_count += 1
                yield chunk.to_message()
                yield from self.flush()
            case arrays.AudioChunk() if self._frame_rate is not None and not self._frame_count:
                self._held_audio += chunk.to_messages(self._chunk_bytes)
            case arrays.MouthCrops() | arrays.AudioChunk():
                yield from chunk.to_messages(self._chunk_bytes)
            case bytes() | bytearray() | memoryview():
                view = memoryview(chunk).cast("B")
                for start in range(0, len(view), self._chunk_bytes):
                    yield encode_media(bytes(view[start : start + self._chunk_bytes]))
            case _:
                advice = "give bytes, frames, gorggle.VideoFrame, gorggle.MouthCrops or gorggle.AudioChunk"
                if arrays.is_array(chunk):
                    advice = "give frame_rate_hz="
                raise InvalidSourceError(f"chunk {number} is a {type(chunk).__name__}: {advice}")

    def flush(self) -> Iterator[StreamRequest]:
        """Yield the audio that was held back."""
        held, self._held_audio = self._held_audio, []
        yield from held


# ------------------------------------------------------------------------------------------------------------- files


def _read_path(path: str | os.PathLike[str], chunk_bytes: int) -> Iterator[Bytes]:
    try:
        with Path(path).open("rb", buffering=0) as file:
            while chunk := file.read(chunk_bytes):
                yield chunk
    except OSError as error:
        raise create_read_error(os.fspath(path), error) from error


def _read_file(file: BinaryFile, chunk_bytes: int) -> Iterator[Bytes]:
    # read() of a buffered file blocks until the buffer is full; read1() returns what a pipe has.
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
            f"read() returned a {type(chunk).__name__}: give a file that is open for reading bytes"
        )
    return chunk
