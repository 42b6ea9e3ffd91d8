"""Incremental parser of live Matroska and WebM streams.

A browser's recording cannot be decoded from the middle, but its header and the clusters from any key frame on form a
valid stream. A session retains these, so that it can continue on another server.

Source: RFC 9559 (Matroska), RFC 8794 (EBML).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

EBML, SEGMENT, INFO, TRACKS, CLUSTER = 0x1A45DFA3, 0x18538067, 0x1549A966, 0x1654AE6B, 0x1F43B675
TIMESTAMP_SCALE, CLUSTER_TIMESTAMP, SIMPLE_BLOCK, BLOCK_GROUP, BLOCK = 0x2AD7B1, 0xE7, 0xA3, 0xA0, 0xA1
TRACK_ENTRY, TRACK_NUMBER, TRACK_TYPE, REFERENCE_BLOCK = 0xAE, 0xD7, 0x83, 0xFB
VIDEO_TRACK = 1
# Top-level elements of a segment: any of them ends a cluster of unknown size.
_LEVEL_1 = frozenset({INFO, TRACKS, CLUSTER, 0x114D9B74, 0x1C53BB6B, 0x1254C367, 0x1941A469, 0x1043A770})
_UNKNOWN = -1
# Size of one element; a 4K key frame is far smaller.
MAX_ELEMENT_BYTES = 16 * 2**20


class MatroskaError(ValueError):
    """The bytes are not a WebM or Matroska stream."""


@dataclass
class Cluster:
    """A cluster of the stream.

    Attributes:
        start_s: time of its first block; None before that.
        is_key: decoding can start here: it has no video, or starts with a key frame.
        has_video: a video block was received.
        parts: its elements received so far.
    """

    start_s: float | None = None
    is_key: bool = True
    has_video: bool = False
    parts: list[bytes] = field(default_factory=list)


class EbmlParser:
    """Splits a stream that arrives in chunks into elements.

    Attributes:
        header: everything before the first cluster.
        cluster_count: number of clusters that have started.
    """

    def __init__(self) -> None:
        self.header = b""
        self.cluster_count = 0
        self._data = bytearray()
        # Bytes needed for the next complete element.
        self._min_bytes = 1
        self._scale_ns = 1_000_000
        self._video_tracks: set[int] = set()
        self._cluster: Cluster | None = None
        self._cluster_timestamp = 0

    def feed(self, chunk: bytes) -> list[tuple[Cluster | None, bytes]]:
        """Add bytes; return each complete element with its cluster, None in the header.

        Raises:
            MatroskaError: invalid data, or an element over the size limit.
        """
        self._data += chunk
        if len(self._data) < self._min_bytes:
            return []
        data, at = bytes(self._data), 0
        elements: list[tuple[Cluster | None, bytes]] = []
        while (head := _read_element_header(data, at)) is not None:
            identity, body, size = head
            end = self._find_element_end(identity, body, size)
            if end > len(data):
                self._min_bytes = end - at
                break
            self._handle_element(identity, data[at:end], data[body:end])
            # Elements after the clusters (cues, tags) are only useful in files.
            if self._cluster is not None or not self.cluster_count:
                elements.append((self._cluster, data[at:end]))
            at = end
        else:
            self._min_bytes = len(data) - at + 1
        del self._data[:at]
        return elements

    def _find_element_end(self, identity: int, body: int, size: int) -> int:
        if not self.header and identity != EBML:
            raise MatroskaError(f"the stream starts with element {identity:x}: expected WebM (1a45dfa3)")
        if identity in (SEGMENT, CLUSTER):
            return body
        if size == _UNKNOWN or size > MAX_ELEMENT_BYTES:
            raise MatroskaError(
                f"element {identity:x} has {size} bytes: expected at most {MAX_ELEMENT_BYTES}"
            )
        return body + size

    def _handle_element(self, identity: int, raw: bytes, body: bytes) -> None:
        if identity == CLUSTER:
            self._cluster, self._cluster_timestamp = Cluster(), 0
            self.cluster_count += 1
        elif identity in _LEVEL_1:
            self._cluster = None
        if self._cluster is not None:
            self._parse_cluster_child(self._cluster, identity, body)
            self._cluster.parts.append(raw)
        elif not self.cluster_count:
            self._parse_header_element(identity, body)
            self.header += raw
            if len(self.header) > MAX_ELEMENT_BYTES:
                raise MatroskaError(f"the header exceeds {MAX_ELEMENT_BYTES} bytes")

    def _parse_header_element(self, identity: int, body: bytes) -> None:
        if identity == INFO:
            scales = [_to_int(content) for child, content in _iter_children(body) if child == TIMESTAMP_SCALE]
            self._scale_ns = (scales or [self._scale_ns])[0]
        elif identity == TRACKS:
            self._video_tracks = set(_iter_video_tracks(body))

    def _parse_cluster_child(self, cluster: Cluster, identity: int, body: bytes) -> None:
        if identity == CLUSTER_TIMESTAMP:
            self._cluster_timestamp = _to_int(body)
            return
        is_key = True
        if identity == BLOCK_GROUP:
            children = list(_iter_children(body))
            is_key = all(child != REFERENCE_BLOCK for child, _ in children)
            body = next((content for child, content in children if child == BLOCK), b"")
        elif identity != SIMPLE_BLOCK:
            return
        track = _read_vint(body, 0)
        if track is None or len(body) < track[1] + 3:
            raise MatroskaError("a block has no header")
        number, at = track
        if identity == SIMPLE_BLOCK:
            is_key = bool(body[at + 2] & 0x80)
        if cluster.start_s is None:
            ticks = self._cluster_timestamp + struct.unpack_from(">h", body, at)[0]
            cluster.start_s = ticks * self._scale_ns / 1e9
        if number in self._video_tracks and not cluster.has_video:
            cluster.has_video, cluster.is_key = True, is_key


def _read_element_header(data: bytes, at: int) -> tuple[int, int, int] | None:
    """Return an element's ID, the offset of its content and its size; None if more bytes are needed."""
    if at >= len(data):
        return None
    length = 9 - data[at].bit_length()
    if length > 4:
        raise MatroskaError(
            f"{data[at]:02x} is not the start of an element: the stream is damaged, or not WebM"
        )
    if at + length > len(data):
        return None
    size = _read_vint(data, at + length)
    if size is None:
        return None
    value, body = size
    is_unknown = value == (1 << 7 * (body - at - length)) - 1
    return _to_int(data[at : at + length]), body, _UNKNOWN if is_unknown else value


def _read_vint(data: bytes, at: int) -> tuple[int, int] | None:
    """Return a variable-length integer and the offset of its end; None if more bytes are needed."""
    if at >= len(data):
        return None
    length = 9 - data[at].bit_length()
    if length > 8:
        raise MatroskaError("invalid variable-length integer: the stream is damaged, or not WebM")
    if at + length > len(data):
        return None
    return int.from_bytes(data[at : at + length], "big") & (1 << 7 * length) - 1, at + length


def _iter_children(body: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while (head := _read_element_header(body, at)) is not None:
        identity, start, size = head
        if size == _UNKNOWN or start + size > len(body):
            raise MatroskaError(f"element {identity:x} exceeds its parent element")
        yield identity, body[start : start + size]
        at = start + size


def _iter_video_tracks(body: bytes) -> Iterator[int]:
    for identity, entry in _iter_children(body):
        fields = dict(_iter_children(entry)) if identity == TRACK_ENTRY else {}
        if _to_int(fields.get(TRACK_TYPE, b"")) == VIDEO_TRACK:
            yield _to_int(fields.get(TRACK_NUMBER, b""))


def _to_int(body: bytes) -> int:
    return int.from_bytes(body, "big")
