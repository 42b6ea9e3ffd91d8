"""What FFmpeg reads from."""

from __future__ import annotations

import io

import pytest

from gorggle_server.errors import InvalidMediaError
from gorggle_server.media import input_source
from gorggle_server.media.input_source import Source, SpooledSource, read_head, spool_to_file
from tests.media.samples import Pieces


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
def test_the_position_of_an_mp4_index_is_detected_from_its_first_boxes(
    data: bytes, index_at_end: bool, chunk: int
) -> None:
    reader = Pieces(data, chunk)
    head = read_head(reader)
    assert head.index_at_end is index_at_end
    assert head.data == data[: len(head.data)]
    assert reader.position == len(head.data)


def test_the_index_itself_is_not_read_ahead() -> None:
    assert len(read_head(Pieces(box(b"ftyp", 24) + box(b"moov", 10**6))).data) == 32


def test_endless_padding_before_the_index_is_not_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_source, "MAX_HEAD_BYTES", 10_000)
    head = read_head(Pieces(box(b"ftyp", 24) + box(b"free", 10**6) + box(b"moov", 100)))
    assert head.index_at_end
    assert len(head.data) < 21_000


def test_the_head_comes_before_the_rest() -> None:
    reader = Pieces(b"head, then the rest")
    read = Source(reader, reader.read(5))
    assert b"".join(iter(lambda: read.read(3), b"")) == b"head, then the rest"
    assert read.bytes_read == 19


def test_a_source_never_returns_more_than_requested() -> None:
    """PyAV copies whatever comes into a buffer of the size that it asked for."""

    class Generous:
        def read(self, size: int) -> bytes:
            return bytes(10 * size)

    assert len(Source(Generous()).read(100)) == 100


def test_a_failure_ends_the_stream_and_is_raised_on_request() -> None:
    class Failing:
        def read(self, size: int) -> bytes:
            raise ConnectionResetError("gone")

    read = Source(Failing())
    assert read.read(100) == b""
    assert read.read(100) == b""
    with pytest.raises(ConnectionResetError, match="gone"):
        read.raise_failure()


def test_bytes_without_a_packet_are_counted_from_the_last_packet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_source, "MAX_BYTES_BETWEEN_PACKETS", 1000)
    read = Source(Pieces(bytes(5000)))
    assert len(read.read(900)) == 900
    read.reset_packet_counter()
    assert len(read.read(900)) == 900
    assert read.read(900) == b""
    with pytest.raises(InvalidMediaError, match="no complete packet"):
        read.raise_failure()


def test_a_spooled_stream_is_whole_and_can_be_sought(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_source, "SPOOL_IN_MEMORY_BYTES", 100)
    reader = Pieces(bytes(range(250)), 7)
    head = input_source.StreamHeader(reader.read(7), index_at_end=True)
    with spool_to_file(head, reader, 1000) as file:
        read = SpooledSource(file)
        assert read.read(1000) == bytes(range(250))
        assert read.seek(200) == 200
        assert read.tell() == 200
        assert read.read(2) == bytes([200, 201])
        assert read.seek(-5) == -1
        assert read.seek(2**80) == -1


def test_a_stream_beyond_the_limit_is_not_spooled() -> None:
    reader = Pieces(bytes(10**6), 1000)
    with pytest.raises(InvalidMediaError, match="longer than the limit of 5000 bytes"):
        spool_to_file(input_source.StreamHeader(b"", index_at_end=True), reader, 5000)
    assert reader.position < 10_000


def test_a_stream_is_spooled_into_the_file_that_is_given_and_never_beyond_the_limit() -> None:
    class Counted(io.BytesIO):
        most = 0

        def write(self, data: bytes, /) -> int:
            written = super().write(data)
            self.most = max(self.most, self.tell())
            return written

    file = Counted()
    assert (
        spool_to_file(
            input_source.StreamHeader(b"head, ", index_at_end=True), Pieces(b"and the rest"), 100, file
        )
        is file
    )
    assert file.read() == b"head, and the rest"
    full = Counted()
    with pytest.raises(InvalidMediaError, match="longer than the limit of 5000 bytes"):
        spool_to_file(
            input_source.StreamHeader(b"head, ", index_at_end=True), Pieces(bytes(10**6), 1000), 5000, full
        )
    assert full.most <= 5000
    assert full.closed
