"""Puts decoded pictures and sound on one time: grey frames at exactly 25 Hz, 16 kHz sound without gaps.

Frame ``k`` is what is seen at ``k * 0.04`` s, sample ``n`` what is heard at ``n / 16000`` s, both counted from the
media's time zero: its first picture or its first sound, whichever comes first. Where sound comes first, zero is moved
by less than one frame so that the first picture lies on the grid: then a video of 25 frames a second passes frame by
frame, and the few milliseconds by which encoders let the sound begin early change nothing.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gorggle_server.errors import OutOfRangeError
from gorggle_server.media.audio_resampler import AudioSamples
from gorggle_server.media.demuxer import Decoded, MediaEnd, MediaLimits, StreamInfo
from gorggle_server.media.packet_decoders import VideoFrame
from gorggle_server.media.timestamps import MAX_GAP_S, TimestampNormalizer
from gorggle_server.media.video_conversion import fit_to_shape
from gorggle_server.timebase import FRAME_RATE_HZ, SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from numpy.typing import NDArray

FRAME_S = 1 / FRAME_RATE_HZ

# Zero is known once both streams have shown their first timestamps. Where one is late and the header does not tell,
# so much of the other is held back for it.
MAX_HELD_S = 1.0
MAX_HELD_PIXELS = 64_000_000

# The last picture stands as long as the container says, but no longer than this.
MAX_LAST_FRAME_S = 1.0

# Timestamps in thousandths or 90000ths of a second do not hit the grid exactly.
ROUNDING_S = 1e-4

# Sound is given in pieces of at most this length: a long gap, or a packet of a forged rate, needs no large array.
MAX_CHUNK_SAMPLES = SAMPLE_RATE_HZ


@dataclass(frozen=True, eq=False)
class GrayFrame:
    """What is seen at ``index * 0.04`` s.

    Attributes:
        pixels: uint8 (H, W), upright; the same size throughout. A picture that stands for several frames is the
            same array in each of them.
    """

    index: int
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Waveform:
    """What is heard from sample ``start`` on.

    Attributes:
        samples: int16 (S,), 16 kHz mono, at most a second. Each piece begins where the one before ended.
    """

    start: int
    samples: NDArray[np.int16]


@dataclass(frozen=True)
class EndOfStream:
    """Comes last.

    Attributes:
        frames: how many frames were given.
        samples: how many samples were given.
        broken_packets, truncated: as in ``MediaEnd``.
        clock_jumps: how often the media's clock leapt further than a gap is believed, and was set right.
    """

    frames: int
    samples: int
    broken_packets: int
    truncated: bool
    clock_jumps: int

    @property
    def duration_s(self) -> float:
        """How long the media is, in pictures or in sound."""
        return max(self.frames / FRAME_RATE_HZ, self.samples / SAMPLE_RATE_HZ)


TimelineItem = StreamInfo | GrayFrame | Waveform | EndOfStream


def resample(decoded: Iterable[Decoded], limits: MediaLimits) -> Generator[TimelineItem]:
    """Resample what ``container.decode`` gives, by its timestamps alone.

    Frames take the source picture nearest in time, so rates from 24 to 60 Hz and variable ones work alike. Gaps are
    filled with the nearest picture and with silence, as far as a gap is believed (``clock.MAX_GAP_S``); pictures out
    of order and sound that overlaps are dropped.

    Yields:
        The ``StreamInfo``, then frames and waveform, each without a gap, ``EndOfStream`` last.

    Raises:
        OutOfRangeError: the media goes on beyond ``limits.max_duration_s``.
    """
    decoded = iter(decoded)
    info = next(decoded)
    assert isinstance(info, StreamInfo), "decoders tell first what there is"
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
    """Take items until zero is known: the items taken, and zero on the media's clock."""
    held: list[Decoded] = []
    starts = _StartTimes(info)
    for item in decoded:
        held.append(item)
        starts.add(item)
        if starts.is_complete:
            break
    return held, starts.zero_s()


