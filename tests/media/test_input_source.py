"""Input sources that FFmpeg reads from."""

from __future__ import annotations

import io

import pytest

from gorggle_server.errors import InvalidMediaError
from gorggle_server.media import input_source
from gorggle_server.media.input_source import Source, SpooledSource, read_head, spool_to_file
from tests.media.samples import ChunkedReader


def box(kind: bytes, size: int) -> bytes:
    return size.to_bytes(4) + kind + bytes(size - 8)


LONG_MDAT = (1).to_bytes(4) + b"mdat" + (2**33).to_bytes(8)


@pytest.mark.parametrize(
    ("data", "index_at_end"),
    [
        (box(b"ftyp", 24) + box(b"moov", 400) + box(b"mdat", 900), False),
        (box(b"ftyp", 24) + box(b"mdat", 900) + box(b"moov", 400), True),
        (box(b"ftyp", 24) + box(b"free", 5000) + box(b"wide", 8) + box(b"mdat", 900), True),
        (box(b"ftyp", 24) + box(b"mdat", 8) + box(b"moov", 400), False),
        (box(b"ftyp", 24) + LONG_MDAT, True),
        (box(b"wide", 8) + box(b"mdat", 900) + box(b"moov", 400), True),
        (box(b"mdat", 900) + box(b"moov", 400), True),
        (box(b"styp", 24) + box(b"sidx", 44) + box(b"moof", 100), False),
        (bytes.fromhex("1a45dfa3") + bytes(1000), False),
        (b"G" + bytes(187), False),
        (b"short", False),
        (b"", False),
        (box(b"ftyp", 24) + (0).to_bytes(4) + b"skip", False),
    ],
)
@pytest.mark.parametrize("chunk", [1, 1000])
def test_an_mp4_index_at_the_end_is_detected_from_the_first_boxes(
    data: bytes, index_at_end: bool, chunk: int
) -> None:
    reader = ChunkedReader(data, chunk)
    head = read_head(reader)
    assert head.index_at_end is index_at_end
    assert head.data == data[: len(head.data)]
    assert reader.position == len(head.data)


def test_read_head_stops_before_the_index() -> None:
    assert len(read_head(ChunkedReader(box(b"ftyp", 24) + box(b"moov", 10**6))).data) == 32


def test_read_head_limits_the_memory_for_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_source, "MAX_HEAD_BYTES", 10_000)
    head = read_head(ChunkedReader(box(b"ftyp", 24) + box(b"free", 10**6) + box(b"moov", 100)))
    assert head.index_at_end
    assert len(head.data) < 21_000


def test_a_source_returns_the_head_before_the_rest() -> None:
    reader = ChunkedReader(b"head, then the rest")
    source = Source(reader, reader.read(5))
    assert b"".join(iter(lambda: source.read(3), b"")) == b"head, then the rest"
    assert source.bytes_read == 19


def test_a_source_never_returns_more_than_requested() -> None:
    """PyAV copies the result into a buffer of the requested size."""

    class OversizedReader:
        def read(self, size: int) -> bytes:
            return bytes(10 * size)

    assert len(Source(OversizedReader()).read(100)) == 100


def test_a_failure_ends_the_stream_and_is_raised_on_request() -> None:
    class FailingReader:
        def read(self, size: int) -> bytes:
            raise ConnectionResetError("gone")

    source = Source(FailingReader())
    assert source.read(100) == b""
    assert source.read(100) == b""
    with pytest.raises(ConnectionResetError, match="gone"):
        source.raise_failure()


def test_the_packet_limit_counts_bytes_since_the_last_packet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_source, "MAX_BYTES_BETWEEN_PACKETS", 1000)
    source = Source(ChunkedReader(bytes(5000)))
    assert len(source.read(900)) == 900
    source.reset_packet_counter()
    assert len(source.read(900)) == 900
    assert source.read(900) == b""
    with pytest.raises(InvalidMediaError, match="no complete packet"):
        source.raise_failure()


def test_a_spooled_stream_is_complete_and_seekable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_source, "SPOOL_IN_MEMORY_BYTES", 100)
    reader = ChunkedReader(bytes(range(250)), 7)
    head = input_source.StreamHeader(reader.read(7), index_at_end=True)
    with spool_to_file(head, reader, 1000) as file:
        source = SpooledSource(file)
        assert source.read(1000) == bytes(range(250))
        assert source.seek(200) == 200
        assert source.tell() == 200
        assert source.read(2) == bytes([200, 201])
        assert source.seek(-5) == -1
        assert source.seek(2**80) == -1


def test_a_stream_above_the_spooling_limit_is_rejected() -> None:
    reader = ChunkedReader(bytes(10**6), 1000)
    with pytest.raises(InvalidMediaError, match="longer than the limit of 5000 bytes"):
        spool_to_file(input_source.StreamHeader(b"", index_at_end=True), reader, 5000)
    assert reader.position < 10_000


def test_spooling_into_a_given_file_respects_the_limit() -> None:
    class SizeRecordingFile(io.BytesIO):
        max_size_bytes = 0

        def write(self, data: bytes, /) -> int:
            written = super().write(data)
            self.max_size_bytes = max(self.max_size_bytes, self.tell())
            return written

    file = SizeRecordingFile()
    assert (
        spool_to_file(
            input_source.StreamHeader(b"head, ", index_at_end=True), ChunkedReader(b"and the rest"), 100, file
        )
        is file
    )
    assert file.read() == b"head, and the rest"
    full = SizeRecordingFile()
    with pytest.raises(InvalidMediaError, match="longer than the limit of 5000 bytes"):
        spool_to_file(
            input_source.StreamHeader(b"head, ", index_at_end=True),
            ChunkedReader(bytes(10**6), 1000),
            5000,
            full,
        )
    assert full.max_size_bytes <= 5000
    assert full.closed
