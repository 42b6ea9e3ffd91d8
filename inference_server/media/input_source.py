"""What FFmpeg reads from: a stream of bytes as it arrives, or a spooled file where the index stands at the end."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from typing import IO, Protocol

from gorggle_server.errors import InvalidMediaError

# A packet has at most one video frame. This many bytes without a packet mean a forged size: FFmpeg would buffer them all.
MAX_BYTES_BETWEEN_PACKETS = 64 * 2**20

# Boxes before an MP4's index are small, or padding. Beyond this size the stream is spooled instead of kept in memory.
MAX_HEAD_BYTES = 4 * 2**20
SPOOL_IN_MEMORY_BYTES = 4 * 2**20
COPY_BYTES = 256 * 2**10

_FIRST_BOXES = frozenset({b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"uuid"})


class Reader(Protocol):
    """An object whose ``read`` returns 1 to ``size`` bytes, and ``b""`` at the end."""

    def read(self, size: int, /) -> bytes: ...  # noqa: D102


@dataclass(frozen=True)
class StreamHeader:
    """The first bytes of a stream, read to learn how it must be opened.

    Attributes:
        data: the bytes taken from the reader so far.
        index_at_end: an MP4 whose index follows its samples: FFmpeg needs to seek in it.
    """

    data: bytes
    index_at_end: bool


class Source:
    """A read-only file object for FFmpeg over a stream of bytes.

    Errors of the reader must not reach FFmpeg's C code, which would report them in an unrelated later call on this
    thread. The stream ends instead, and ``raise_failure`` raises the error.
    """

    def __init__(self, reader: Reader, head: bytes = b"") -> None:
        self._reader = reader
        self._head = head
        self._failure: BaseException | None = None
        self._bytes_since_packet = 0
        self.bytes_read = 0

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes; ``b""`` at the end and after a failure."""
        if self._failure is not None:
            return b""
        try:
            data = self._read(size)
            self._count_bytes(len(data))
        except BaseException as failure:  # kept, and raised again by raise_failure
            self._failure = failure
            return b""
        return data

    def reset_packet_counter(self) -> None:
        """Record that a packet has been demuxed."""
        self._bytes_since_packet = 0

    def raise_failure(self) -> None:
        """Raise the reader's error, if there is one."""
        if self._failure is not None:
            raise self._failure

    def _read(self, size: int) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        # PyAV copies the result into a buffer of ``size`` bytes without checking its length.
        return bytes(self._reader.read(size)[:size])

    def _count_bytes(self, size: int) -> None:
        self.bytes_read += size
        self._bytes_since_packet += size
        if self._bytes_since_packet > MAX_BYTES_BETWEEN_PACKETS:
            raise InvalidMediaError(
                f"{self._bytes_since_packet // 2**20} MiB of the media have no complete packet: it is damaged "
                "or malformed; re-encode it with a standard encoder"
            )


class SpooledSource(Source):
    """A seekable file object for FFmpeg over a complete file."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self._file = file

    def seek(self, offset: int, whence: int = 0) -> int:
        """As ``IOBase.seek``, but return -1 for an invalid offset, so that FFmpeg handles forged offsets."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1

    def tell(self) -> int:
        """As ``IOBase.tell``."""
        return self._file.tell()


def read_head(reader: Reader) -> StreamHeader:
    """Read as far as is needed to tell whether this is an MP4 with its index at the end."""
    head = bytearray()
    while len(head) <= MAX_HEAD_BYTES:
        header = _read_fully(reader, 8)
        head += header
        if len(header) < 8:
            return StreamHeader(bytes(head), index_at_end=False)
        size, kind = int.from_bytes(header[:4]), header[4:]
        # Empty sample boxes are written as placeholders before the index.
        if kind == b"mdat" and size != 8:
            return StreamHeader(bytes(head), index_at_end=True)
        if kind in {b"moov", b"moof"} or size < 8:
            return StreamHeader(bytes(head), index_at_end=False)
        if len(head) == 8 and kind not in _FIRST_BOXES:
            return StreamHeader(bytes(head), index_at_end=False)
        head += _read_fully(reader, min(size - 8, MAX_HEAD_BYTES + 1))
    return StreamHeader(bytes(head), index_at_end=True)


def spool_to_file(
    head: StreamHeader, reader: Reader, max_bytes: int, into: IO[bytes] | None = None
) -> IO[bytes]:
    """Copy the whole stream into a temporary file.

    Args:
        head: how the stream begins.
        reader: the rest of it.
        max_bytes: how long the stream may be.
        into: an empty file for it, which is the caller's no more; default: one of its own, in memory while it is small.

    Raises:
        InvalidMediaError: it is longer than ``max_bytes``.
    """
    file = into or tempfile.SpooledTemporaryFile(max_size=SPOOL_IN_MEMORY_BYTES)  # noqa: SIM115 - handed on open
    try:
        for data in itertools.chain([head.data], iter(lambda: reader.read(COPY_BYTES), b"")):
            # Before it is written: no byte beyond the limit reaches the disk.
            if file.tell() + len(data) > max_bytes:
                raise InvalidMediaError(
                    f"the MP4's index is at its end and it is longer than {max_bytes} bytes, so it cannot be kept "
                    "until the index comes: move the index to the front (ffmpeg -movflags +faststart)"
                )
            file.write(data)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _read_fully(reader: Reader, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = reader.read(size - len(data))
        if not more:
            break
        data += more
    return bytes(data)
