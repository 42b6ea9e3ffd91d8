"""Matroska and WebM as live streams: where their parts begin.

A browser's recording cannot be read from the middle, but its header and any cluster that begins with a key frame make
a stream again. That is what a session keeps of its media, so that another server can go on with it.

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
# Everything that may follow within a segment: one of them ends a cluster of unknown size.
_LEVEL_1 = frozenset({INFO, TRACKS, CLUSTER, 0x114D9B74, 0x1C53BB6B, 0x1254C367, 0x1941A469, 0x1043A770})
_UNKNOWN = -1
# Of one element: a key frame of 4K is far below.
MAX_ELEMENT_BYTES = 16 * 2**20


class MatroskaError(ValueError):
    """The bytes are no WebM or Matroska stream."""


@dataclass
class Cluster:
    """A stretch of media.

    Attributes:
        start_s: when its first frame is shown, or heard; None until that has come.
        is_key: whether reading can begin here: it has no pictures, or begins with a key frame.
        has_video: whether a picture has come.
        parts: its bytes so far.
        size_bytes: their number.
    """

    start_s: float | None = None
    is_key: bool = True
    has_video: bool = False
    parts: list[bytes] = field(default_factory=list)
    size_bytes: int = 0


class EbmlParser:
    """Cuts a stream that arrives in pieces into its elements.

    Attributes:
        header: all that comes before the first cluster.
        clusters: how many have begun.
    """

    def __init__(self) -> None:
        self.header = b""
        self.cluster_count = 0
        self._data = bytearray()
        # So many bytes complete the next element: until then there is nothing to look at.
        self._min_bytes = 1
        self._scale_ns = 1_000_000
        self._video_tracks: set[int] = set()
        self._cluster: Cluster | None = None
        self._cluster_timestamp = 0

    def feed(self, chunk: bytes) -> list[tuple[Cluster | None, bytes]]:
        """Take in bytes, cut anywhere; give each complete element with its cluster, None for those of the header.

        Raises:
            MatroskaError: the bytes are something else, or an element is larger than any should be.
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
            # What follows the clusters (cues, tags) is of use to files alone.
            if self._cluster is not None or not self.cluster_count:
                elements.append((self._cluster, data[at:end]))
            at = end
        else:
            self._min_bytes = len(data) - at + 1
        del self._data[:at]
        return elements

    def _find_element_end(self, identity: int, body: int, size: int) -> int:
        if not self.header and identity != EBML:
            raise MatroskaError(f"the stream begins with an element {identity:x}: expected WebM (1a45dfa3)")
        if identity in (SEGMENT, CLUSTER):
            return body
        if size == _UNKNOWN or size > MAX_ELEMENT_BYTES:
            raise MatroskaError(
                f"an element {identity:x} of {size} bytes: expected at most {MAX_ELEMENT_BYTES}"
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
            self._cluster.size_bytes += len(raw)
        elif not self.cluster_count:
            self._parse_header_element(identity, body)
            self.header += raw
            if len(self.header) > MAX_ELEMENT_BYTES:
                raise MatroskaError("a header without an end")

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
        elif identity == SIMPLE_BLOCK:
            is_key = len(body) > 3 and bool(_read_block_flags(body) & 0x80)
        else:
            return
        track = _read_vint(body, 0)
        if track is None or len(body) < track[1] + 3:
            raise MatroskaError("a block without a head")
        number, at = track
        if cluster.start_s is None:
            ticks = self._cluster_timestamp + struct.unpack_from(">h", body, at)[0]
            cluster.start_s = ticks * self._scale_ns / 1e9
        if number in self._video_tracks and not cluster.has_video:
            cluster.has_video, cluster.is_key = True, is_key


def _read_element_header(data: bytes, at: int) -> tuple[int, int, int] | None:
    """An element's identity, where its content begins, and its size; None where more bytes are needed."""
    if at >= len(data):
        return None
    length = 9 - data[at].bit_length()
    if length > 4:
        raise MatroskaError(f"{data[at]:02x} begins no element: the stream is damaged, or no WebM")
    if at + length > len(data):
        return None
    size = _read_vint(data, at + length)
    if size is None:
        return None
    value, body = size
    width = body - at - length
    return (
        int.from_bytes(data[at : at + length], "big"),
        body,
        _UNKNOWN if value == (1 << 7 * width) - 1 else value,
    )


def _read_vint(data: bytes, at: int) -> tuple[int, int] | None:
    """A number of variable length, and where it ends."""
    if at >= len(data):
        return None
    length = 9 - data[at].bit_length()
    if length > 8:
        raise MatroskaError("a number of no length: the stream is damaged, or no WebM")
    if at + length > len(data):
        return None
    return int.from_bytes(data[at : at + length], "big") & (1 << 7 * length) - 1, at + length


def _iter_children(body: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while (head := _read_element_header(body, at)) is not None:
        identity, start, size = head
        if size == _UNKNOWN or start + size > len(body):
            raise MatroskaError(f"an element {identity:x} reaches beyond the one around it")
        yield identity, body[start : start + size]
        at = start + size


def _iter_video_tracks(body: bytes) -> Iterator[int]:
    for identity, entry in _iter_children(body):
        fields = dict(_iter_children(entry)) if identity == TRACK_ENTRY else {}
        if _to_int(fields.get(TRACK_TYPE, b"")) == VIDEO_TRACK:
            yield _to_int(fields.get(TRACK_NUMBER, b""))


def _read_block_flags(block: bytes) -> int:
    track = _read_vint(block, 0)
    return block[track[1] + 2] if track is not None and len(block) > track[1] + 2 else 0


def _to_int(body: bytes) -> int:
    return int.from_bytes(body, "big")
