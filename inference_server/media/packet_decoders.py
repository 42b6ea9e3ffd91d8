"""Decodes the packets of a video or audio stream and skips broken ones."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import av

from gorggle_server.errors import InvalidMediaError
from gorggle_server.input_format import SAMPLE_RATE_HZ
from gorggle_server.media.audio_resampler import AudioResampler, AudioSamples
from gorggle_server.media.video_conversion import to_grayscale

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

# Raised by PyAV on damaged media; the built-in errors for invalid sizes, layouts and rates.
DECODE_ERRORS = (av.FFmpegError, ValueError, OverflowError, ZeroDivisionError)

# With frame threading, each additional thread delays the output by one frame: four threads cost 120 ms at 25 Hz. CPUs
# are counted at import, because a sandboxed process cannot query them.
DECODER_THREADS = min(4, os.cpu_count() or 1)

# Decoding stops after this many consecutive broken packets: 20 s of video at 25 Hz.
MAX_BROKEN_PACKETS_IN_A_ROW = 500

# A larger pixel aspect ratio is not a real format but a forged header.
MAX_PIXEL_ASPECT = 4.0


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """A decoded video frame. Converted to grayscale on demand, because not all frames are used.

    Attributes:
        time_s: media timestamp; None if unknown.
        duration_s: 0 if unknown.
    """

    time_s: float | None
    duration_s: float
    decoded: av.VideoFrame = field(repr=False)
    pixel_aspect: float = 1.0

    def to_grayscale(self) -> NDArray[np.uint8]:
        """Return the upright grayscale image (H, W), its long side at most 1280 pixels.

        Raises:
            InvalidMediaError: the pixel format cannot be converted.
        """
        try:
            return to_grayscale(self.decoded, self.pixel_aspect)
        except DECODE_ERRORS as error:
            raise InvalidMediaError(
                f"frames of the pixel format {self.decoded.format.name} cannot be converted to grayscale; "
                "re-encode the video as H.264 in yuv420p"
            ) from error


class PacketDecoder(ABC):
    """Decodes one stream and counts the results.

    Attributes:
        stream: the container's stream.
        broken: packets that could not be decoded.
        decoded_duration_s: from the start of the first to the end of the last decoded frame.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.broken = 0
        self.decoded_duration_s = 0.0
        self._broken_in_a_row = 0
        self._first_s: float | None = None

    @property
    def declared_duration_s(self) -> float | None:
        """The stream's duration as declared by the container."""
        return to_seconds(self.stream.duration, self.stream)

    def decode(self, packet: av.Packet[Any] | None) -> Iterator[VideoFrame | AudioSamples]:
        """Decode a packet; None flushes the decoder.

        Raises:
            InvalidMediaError: too many consecutive broken packets, or a frame beyond the size limit.
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
        """Yield the frames that the decoder still holds at the end."""
        yield from self.decode(None)

    @abstractmethod
    def _convert(self, frame: Any) -> Iterator[VideoFrame | AudioSamples]: ...

    def _count(self, time_s: float | None, duration_s: float) -> None:
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
                f"{self._broken_in_a_row} consecutive packets of the {self.stream.type} stream are broken: the media is "
                "damaged or encrypted; re-encode it with a standard encoder"
            )


class VideoDecoder(PacketDecoder):
    """Decodes video; refuses frames of more than ``max_pixels``, if possible before decoding them."""

    def __init__(self, stream: av.VideoStream, max_pixels: int, *, live: bool = False) -> None:
        super().__init__(stream)
        self._max_pixels = max_pixels
        context = stream.codec_context
        self._check_size(context.width, context.height)
        # Frame threading adds latency, so live streams use slice threading.
        context.thread_type = "SLICE" if live else "AUTO"
        context.thread_count = DECODER_THREADS
        context.options = {"max_pixels": str(get_decoder_pixel_limit(max_pixels))}
        self._pixel_aspect = _pixel_aspect(stream)

    def _convert(self, frame: av.VideoFrame) -> Iterator[VideoFrame]:
        self._check_size(frame.width, frame.height)
        # Not frame.time: PyAV sets no time base on flushed frames.
        time_s = to_seconds(frame.pts, self.stream)
        duration_s = to_seconds(frame.duration, self.stream) or 0.0
        self._count(time_s, duration_s)
        yield VideoFrame(time_s, duration_s, frame, self._pixel_aspect)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            raise InvalidMediaError(
                f"the frames are {width}x{height}, {width * height / 1e6:.1f} megapixels; the limit is "
                f"{self._max_pixels / 1e6:.1f}: downscale the video, 1280x720 is sufficient"
            )


class AudioDecoder(PacketDecoder):
    """Decodes audio to 16 kHz mono."""

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
        except DECODE_ERRORS:  # a channel layout or sample rate that cannot be resampled
            self._count_broken()


def get_decoder_pixel_limit(max_pixels: int) -> int:
    """Return the limit for FFmpeg: twice ours, so that frames slightly above ours get an error message with their size."""
    return 2 * max_pixels


def to_seconds(ticks: int | None, stream: av.stream.Stream) -> float | None:
    """Convert a timestamp or duration of the stream to seconds."""
    return None if ticks is None or stream.time_base is None else float(ticks * stream.time_base)


def _pixel_aspect(stream: av.VideoStream) -> float:
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT else 1.0
