"""Cuts growing speech into utterances: from a curve of activity at 25 Hz to stretches with a beginning and an end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gorggle_server.types import VIDEO_FRAME_RATE_HZ, EndpointingConfig

# Weak endings must not flicker: speech goes on down to this share of the activity at which it begins.
END_THRESHOLD_SHARE = 0.7
# The movement of a mouth is judged over eight frames around each (``vision.activity``), which shortens pauses by as
# many; of these, lips rest in mid-sentence for three. Chosen on clips of the validation speakers.
LIP_SILENCE_OFFSET_FRAMES = 5
MIN_LIP_SILENCE_FRAMES = 3
# A frame of sound counts with the two before it (``media.audio``), which shortens pauses by as many. Files can wait, and
# are cut the later the surer; live, everybody waits.
SOUND_PAUSE_SHORTER_FRAMES = 2
LEAST_SOUND_PAUSE_FRAMES = 4
# Crops alone show small movements less surely than crops and landmarks together.
CROPS_THRESHOLD_SHARE = 0.7


@dataclass(frozen=True)
class EndpointingOptions:
    """When speech begins and ends. Durations are frames at 25 Hz.

    Attributes:
        begin_threshold: activity, from 0 to 1, above which speech begins.
        end_threshold: activity below which it may end; lower, so that weak endings do not flicker.
        min_speech_frames: shorter bursts are taken for noise.
        pause_frames: a pause of so long ends the utterance.
        margin_frames: kept before and after the speech, for lips move before and after the sound.
        max_frames: longer speech is cut at its quietest moment.
    """

    begin_threshold: float = 0.5
    end_threshold: float = 0.35
    min_speech_frames: int = 5
    pause_frames: int = 11
    margin_frames: int = 6
    max_frames: int = 20 * VIDEO_FRAME_RATE_HZ

    def for_lips(self) -> EndpointingOptions:
        """The same for a curve of lip movement.

        Movement is judged over a third of a second around each frame, so speech seems to begin and end up to four
        frames further out than it does.
        """
        shorter = max(MIN_LIP_SILENCE_FRAMES, self.pause_frames - LIP_SILENCE_OFFSET_FRAMES)
        return replace(self, pause_frames=shorter, margin_frames=3)

    def for_live_sound(self) -> EndpointingOptions:
        """The same for the sound of a live stream."""
        shorter = max(LEAST_SOUND_PAUSE_FRAMES, self.pause_frames - SOUND_PAUSE_SHORTER_FRAMES)
        return replace(self, pause_frames=min(self.pause_frames, shorter))

    def for_crops(self) -> EndpointingOptions:
        """The same for a curve of movement in mouth crops alone."""
        return replace(
            self.for_lips(),
            begin_threshold=CROPS_THRESHOLD_SHARE * self.begin_threshold,
            end_threshold=CROPS_THRESHOLD_SHARE * self.end_threshold,
        )

    @classmethod
    def from_seconds(cls, asked: EndpointingConfig) -> EndpointingOptions:
        """What a caller asked for, in frames."""
        return cls(
            begin_threshold=asked.threshold,
            end_threshold=END_THRESHOLD_SHARE * asked.threshold,
            min_speech_frames=max(1, round(asked.min_speech_s * VIDEO_FRAME_RATE_HZ)),
            pause_frames=max(1, round(asked.pause_s * VIDEO_FRAME_RATE_HZ)),
            max_frames=int(asked.max_utterance_s * VIDEO_FRAME_RATE_HZ),
        )


@dataclass(frozen=True)
class FrameSpan:
    """Frames ``start`` up to, not including, ``end``, margins included."""

    start: int
    end: int

    @property
    def frames(self) -> int:
        """How many frames it lasts."""
        return self.end - self.start

    def overlap(self, other: FrameSpan) -> int:
        """How many frames the two share."""
        return max(0, min(self.end, other.end) - max(self.start, other.start))


class Endpointer:
    """Finds the stretches of speech in one activity curve as it grows.

    Stretches never overlap and come in order. Each frame of speech above ``begin_threshold`` lies in exactly one of
    them, bursts shorter than ``min_speech_frames`` excepted.
    """

    def __init__(self, options: EndpointingOptions, first_frame: int = 0) -> None:
        self._options = options
        self._next = first_frame  # the frame that the next activity value belongs to
        self._floor = first_frame  # where the next stretch may begin at the earliest
        self._begin: int | None = None  # first frame of speech in the open stretch
        self._last = 0  # last frame of speech in the open stretch
        self._speech = 0  # frames of speech in the open stretch
        self._curve: list[float] = []  # the open stretch's activity, from _begin on

    @property
    def heard_until(self) -> int:
        """The frame up to which activity is known."""
        return self._next

    @property
    def settled_until(self) -> int:
        """The frame before which no further stretch will begin."""
        if self._begin is not None:
            return max(self._floor, self._begin - self._options.margin_frames)
        return max(self._floor, self._next - self._options.margin_frames)

    @property
    def open_stretch(self) -> FrameSpan | None:
        """The stretch still going on, once it is long enough to be speech."""
        if self._begin is None or self._speech < self._options.min_speech_frames:
            return None
        return FrameSpan(self.settled_until, self._next)

    def push(self, activity: Iterable[float]) -> list[FrameSpan]:
        """Take in the next activity values; return the stretches that end with them."""
        ended = []
        for value in activity:
            stretch = self._step(float(value))
            if stretch is not None:
                ended.append(stretch)
        return ended

    def finish(self) -> list[FrameSpan]:
        """The curve ends here: return the stretch still open, if it is speech."""
        stretch = self._close(self._next) if self._begin is not None else None
        return [] if stretch is None else [stretch]

    def _step(self, value: float) -> FrameSpan | None:
        frame, self._next = self._next, self._next + 1
        if self._begin is None:
            if value < self._options.begin_threshold:
                return None
            self._begin, self._last, self._speech, self._curve = frame, frame, 0, []
        self._curve.append(value)
        if value >= self._options.end_threshold:
            self._last = frame
            self._speech += 1
        if frame - self._last >= self._options.pause_frames:
            return self._close(self._next)
        if self._next - self.settled_until >= self._options.max_frames:
            return self._cut()
        return None

    def _close(self, known_until: int) -> FrameSpan | None:
        assert self._begin is not None
        start = max(self._floor, self._begin - self._options.margin_frames)
        end = min(known_until, self._last + 1 + self._options.margin_frames)
        is_speech = self._speech >= self._options.min_speech_frames
        self._begin = None
        if not is_speech:
            return None
        self._floor = end
        return FrameSpan(start, end)

    def _cut(self) -> FrameSpan:
        """End the stretch at its quietest frame in the last third, and go on from there."""
        assert self._begin is not None
        first = len(self._curve) * 2 // 3
        quietest = min(range(first, len(self._curve)), key=lambda index: self._curve[index])
        start, cut = self.settled_until, self._begin + quietest
        self._curve = self._curve[quietest:]
        self._begin = self._floor = cut
        active = [index for index, value in enumerate(self._curve) if value >= self._options.end_threshold]
        self._speech = len(active)
        self._last = cut + (active[-1] if active else 0)
        return FrameSpan(start, cut)
