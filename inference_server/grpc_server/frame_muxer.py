"""Wraps the frames and PCM audio of a stream as Matroska, so that the sandboxed decoder reads them like a media file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gorggle_server.errors import InvalidRequestError
from gorggle_server.media import matroska_muxer

if TYPE_CHECKING:
    from gorggle_server.grpc_server.request_decoding import PcmAudio

# The Matroska header lists the tracks, so frames are held until the first audio arrives: for at most this much media.
MAX_HELD_S = 1.0
MAX_HELD_BYTES = 16 * 2**20
MIN_FRAME_INTERVAL_S = 0.001
# Larger timestamp jumps are treated as a clock reset by the decoder.
MAX_FRAME_INTERVAL_S = 60.0


@dataclass(frozen=True)
class VideoFrame:
    """One image: a JPEG file, or I420 planes with their size (0 for JPEG)."""

    offset_s: float
    is_jpeg: bool
    width_px: int
    height_px: int
    data: bytes

    @property
    def format(self) -> tuple[bool, int, int]:
        """What all frames of a stream have in common."""
        return self.is_jpeg, self.width_px, self.height_px


class FrameMuxer:
    """Converts one stream's frames and audio to the bytes of a live Matroska stream.

    Args:
        uses_audio: whether audio is recognized; if not, it is dropped.
    """

    def __init__(self, *, uses_audio: bool) -> None:
        self._uses_audio = uses_audio
        self._first: VideoFrame | None = None
        self._last_offset_s = 0.0
        self._held: list[VideoFrame] = []
        self._held_bytes = 0
        self._has_header = False
        self._sample_rate_hz = 0
        self._sample_count = 0

    def add_frame(self, frame: VideoFrame) -> bytes:
        """Return the bytes that the frame adds to the stream; empty while frames are held.

        Raises:
            InvalidRequestError: the frame does not fit the previous ones.
        """
        self._validate(frame)
        self._last_offset_s = frame.offset_s
        if self._has_header:
            return _write_frame(frame)
        self._held.append(frame)
        self._held_bytes += len(frame.data)
        held_s = frame.offset_s - self._held[0].offset_s
        if self._uses_audio and held_s <= MAX_HELD_S and self._held_bytes <= MAX_HELD_BYTES:
            return b""
        return self._write_header(None)

    def add_audio(self, audio: PcmAudio) -> bytes:
        """Return the bytes that the samples add to the stream.

        Raises:
            InvalidRequestError: the sample rate changed, or the audio started too late.
        """
        if not self._uses_audio or not len(audio.samples):
            return b""
        audio.check_sample_rate(self._sample_rate_hz)
        header = b"" if self._has_header else self._write_header(audio.sample_rate_hz)
        if not self._sample_rate_hz:
            raise InvalidRequestError(
                f"the audio started more than {MAX_HELD_S:g} s after the first frame: send frames and audio in step",
                field="pcm",
            )
        block = matroska_muxer.write_block(
            matroska_muxer.AUDIO_TRACK,
            self._sample_count / self._sample_rate_hz,
            audio.samples.astype("<i2").tobytes(),
        )
        self._sample_count += len(audio.samples)
        return header + block

    def flush(self) -> bytes:
        """Return the bytes of frames that are still held, at the end of the stream."""
        return b"" if self._has_header else self._write_header(None)

    def _write_header(self, sample_rate_hz: int | None) -> bytes:
        assert self._first is not None, "a stream of frames starts with a frame"
        self._has_header, self._sample_rate_hz = True, sample_rate_hz or 0
        first, held = self._first, self._held
        self._held = []
        if sample_rate_hz is None and first.offset_s > 0:
            # The decoder's clock starts with the first timestamp: without audio, that must be 0.
            held = [VideoFrame(0.0, first.is_jpeg, first.width_px, first.height_px, first.data), *held]
        header = matroska_muxer.write_header(first.is_jpeg, (first.width_px, first.height_px), sample_rate_hz)
        return header + b"".join(map(_write_frame, held))

    def _validate(self, frame: VideoFrame) -> None:
        if self._first is None:
            self._first = frame
            interval_s = MIN_FRAME_INTERVAL_S + frame.offset_s
        else:
            interval_s = frame.offset_s - self._last_offset_s
        # A small tolerance: offsets are rounded.
        if not MIN_FRAME_INTERVAL_S - 1e-6 <= interval_s <= MAX_FRAME_INTERVAL_S:
            raise InvalidRequestError(
                f"a frame at {frame.offset_s:g} s follows one at {self._last_offset_s:g} s: "
                f"send frames in time order, {MIN_FRAME_INTERVAL_S:g} s to {MAX_FRAME_INTERVAL_S:g} s apart",
                field="frame.offset",
            )
        if frame.format != self._first.format:
            raise InvalidRequestError(
                "the format or size of the frames changed: send all frames of a stream in one format",
                field="frame",
            )


def _write_frame(frame: VideoFrame) -> bytes:
    return matroska_muxer.write_block(matroska_muxer.VIDEO_TRACK, frame.offset_s, frame.data)
