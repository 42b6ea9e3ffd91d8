"""A window of a video as a video of its own: packets are copied, nothing is decoded or encoded anew."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import av

from gorggle_lambdas.common.errors import InvalidMediaError
from gorggle_lambdas.media.container import find_audio_stream, find_video_stream, get_start_s, open_media

# Matroska takes every codec and needs no seeking; an unknown length makes it a stream. What comes in a transport stream
# stays in one: its AAC and H.264 are framed for that.
_MPEG_TS = "mpegts"
_DEFAULT_FORMAT, _MUXER_OPTIONS = "matroska", {"live": "1", "cluster_time_limit": "1000"}
CHUNK_BYTES = 256 * 2**10
# Containers without an index (MPEG-TS) are sought by bytes, and land between key frames: then further back.
SEEK_MARGINS_S = (0.0, 4.0, 8.0, 16.0, 32.0, 64.0, float("inf"))
# Matroska does not store when a picture is decoded. It is within so much of when it is shown.
MAX_REORDERING_S = 1.0


@dataclass(frozen=True)
class ClipStream:
    """A window as it is sent.

    Attributes:
        start_s: what its second 0 is in the whole: where the last picture before the window stands for itself.
        chunks: its bytes, made as they are asked for.
    """

    start_s: float
    chunks: Iterator[bytes]


def extract_clip(
    file: IO[bytes] | Any, start_s: float, end_s: float, *, video: bool, audio: bool
) -> ClipStream:
    """Cut a window out of a video.

    Args:
        file: the video, as a file that can be sought in.
        start_s: where the window begins, in seconds of the whole.
        end_s: where it ends.
        video: whether the window needs them; what the video lacks is left out.
        audio: likewise.

    Raises:
        InvalidMediaError: no video, or nothing in this window: here, or where the chunks are taken.
    """
    pieces = _remux(file, start_s, end_s, video, audio)
    try:
        first = next(pieces)
    except StopIteration:
        raise InvalidMediaError(f"the video holds nothing from {start_s:.3f} s to {end_s:.3f} s") from None
    assert isinstance(first, float), "the start comes first"
    return ClipStream(first, (piece for piece in pieces if isinstance(piece, bytes)))


def _remux(
    file: IO[bytes] | Any, start_s: float, end_s: float, needs_video: bool, needs_audio: bool
) -> Iterator[float | bytes]:
    with open_media(file) as container:
        zero = get_start_s(container)
        streams = [
            stream
            for stream, is_wanted in (
                (find_video_stream(container), needs_video),
                (find_audio_stream(container), needs_audio),
            )
            if stream is not None and is_wanted
        ]
        packets = _read_packets(container, streams, zero + start_s, zero + end_s)
        first = next(packets, None)
        if first is None:
            return
        # Below the first picture nothing is sent, so the server counts from it.
        base_s = _get_time_s(first)
        yield round(max(0.0, base_s - zero), 6)
        is_transport = container.format.name == _MPEG_TS
        yield from _mux(streams, itertools.chain([first], packets), base_s, is_transport=is_transport)
    failure = getattr(file, "failure", None)
    if failure is not None:
        raise failure


def _read_packets(container: Any, streams: list[Any], from_s: float, to_s: float) -> Iterator[Any]:
    """The packets of a window: from a key frame at or before it on, all that begin before its end."""
    if not streams:
        return
    leader = streams[0]
    for back_s in SEEK_MARGINS_S:
        is_start = back_s >= from_s
        packets = _demux_from(container, streams, 0.0 if is_start else from_s - back_s)
        held, first = _skip_to_key_frame(packets, leader)
        if first is not None and (is_start or _get_time_s(first) <= from_s):
            base_s = _get_time_s(first)
            yield first
            yield from (one for one in held if _get_time_s(one) >= base_s)
            yield from _read_until(packets, {stream.index for stream in streams}, base_s, to_s)
            return
        if is_start:
            return


def _demux_from(container: Any, streams: list[Any], start_s: float) -> Iterator[Any]:
    if start_s > 0:
        leader = streams[0]
        container.seek(int(start_s / leader.time_base), stream=leader, backward=True, any_frame=False)
    else:
        container.seek(container.start_time or 0, backward=True, any_frame=False)
    for packet in container.demux(*streams):
        # AVI tells when pictures are decoded alone; it has none out of order.
        if packet.pts is None:
            packet.pts = packet.dts
        if packet.pts is not None and packet.size:
            yield packet


def _skip_to_key_frame(packets: Iterator[Any], leader: Any) -> tuple[list[Any], Any | None]:
    """The other streams' packets before the leader's next key frame, and that."""
    held: list[Any] = []
    for packet in packets:
        if packet.stream is not leader:
            held.append(packet)
        elif packet.is_keyframe:
            return held, packet
    return held, None


def _read_until(
    packets: Iterator[Any], active_streams: set[int], base_s: float, to_s: float
) -> Iterator[Any]:
    for packet in packets:
        decoded_at = packet.pts if packet.dts is None else packet.dts
        if float(decoded_at * packet.time_base) >= to_s:
            active_streams.discard(packet.stream.index)
            if not active_streams:
                return
        elif _get_time_s(packet) >= base_s:
            # Pictures shown before the key frame refer to others that are not sent.
            yield packet


def _mux(streams: list[Any], packets: Iterator[Any], base_s: float, *, is_transport: bool) -> Iterator[bytes]:
    sink = _ChunkBuffer()
    kind, options = (_MPEG_TS, {}) if is_transport else (_DEFAULT_FORMAT, _MUXER_OPTIONS)
    with av.open(sink, "w", format=kind, options=options) as output:
        outputs = {stream.index: output.add_stream_from_template(stream) for stream in streams}
        decoded_at: dict[int, int] = {}
        for packet in packets:
            shift = round(base_s / packet.time_base)
            packet.pts -= shift
            last = decoded_at.get(packet.stream.index)
            if packet.dts is None:
                earliest = packet.pts - round(MAX_REORDERING_S / packet.time_base)
                packet.dts = earliest if last is None else max(last + 1, earliest)
            else:
                packet.dts -= shift
                packet.dts = packet.dts if last is None else max(last + 1, packet.dts)
            decoded_at[packet.stream.index] = packet.dts
            packet.stream = outputs[packet.stream.index]
            output.mux(packet)
            if sink.size >= CHUNK_BYTES:
                yield sink.pop()
    if sink.size:
        yield sink.pop()


def _get_time_s(packet: Any) -> float:
    return float(packet.pts * packet.time_base)


class _ChunkBuffer:
    """What the muxer writes to; it can only be appended to."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.size = 0

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        self.size += len(data)
        return len(data)

    def pop(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        self.size = 0
        return taken