class _StartTimes:
    """Gathers when pictures and sound begin, on the media's own clock."""

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
        """Look at the next item."""
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
        """Whether all that was announced has begun, or tells when it will, or has been waited for long enough."""
        if not self._seen:
            return False
        held_s = self._seen_until_s - min(self._seen.values())
        if held_s >= MAX_HELD_S or self._pixels_held >= MAX_HELD_PIXELS:
            return True
        return all(self._start_s(kind) is not None for kind in self._declared)

    def zero_s(self) -> float:
        """Time zero on the media's own clock."""
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
    """Takes decoded items, gives frames and waveform."""

    def __init__(self, zero_s: float, max_duration_s: float) -> None:
        self._clock = TimestampNormalizer(zero_s)
        self._frames = _FrameResampler(max_duration_s)
        self._waveform = _WaveformAssembler(max_duration_s)

    def push_frame(self, frame: VideoFrame) -> Iterator[GrayFrame]:
        """Take in a picture: give the frames that are settled with it."""
        line = self._clock.video
        time_s = line.end_s if frame.time_s is None else self._clock.normalize(line, frame.time_s)
        yield from self._frames.push(time_s, frame)
        line.end_s = self._frames.end_s

    def push_audio(self, piece: AudioSamples) -> Iterator[Waveform]:
        """Take in sound: give it where it belongs, after silence where there was a gap."""
        line = self._clock.audio
        yield from self._waveform.push(self._clock.normalize(line, piece.time_s), piece.samples)
        line.end_s = self._waveform.end_s

    def flush(self, end: MediaEnd) -> Iterator[GrayFrame | EndOfStream]:
        """Give the last frames, and how it went."""
        yield from self._frames.flush()
        yield EndOfStream(
            frames=self._frames.count,
            samples=self._waveform.count,
            broken_packets=end.broken_packets,
            truncated=end.truncated,
            clock_jumps=self._clock.clock_jumps,
        )


class _FrameResampler:
    """Chooses for each moment of the 25 Hz grid the source picture nearest in time."""

    def __init__(self, max_duration_s: float) -> None:
        self._max_duration_s = max_duration_s
        self._shown: VideoFrame | None = None
        self._shown_s = 0.0
        self._grey: NDArray[np.uint8] | None = None  # of the picture shown, once it is needed
        self._shape: tuple[int, int] | None = None
        self.count = 0
        self.end_s = 0.0  # up to when the last picture stands

    def push(self, time_s: float, frame: VideoFrame) -> Iterator[GrayFrame]:
        """The next picture, in seconds from zero."""
        interval_s = FRAME_S
        if self._shown is not None:
            if time_s <= self._shown_s:
                return
            interval_s = min(time_s - self._shown_s, MAX_LAST_FRAME_S)
            yield from self._until((self._shown_s + time_s) / 2)
        self._shown, self._shown_s, self._grey = frame, time_s, None
        self.end_s = time_s + (min(frame.duration_s, MAX_LAST_FRAME_S) or interval_s)

    def flush(self) -> Iterator[GrayFrame]:
        """The last picture stands to its end."""
        if self._shown is not None:
            yield from self._until(max(self.end_s - FRAME_S / 2, self._shown_s))

    def _until(self, end_s: float) -> Iterator[GrayFrame]:
        assert self._shown is not None, "a picture is shown"
        while self.count * FRAME_S <= end_s + ROUNDING_S:
            _check_duration(self.count * FRAME_S, self._max_duration_s)
            if self._grey is None:
                grey = self._shown.to_grayscale()
                self._shape = self._shape or (grey.shape[0], grey.shape[1])
                self._grey = fit_to_shape(grey, self._shape)
            yield GrayFrame(self.count, self._grey)
            self.count += 1


class _WaveformAssembler:
    """Lays pieces of sound end to end: silence into gaps, nothing twice."""

    def __init__(self, max_duration_s: float) -> None:
        self._max_duration_s = max_duration_s
        self.count = 0

    @property
    def end_s(self) -> float:
        """Up to when the sound is known."""
        return self.count / SAMPLE_RATE_HZ

    def push(self, time_s: float, samples: NDArray[np.int16]) -> Iterator[Waveform]:
        """The next piece, in seconds from zero."""
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
            f"the media goes on beyond the limit of {limit_s:g} s: cut it and send the pieces one by one"
        )
