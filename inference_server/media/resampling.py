"""Resamples decoded media to a common timeline: grayscale frames at exactly 25 Hz, 16 kHz audio without gaps.

Frame ``k`` is at ``k * 0.04`` s and sample ``n`` at ``n / 16000`` s from the media's time zero, the start of its video
or audio, whichever is first. If audio starts first, zero is shifted by less than one frame so that the first video
frame is on the grid. Then 25 Hz video is passed through frame by frame, although encoders let the audio start a few
milliseconds early.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gorggle_server.errors import OutOfRangeError
from gorggle_server.input_format import FRAME_S, SAMPLE_RATE_HZ
from gorggle_server.media.audio_resampler import AudioSamples
from gorggle_server.media.demuxer import Decoded, MediaEnd, StreamInfo
from gorggle_server.media.packet_decoders import VideoFrame
from gorggle_server.media.timestamps import MAX_GAP_S, TimestampNormalizer
from gorggle_server.media.video_conversion import fit_to_shape
from gorggle_server.recognition_options import MediaLimits

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from numpy.typing import NDArray

# Time zero is known when both streams have a timestamp. If one is late and not declared in the header, at most this
# much of the other is buffered.
MAX_HELD_S = 1.0
MAX_HELD_PIXELS = 64_000_000

# Maximum duration of the last video frame.
MAX_LAST_FRAME_S = 1.0

# Timestamps in 1/1000 or 1/90000 s are not exactly on the grid.
ROUNDING_S = 1e-4

# Maximum length of a waveform chunk, so that a long gap or a forged sample rate does not need a large array.
MAX_CHUNK_SAMPLES = SAMPLE_RATE_HZ


@dataclass(frozen=True, eq=False)
class GrayFrame:
    """The video frame at ``index * 0.04`` s.

    Attributes:
        pixels: uint8 (H, W), upright, of constant size. A source frame that is repeated is the same array each time.
    """

    index: int
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Waveform:
    """A chunk of audio that begins at sample ``start``, where the previous one ended.

    Attributes:
        samples: int16 (S,), 16 kHz mono, at most 1 s.
    """

    start: int
    samples: NDArray[np.int16]


@dataclass(frozen=True)
class EndOfStream:
    """The last item of a timeline.

    Attributes:
        frames: number of frames.
        samples: number of samples.
        broken_packets, truncated: as in ``MediaEnd``.
    """

    frames: int
    samples: int
    broken_packets: int
    truncated: bool


TimelineItem = StreamInfo | GrayFrame | Waveform | EndOfStream


def resample(decoded: Iterable[Decoded], limits: MediaLimits) -> Generator[TimelineItem]:
    """Resample the items of ``demuxer.decode`` by their timestamps.

    Each frame is the source frame nearest in time, so any frame rate works, including variable ones. Gaps up to
    ``timestamps.MAX_GAP_S`` are filled with the nearest frame and with silence; frames out of order and overlapping
    audio are dropped.

    Yields:
        ``StreamInfo``, then frames and waveform chunks, each without gaps, ``EndOfStream`` last.

    Raises:
        OutOfRangeError: the media exceeds ``limits.max_duration_s``.
    """
    decoded = iter(decoded)
    info = next(decoded)
    assert isinstance(info, StreamInfo), "StreamInfo is the first item"
    yield info
    held, zero_s = _find_zero(decoded, info)
    timeline = _Timeline(zero_s, limits.max_duration_s)
    for item in itertools.chain(held, decoded):
        match item:
            case VideoFrame():
                yield from timeline.push_frame(item)
            case AudioSamples():
                yield from timeline.push_audio(item)
            case MediaEnd():
                yield from timeline.flush(item)


def _find_zero(decoded: Iterator[Decoded], info: StreamInfo) -> tuple[list[Decoded], float]:
    """Buffer items until time zero is known; return them, and time zero as a media timestamp."""
    held: list[Decoded] = []
    starts = _StartTimes(info)
    for item in decoded:
        held.append(item)
        starts.add(item)
        if starts.is_complete:
            break
    return held, starts.zero_s()


class _StartTimes:
    """Determines the start times of video and audio, as media timestamps."""

    def __init__(self, info: StreamInfo) -> None:
        self._declared: dict[type, float | None] = {}
        if info.decodes_video:
            self._declared[VideoFrame] = info.video_start_s
        if info.decodes_audio:
            self._declared[AudioSamples] = info.audio_start_s
        self._seen: dict[type, float] = {}
        self._seen_until_s = -math.inf
        self._pixels_held = 0

    def add(self, item: Decoded) -> None:
        """Add the next item."""
        if not isinstance(item, VideoFrame | AudioSamples):
            return
        kind = VideoFrame if isinstance(item, VideoFrame) else AudioSamples
        time_s = item.time_s if item.time_s is not None else self._declared.get(kind) or 0.0
        self._seen.setdefault(kind, time_s)
        self._seen_until_s = max(self._seen_until_s, time_s)
        if isinstance(item, VideoFrame):
            self._pixels_held += item.decoded.width * item.decoded.height

    @property
    def is_complete(self) -> bool:
        """Whether the start of every stream is known, or the buffer limit is reached."""
        if not self._seen:
            return False
        held_s = self._seen_until_s - min(self._seen.values())
        if held_s >= MAX_HELD_S or self._pixels_held >= MAX_HELD_PIXELS:
            return True
        return all(self._start_s(kind) is not None for kind in self._declared)

    def zero_s(self) -> float:
        """Return time zero as a media timestamp."""
        starts_s = [start_s for kind in self._declared if (start_s := self._start_s(kind)) is not None]
        earliest_s = min(starts_s, default=0.0)
        video_s = self._start_s(VideoFrame)
        if video_s is None:
            return earliest_s
        return video_s - math.floor((video_s - earliest_s + ROUNDING_S) / FRAME_S) * FRAME_S

    def _start_s(self, kind: type) -> float | None:
        if kind in self._seen:
            return self._seen[kind]
        declared_s = self._declared.get(kind)
        if declared_s is None or any(abs(declared_s - seen_s) > MAX_GAP_S for seen_s in self._seen.values()):
            return None
        return declared_s


class _Timeline:
    """Converts decoded items to frames and waveform chunks."""

    def __init__(self, zero_s: float, max_duration_s: float) -> None:
        self._clock = TimestampNormalizer(zero_s)
        self._frames = _FrameResampler(max_duration_s)
        self._waveform = _WaveformAssembler(max_duration_s)

    def push_frame(self, frame: VideoFrame) -> Iterator[GrayFrame]:
        """Add a source frame; yield the frames that are now determined."""
        line = self._clock.video
        time_s = line.end_s if frame.time_s is None else self._clock.normalize(line, frame.time_s)
        yield from self._frames.push(time_s, frame)
        line.end_s = self._frames.end_s

    def push_audio(self, piece: AudioSamples) -> Iterator[Waveform]:
        """Add audio; yield it, preceded by silence if there is a gap."""
        line = self._clock.audio
        yield from self._waveform.push(self._clock.normalize(line, piece.time_s), piece.samples)
        line.end_s = self._waveform.end_s

    def flush(self, end: MediaEnd) -> Iterator[GrayFrame | EndOfStream]:
        """Yield the last frames and the end."""
        yield from self._frames.flush()
        yield EndOfStream(
            frames=self._frames.count,
            samples=self._waveform.count,
            broken_packets=end.broken_packets,
            truncated=end.truncated,
        )


class _FrameResampler:
    """Selects the nearest source frame for each frame of the 25 Hz grid."""

    def __init__(self, max_duration_s: float) -> None:
        self._max_duration_s = max_duration_s
        self._shown: VideoFrame | None = None
        self._shown_s = 0.0
        self._grey: NDArray[np.uint8] | None = None  # of the current source frame, converted on demand
        self._shape: tuple[int, int] | None = None
        self.count = 0
        self.end_s = 0.0  # end of the last source frame

    def push(self, time_s: float, frame: VideoFrame) -> Iterator[GrayFrame]:
        """Add the next source frame at ``time_s`` from zero."""
        interval_s = FRAME_S
        if self._shown is not None:
            if time_s <= self._shown_s:
                return
            interval_s = min(time_s - self._shown_s, MAX_LAST_FRAME_S)
            yield from self._until((self._shown_s + time_s) / 2)
        self._shown, self._shown_s, self._grey = frame, time_s, None
        self.end_s = time_s + (min(frame.duration_s, MAX_LAST_FRAME_S) or interval_s)

    def flush(self) -> Iterator[GrayFrame]:
        """Yield the frames up to the end of the last source frame."""
        if self._shown is not None:
            yield from self._until(max(self.end_s - FRAME_S / 2, self._shown_s))

    def _until(self, end_s: float) -> Iterator[GrayFrame]:
        assert self._shown is not None, "there is a source frame"
        while self.count * FRAME_S <= end_s + ROUNDING_S:
            _check_duration(self.count * FRAME_S, self._max_duration_s)
            if self._grey is None:
                grey = self._shown.to_grayscale()
                self._shape = self._shape or (grey.shape[0], grey.shape[1])
                self._grey = fit_to_shape(grey, self._shape)
            yield GrayFrame(self.count, self._grey)
            self.count += 1


class _WaveformAssembler:
    """Assembles a continuous waveform: fills gaps with silence and drops overlaps."""

    def __init__(self, max_duration_s: float) -> None:
        self._max_duration_s = max_duration_s
        self.count = 0

    @property
    def end_s(self) -> float:
        """End of the audio so far."""
        return self.count / SAMPLE_RATE_HZ

    def push(self, time_s: float, samples: NDArray[np.int16]) -> Iterator[Waveform]:
        """Add the next samples at ``time_s`` from zero."""
        start = round(time_s * SAMPLE_RATE_HZ)
        while self.count < start:
            yield from self._emit(np.zeros(min(start - self.count, MAX_CHUNK_SAMPLES), np.int16))
        samples = samples[self.count - start :]
        for first in range(0, len(samples), MAX_CHUNK_SAMPLES):
            yield from self._emit(samples[first : first + MAX_CHUNK_SAMPLES])

    def _emit(self, samples: NDArray[np.int16]) -> Iterator[Waveform]:
        _check_duration(self.end_s, self._max_duration_s)
        yield Waveform(self.count, samples)
        self.count += len(samples)


def _check_duration(time_s: float, limit_s: float) -> None:
    if time_s > limit_s:
        raise OutOfRangeError(
            f"the media is longer than the limit of {limit_s:g} s: split it and send the parts separately"
        )
