"""Demuxes and decodes media while its bytes arrive: stream info, then video frames and audio in file order."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import av
from av.stream import Disposition

from gorggle_server.errors import InvalidMediaError, OutOfRangeError
from gorggle_server.events import MediaInfo
from gorggle_server.media import formats
from gorggle_server.media.audio_resampler import AudioSamples
from gorggle_server.media.input_source import Reader, Source, open_container
from gorggle_server.media.packet_decoders import (
    DECODE_ERRORS,
    AudioDecoder,
    PacketDecoder,
    VideoDecoder,
    VideoFrame,
    to_seconds,
)
from gorggle_server.media.video_conversion import get_clockwise_rotation
from gorggle_server.recognition_options import MediaLimits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from av.container import InputContainer

MAX_DEMUX_ERRORS_IN_A_ROW = 100

# The info waits for the first video frame, which has the rotation, but for no more audio frames than this.
MAX_AUDIO_BEFORE_INFO = 256

# The declared duration is rarely exact: media counts as truncated if at least this much is missing.
TRUNCATED_MIN_S, TRUNCATED_MIN_SHARE = 0.5, 0.02


@dataclass(frozen=True)
class StreamInfo(MediaInfo):
    """What is known about the streams before they are decoded.

    Attributes:
        video_start_s, audio_start_s: first media timestamps; None if not known in advance.
        decodes_video, decodes_audio: whether the stream exists and is decoded.
    """

    video_start_s: float | None = None
    audio_start_s: float | None = None
    decodes_video: bool = False
    decodes_audio: bool = False

    @property
    def has_video(self) -> bool:
        """Whether there is video."""
        return bool(self.video_codec)

    @property
    def has_audio(self) -> bool:
        """Whether there is audio."""
        return bool(self.audio_codec)


@dataclass(frozen=True)
class MediaEnd:
    """The last item of a decoded stream.

    Attributes:
        broken_packets: packets that could not be decoded and were skipped.
        truncated: less was decoded than the container declares.
    """

    broken_packets: int
    truncated: bool


Decoded = StreamInfo | VideoFrame | AudioSamples | MediaEnd


def decode(
    reader: Reader,
    limits: MediaLimits,
    *,
    video: bool = True,
    audio: bool = True,
    live: bool = False,
    spool_file: IO[bytes] | None = None,
) -> Iterator[Decoded]:
    """Decode media on the calling thread while its bytes arrive.

    Args:
        reader: only its ``read`` is used. An MP4 with its index at the end is first copied to a temporary file.
        limits: media beyond them is refused.
        video: decode the video; the info describes it in any case.
        audio: decode the audio; likewise.
        live: yield every frame as soon as possible, at the cost of throughput.
        spool_file: an empty file for the temporary copy, if none can be opened.

    Yields:
        ``StreamInfo`` first, then video frames and audio in file order, ``MediaEnd`` last.

    Raises:
        InvalidMediaError: the media is empty, damaged, too large, of an unsupported format or has no video and audio.
        OutOfRangeError: the declared duration exceeds the limit.
    """
    with open_container(reader, limits.max_spooled_bytes, limits.max_frame_pixels, spool_file) as (
        container,
        source,
    ):
        yield from _Demuxer(
            container, source, limits, decode_video=video, decode_audio=audio, live=live
        ).items()


class _Demuxer:
    """Demuxes and decodes an open container once."""

    def __init__(
        self,
        container: InputContainer,
        source: Source,
        limits: MediaLimits,
        *,
        decode_video: bool,
        decode_audio: bool,
        live: bool,
    ) -> None:
        self._container, self._source = container, source
        video = _select_stream(container.streams.video, formats.VIDEO_CODECS)
        audio = _select_stream(container.streams.audio, formats.AUDIO_CODECS)
        if video is None and audio is None:
            source.raise_failure()
            raise InvalidMediaError(
                f"the {container.format.name} media has neither video nor audio: "
                "send a recording of a speaker"
            )
        self._info = dataclasses.replace(
            _read_info(container, video, audio),
            decodes_video=video is not None and decode_video,
            decodes_audio=audio is not None and decode_audio,
        )
        _check_duration(self._info.duration_s, limits.max_duration_s)
        self._video_decoder = (
            VideoDecoder(video, limits.max_frame_pixels, live=live) if video and decode_video else None
        )
        self._audio_decoder = AudioDecoder(audio) if audio and decode_audio else None
        self._decoders: list[PacketDecoder] = [
            decoder for decoder in (self._video_decoder, self._audio_decoder) if decoder is not None
        ]
        self._decodes_all = len(self._decoders) == (video is not None) + (audio is not None)
        self._demux_errors = 0

    def items(self) -> Iterator[Decoded]:
        """Yield all items, as ``decode``."""
        frames = self._frames()
        first = self._read_until_first_frame(frames)
        self._check_decoded(first)
        yield self._complete_info(first)
        yield from first
        yield from frames
        yield self._end()

    def _read_until_first_frame(
        self, frames: Iterator[VideoFrame | AudioSamples]
    ) -> list[VideoFrame | AudioSamples]:
        first: list[VideoFrame | AudioSamples] = []
        if self._video_decoder is None and self._audio_decoder is None:
            return first
        for frame in frames:
            first.append(frame)
            if (
                self._video_decoder is None
                or isinstance(frame, VideoFrame)
                or len(first) >= MAX_AUDIO_BEFORE_INFO
            ):
                break
        return first

    def _frames(self) -> Iterator[VideoFrame | AudioSamples]:
        decoders = {decoder.stream.index: decoder for decoder in self._decoders}
        for packet in self._packets():
            yield from decoders[packet.stream_index].decode(packet)
        for decoder in self._decoders:
            yield from decoder.flush()

    def _packets(self) -> Iterator[av.Packet[Any]]:
        """Yield the packets of the selected streams, continuing after demuxing errors while there is progress."""
        errors_in_a_row = 0
        while self._decoders and errors_in_a_row < MAX_DEMUX_ERRORS_IN_A_ROW:
            try:
                for packet in self._container.demux([decoder.stream for decoder in self._decoders]):
                    self._source.raise_failure()
                    self._source.reset_packet_counter()
                    errors_in_a_row = 0
                    if packet.size:  # PyAV's empty packets at the end would flush the decoders: flush() does
                        yield packet
            except IndexError:
                # PyAV raises it at the end if streams have appeared while demuxing, as in damaged FLV and PS:
                # https://github.com/PyAV-Org/PyAV/pull/694
                break
            except DECODE_ERRORS:
                self._source.raise_failure()
                errors_in_a_row += 1
                self._demux_errors += 1
            else:
                break
        self._source.raise_failure()

    def _check_decoded(self, first: list[VideoFrame | AudioSamples]) -> None:
        if first or not self._decoders:
            return
        size = (
            f"the frame size is {self._info.width_px}x{self._info.height_px}, " if self._video_decoder else ""
        )
        broken = sum(decoder.broken for decoder in self._decoders)
        raise InvalidMediaError(
            f"nothing in the {self._info.container} media could be decoded: {size}{broken} packets of "
            f"{self._source.bytes_read} bytes are broken; it is damaged or truncated, send the complete file"
        )

    def _complete_info(self, first: Iterable[VideoFrame | AudioSamples]) -> StreamInfo:
        decoded = next((frame.decoded for frame in first if isinstance(frame, VideoFrame)), None)
        if decoded is None:
            return self._info
        rotation = get_clockwise_rotation(decoded)
        size = (decoded.width, decoded.height)
        width, height = size if rotation in {0, 180} else size[::-1]
        return dataclasses.replace(self._info, rotation_degrees=rotation, width_px=width, height_px=height)

    def _end(self) -> MediaEnd:
        broken = self._demux_errors + sum(decoder.broken for decoder in self._decoders)
        return MediaEnd(broken, self._is_truncated())

    def _is_truncated(self) -> bool:
        declared = [
            length for decoder in self._decoders if (length := decoder.declared_duration_s) is not None
        ]
        if not declared and self._decodes_all and self._info.duration_s is not None:
            declared = [self._info.duration_s]
        if not declared:
            return False
        missing_s = max(declared) - max(decoder.decoded_duration_s for decoder in self._decoders)
        return missing_s > max(TRUNCATED_MIN_S, TRUNCATED_MIN_SHARE * max(declared))


def _select_stream(streams: tuple[Any, ...], codecs: frozenset[str]) -> Any:
    """Select the stream to decode: the default one, else the one with the largest frames; never cover art.

    Raises:
        InvalidMediaError: there are streams, but none with a supported codec.
    """
    art = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    moving = [stream for stream in streams if not stream.disposition & art]
    usable = [stream for stream in moving if _codec_name(stream) in codecs]
    if moving and not usable:
        codec_names = " and ".join(sorted({_codec_name(stream) or "unknown" for stream in moving}))
        raise InvalidMediaError(
            f"the {moving[0].type} codec {codec_names} is not supported; "
            "re-encode it as H.264 with AAC, or VP9 with Opus"
        )
    return max(usable, key=_rank, default=None)


def _rank(stream: Any) -> tuple[bool, int]:
    context = stream.codec_context
    return bool(stream.disposition & Disposition.default), getattr(context, "width", 0) * getattr(
        context, "height", 0
    )


def _codec_name(stream: Any) -> str:
    return "" if stream is None or stream.codec_context is None else stream.codec_context.codec.canonical_name


def _read_info(container: InputContainer, video: Any, audio: Any) -> StreamInfo:
    duration_us = container.duration
    return StreamInfo(
        container=container.format.name,
        video_codec=_codec_name(video),
        audio_codec=_codec_name(audio),
        width_px=video.codec_context.width if video else 0,
        height_px=video.codec_context.height if video else 0,
        frame_rate_hz=float(video.average_rate or video.guessed_rate or 0) if video else 0.0,
        duration_s=duration_us / av.time_base if duration_us is not None and duration_us > 0 else None,
        video_start_s=to_seconds(video.start_time, video) if video else None,
        audio_start_s=to_seconds(audio.start_time, audio) if audio else None,
    )


def _check_duration(duration_s: float | None, limit_s: float) -> None:
    if duration_s is not None and duration_s > limit_s:
        raise OutOfRangeError(
            f"the media lasts {duration_s:.1f} s; the limit is {limit_s:g} s: split it and send the parts separately"
        )
