"""Opens containers: what FFmpeg reads is a stream of arriving bytes, or a spooled file if the index is at its end."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Protocol

import av
from av.container import InputContainer

from gorggle_server.errors import InvalidMediaError
from gorggle_server.media import formats
from gorggle_server.media.packet_decoders import DECODE_ERRORS, get_decoder_pixel_limit

# A packet has at most one video frame. This many bytes without a packet mean a forged size: FFmpeg would buffer them all.
MAX_BYTES_BETWEEN_PACKETS = 64 * 2**20

# Boxes before an MP4's index are small, or padding. Beyond this size the stream is spooled instead of kept in memory.
MAX_HEAD_BYTES = 4 * 2**20
SPOOL_IN_MEMORY_BYTES = 4 * 2**20
COPY_BYTES = 256 * 2**10

# Bytes read to detect the format, and to analyse the streams. FFmpeg's defaults (5 MB, 5 s) delay the first frame of a
# live stream by seconds. MPEG program streams have no header, so their streams are only found as they appear.
FORMAT_PROBE_BYTES = 128 * 2**10
PROBE_BYTES = 64 * 2**10
PROBE_BYTES_PROGRAM_STREAM = 2**20
ANALYZE_DURATION_US = 500_000
MAX_STREAMS = 64

_FIRST_BOXES = frozenset({b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"uuid"})


class Reader(Protocol):
    """An object whose ``read`` returns 1 to ``size`` bytes, and ``b""`` at the end."""

    def read(self, size: int, /) -> bytes: ...  # noqa: D102


@dataclass(frozen=True)
class StreamHeader:
    """The first bytes of a stream; ``index_at_end`` marks an MP4 whose index follows its samples: FFmpeg must seek."""

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


@contextlib.contextmanager
def open_container(
    reader: Reader, max_spooled_bytes: int, max_frame_pixels: int, spool_file: IO[bytes] | None = None
) -> Iterator[tuple[InputContainer, Source]]:
    """Open the media that a reader yields; yield the container and what it reads from.

    Args:
        reader: see ``demuxer.decode``.
        max_spooled_bytes: limit of the temporary copy.
        max_frame_pixels: limit of a frame's size.
        spool_file: see ``spool_to_file``.

    Raises:
        InvalidMediaError: the media is empty, damaged, too long to spool or of an unsupported format.
    """
    head = read_head(reader)
    if not head.data:
        raise InvalidMediaError("the stream is empty: send a media file or a live recording")
    with contextlib.ExitStack() as stack:
        source = Source(reader, head.data)
        if head.index_at_end:
            source = SpooledSource(
                stack.enter_context(spool_to_file(head, reader, max_spooled_bytes, spool_file))
            )
        is_program_stream = head.data.startswith(b"\0\0\1\xba")
        try:
            container = av.open(
                source,
                "r",
                options={"max_pixels": str(get_decoder_pixel_limit(max_frame_pixels))},
                container_options={
                    "format_whitelist": ",".join(formats.CONTAINERS),
                    "codec_whitelist": formats.list_decoders(),
                    "protocol_whitelist": "none",
                    "probesize": str(PROBE_BYTES_PROGRAM_STREAM if is_program_stream else PROBE_BYTES),
                    "formatprobesize": str(FORMAT_PROBE_BYTES),
                    "analyzeduration": str(ANALYZE_DURATION_US),
                    "max_streams": str(MAX_STREAMS),
                },
                metadata_errors="replace",
            )
        except DECODE_ERRORS as error:
            source.raise_failure()
            raise InvalidMediaError(_format_open_error(head, source.bytes_read, error)) from error
        yield stack.enter_context(container), source


def _format_open_error(head: StreamHeader, size: int, error: Exception) -> str:
    if head.index_at_end:
        return (
            "the MP4's index is missing or damaged: it should be at the end of this file, which was probably "
            "truncated; send the complete file"
        )
    is_text = all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head.data)
    found = "text" if is_text else f"bytes that begin with {head.data[:8].hex(' ')}"
    reason = getattr(error, "strerror", None) or type(error).__name__
    return (
        f"the {size} bytes read so far cannot be opened ({reason}): found {found}, expected "
        f"{formats.CONTAINER_NAMES}; send a complete file in one of these formats"
    )


def read_head(reader: Reader) -> StreamHeader:
    """Read the first boxes to detect an MP4 with its index at the end."""
    head = bytearray()
    while len(head) <= MAX_HEAD_BYTES:
        header = _read_fully(reader, 8)
        head += header
        if len(header) < 8:
            return StreamHeader(bytes(head), index_at_end=False)
        size, kind = int.from_bytes(header[:4]), header[4:]
        # Empty mdat boxes are written as placeholders before the index.
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
        head: the first bytes.
        reader: the rest.
        max_bytes: maximum length of the stream.
        into: an empty file, which this takes over; default: a temporary one, in memory while it is small.

    Raises:
        InvalidMediaError: the stream is longer than ``max_bytes``.
    """
    file = into or tempfile.SpooledTemporaryFile(max_size=SPOOL_IN_MEMORY_BYTES)  # noqa: SIM115 - returned open
    try:
        for data in itertools.chain([head.data], iter(lambda: reader.read(COPY_BYTES), b"")):
            # Checked before writing, so that nothing beyond the limit reaches the disk.
            if file.tell() + len(data) > max_bytes:
                raise InvalidMediaError(
                    f"the MP4's index is at its end and it is longer than the limit of {max_bytes} bytes for "
                    "spooling: move the index to the front (ffmpeg -movflags +faststart)"
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
