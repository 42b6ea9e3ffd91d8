"""Extracts a window of a video by copying packets, without decoding or encoding."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import av

from gorggle_lambdas.common.errors import InvalidMediaError
from gorggle_lambdas.media.container import find_audio_stream, find_video_stream, get_start_s, open_media

# Matroska supports every codec and streaming output. An MPEG transport stream stays one, because its AAC and H.264 are
# framed for it.
_MPEG_TS = "mpegts"
_DEFAULT_FORMAT, _MUXER_OPTIONS = "matroska", {"live": "1", "cluster_time_limit": "1000"}
CHUNK_BYTES = 256 * 2**10
# Seeking in containers without an index (MPEG-TS) may land between key frames: then seek further back.
SEEK_MARGINS_S = (0.0, 4.0, 8.0, 16.0, 32.0, 64.0, float("inf"))
# Matroska does not store decoding times. They precede presentation times by at most this.
MAX_REORDERING_S = 1.0


@dataclass(frozen=True)
class ClipStream:
    """A window as a stream.

    Attributes:
        start_s: start in the whole video: the last key frame before the window.
        chunks: its bytes, generated lazily.
    """

    start_s: float
    chunks: Iterator[bytes]


def extract_clip(
    file: IO[bytes] | Any, start_s: float, end_s: float, *, video: bool, audio: bool
) -> ClipStream:
    """Extract a window of a video.

    Args:
        file: the video, seekable.
        start_s: start of the window in seconds of the whole.
        end_s: end of the window.
        video: whether to include the video stream, if there is one.
        audio: whether to include the audio stream, if there is one.

    Raises:
        InvalidMediaError: not a video, or nothing in this window; raised here or while reading the chunks.
    """
    items = _remux(file, start_s, end_s, video, audio)
    try:
        first = next(items)
    except StopIteration:
        raise InvalidMediaError(f"the video has no data from {start_s:.3f} s to {end_s:.3f} s") from None
    assert isinstance(first, float), "the start comes first"
    return ClipStream(first, (item for item in items if isinstance(item, bytes)))


def _remux(
    file: IO[bytes] | Any, start_s: float, end_s: float, needs_video: bool, needs_audio: bool
) -> Iterator[float | bytes]:
    with open_media(file) as container:
        media_start_s = get_start_s(container)
        streams = [
            stream
            for stream, is_needed in (
                (find_video_stream(container), needs_video),
                (find_audio_stream(container), needs_audio),
            )
            if stream is not None and is_needed
        ]
        packets = _read_packets(container, streams, media_start_s + start_s, media_start_s + end_s)
        first = next(packets, None)
        if first is None:
            return
        # Nothing before the first packet is sent, so the server's times start there.
        base_s = _get_time_s(first)
        yield round(max(0.0, base_s - media_start_s), 6)
        is_mpeg_ts = container.format.name == _MPEG_TS
        yield from _mux(streams, itertools.chain([first], packets), base_s, is_mpeg_ts=is_mpeg_ts)


def _read_packets(container: Any, streams: list[Any], from_s: float, to_s: float) -> Iterator[Any]:
    """Yield the packets of a window, from the key frame at or before it, that start before its end."""
    if not streams:
        return
    leader = streams[0]
    for margin_s in SEEK_MARGINS_S:
        is_start = margin_s >= from_s
        packets = _demux_from(container, streams, 0.0 if is_start else from_s - margin_s)
        buffered, first = _skip_to_key_frame(packets, leader)
        if first is not None and (is_start or _get_time_s(first) <= from_s):
            base_s = _get_time_s(first)
            yield first
            yield from (packet for packet in buffered if _get_time_s(packet) >= base_s)
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
        # AVI has decoding times only; its frames are never reordered.
        if packet.pts is None:
            packet.pts = packet.dts
        if packet.pts is not None and packet.size:
            yield packet


def _skip_to_key_frame(packets: Iterator[Any], leader: Any) -> tuple[list[Any], Any | None]:
    """Return the leading stream's next key frame, and the packets of other streams before it."""
    buffered: list[Any] = []
    for packet in packets:
        if packet.stream is not leader:
            buffered.append(packet)
        elif packet.is_keyframe:
            return buffered, packet
    return buffered, None


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
            # Frames shown before the key frame depend on others that are not sent.
            yield packet


def _mux(streams: list[Any], packets: Iterator[Any], base_s: float, *, is_mpeg_ts: bool) -> Iterator[bytes]:
    sink = _ChunkBuffer()
    format_name, options = (_MPEG_TS, {}) if is_mpeg_ts else (_DEFAULT_FORMAT, _MUXER_OPTIONS)
    with av.open(sink, "w", format=format_name, options=options) as output:
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
    """Append-only output file of the muxer."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self.size = 0

    def write(self, data: bytes) -> int:
        self._chunks.append(bytes(data))
        self.size += len(data)
        return len(data)

    def pop(self) -> bytes:
        data = b"".join(self._chunks)
        self._chunks.clear()
        self.size = 0
        return data
