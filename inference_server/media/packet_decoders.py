"""Decodes the packets of one stream, the pictures or the sound, and survives those that are broken."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import av

from gorggle_server.errors import InvalidMediaError
from gorggle_server.media.audio_resampler import AudioResampler, AudioSamples
from gorggle_server.media.video_conversion import to_grayscale
from gorggle_server.timebase import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

# What PyAV raises over damaged media, besides its own errors: sizes, layouts and rates that make no sense.
DECODE_ERRORS = (av.FFmpegError, ValueError, OverflowError, ZeroDivisionError)

# Each further thread that decodes whole frames holds one frame back: at 25 Hz four cost 120 ms. The cores are counted
# here, once: a process that has shut itself in cannot look them up any more.
DECODER_THREADS = min(4, os.cpu_count() or 1)

# A stream is given up when so many packets in a row are broken: 20 s of pictures at 25 Hz.
MAX_BROKEN_PACKETS_IN_A_ROW = 500

# Pixels further from square than this are a forged header, not a film format.
MAX_PIXEL_ASPECT = 4.0


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One decoded picture. Turned to grey only when asked: of 60 frames a second 25 are used.

    Attributes:
        time_s: when it is shown, on the media's own clock; None where the media does not say.
        duration_s: how long it is shown; 0 where unknown.
    """

    time_s: float | None
    duration_s: float
    decoded: av.VideoFrame = field(repr=False)
    pixel_aspect: float = 1.0

    def to_grayscale(self) -> NDArray[np.uint8]:
        """(H, W), upright, the long side at most 1280 pixels.

        Raises:
            InvalidMediaError: the decoder's pixel format cannot be converted.
        """
        try:
            return to_grayscale(self.decoded, self.pixel_aspect)
        except DECODE_ERRORS as error:
            raise InvalidMediaError(
                f"pictures of the format {self.decoded.format.name} cannot be turned to grey; "
                "write the video anew as H.264 in yuv420p"
            ) from error


class PacketDecoder(ABC):
    """Decodes one stream and keeps count.

    Attributes:
        stream: the container's stream.
        decoded: pictures or pieces of sound given so far.
        broken: packets that could not be decoded.
        seen_s: time from the first to the end of the last that was decoded.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.decoded = 0
        self.broken = 0
        self.decoded_duration_s = 0.0
        self._broken_in_a_row = 0
        self._first_s: float | None = None

    @property
    def declared_duration_s(self) -> float | None:
        """How long the container says the stream is."""
        return to_seconds(self.stream.duration, self.stream)

    def decode(self, packet: av.Packet[Any] | None) -> Iterator[VideoFrame | AudioSamples]:
        """Decode a packet, or with None what the decoder still holds back.

        Raises:
            InvalidMediaError: too many broken packets in a row, or a picture beyond the limit.
        """
        try:
            frames = self.stream.codec_context.decode(packet)
        except DECODE_ERRORS:
            self._count_broken()
            return
        for frame in frames:
            yield from self._convert(frame)
        self._broken_in_a_row = 0

    def flush(self) -> Iterator[VideoFrame | AudioSamples]:
        """Decode what is still held back at the end."""
        yield from self.decode(None)

    @abstractmethod
    def _convert(self, frame: Any) -> Iterator[VideoFrame | AudioSamples]: ...

    def _count(self, time_s: float | None, duration_s: float) -> None:
        self.decoded += 1
        if time_s is None:
            self.decoded_duration_s += duration_s
            return
        self._first_s = time_s if self._first_s is None else min(self._first_s, time_s)
        self.decoded_duration_s = max(self.decoded_duration_s, time_s - self._first_s + duration_s)

    def _count_broken(self) -> None:
        self.broken += 1
        self._broken_in_a_row += 1
        if self._broken_in_a_row >= MAX_BROKEN_PACKETS_IN_A_ROW:
            raise InvalidMediaError(
                f"{self._broken_in_a_row} packets in a row of the {self.stream.type} stream are broken: the media is "
                "damaged or encrypted; write it anew with an ordinary encoder"
            )


class VideoDecoder(PacketDecoder):
    """Decodes pictures, and refuses those beyond ``max_pixels``, before decoding where the header tells."""

    def __init__(self, stream: av.VideoStream, max_pixels: int, *, live: bool = False) -> None:
        super().__init__(stream)
        self._max_pixels = max_pixels
        context = stream.codec_context
        self._check_size(context.width, context.height)
        # Live, a picture is not held back to have others decoded beside it.
        context.thread_type = "SLICE" if live else "AUTO"
        context.thread_count = DECODER_THREADS
        context.options = {"max_pixels": str(get_decoder_pixel_limit(max_pixels))}
        self._pixel_aspect = _pixel_aspect(stream)

    def _convert(self, frame: av.VideoFrame) -> Iterator[VideoFrame]:
        self._check_size(frame.width, frame.height)
        # Not frame.time: PyAV gives frames that come out at the end no time base.
        time_s, duration_s = (
            to_seconds(frame.pts, self.stream),
            to_seconds(frame.duration, self.stream) or 0.0,
        )
        self._count(time_s, duration_s)
        yield VideoFrame(time_s, duration_s, frame, self._pixel_aspect)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            raise InvalidMediaError(
                f"the pictures are {width}x{height}, {width * height / 1e6:.1f} megapixels; the limit is "
                f"{self._max_pixels / 1e6:.1f}: scale the video down, lips need no more than 1280x720"
            )


class AudioDecoder(PacketDecoder):
    """Decodes sound to 16 kHz mono."""

    def __init__(self, stream: av.AudioStream) -> None:
        super().__init__(stream)
        self._resampler = AudioResampler()

    def flush(self) -> Iterator[VideoFrame | AudioSamples]:  # noqa: D102
        yield from super().flush()
        yield from self._counted(self._resampler.flush())

    def _convert(self, frame: av.AudioFrame) -> Iterator[AudioSamples]:
        yield from self._counted(self._resampler.push(frame, to_seconds(frame.pts, self.stream)))

    def _counted(self, pieces: Iterator[AudioSamples]) -> Iterator[AudioSamples]:
        try:
            for piece in pieces:
                self._count(piece.time_s, len(piece.samples) / SAMPLE_RATE_HZ)
                yield piece
        except DECODE_ERRORS:  # a layout or rate that cannot be mixed down
            self._count_broken()


def get_decoder_pixel_limit(max_pixels: int) -> int:
    """FFmpeg's own limit: twice ours, so that what is little above ours is refused with its size in the message."""
    return 2 * max_pixels


def to_seconds(ticks: int | None, stream: av.stream.Stream) -> float | None:
    """A time of the stream in seconds."""
    return None if ticks is None or stream.time_base is None else float(ticks * stream.time_base)


def _pixel_aspect(stream: av.VideoStream) -> float:
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT else 1.0
