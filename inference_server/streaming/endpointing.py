"""Cuts growing speech into utterances: from a curve of activity at 25 Hz to stretches with a beginning and an end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gorggle_server.timebase import FRAME_RATE_HZ
from gorggle_server.types import EndpointingConfig

# Weak endings must not flicker: speech goes on down to this share of the activity at which it begins.
END_THRESHOLD_RATIO = 0.7
# The movement of a mouth is judged over eight frames around each (``vision.activity``), which shortens pauses by as
# many; of these, lips rest in mid-sentence for three. Chosen on clips of the validation speakers.
LIP_SILENCE_OFFSET_FRAMES = 5
MIN_LIP_SILENCE_FRAMES = 3
# A frame of sound counts with the two before it (``media.vad``), which shortens pauses by as many. Files can wait, and
# are cut the later the surer; live, everybody waits.
AUDIO_SILENCE_OFFSET_FRAMES = 2
MIN_AUDIO_SILENCE_FRAMES = 4
# Crops alone show small movements less surely than crops and landmarks together.
CROPS_THRESHOLD_RATIO = 0.7


@dataclass(frozen=True)
class EndpointingOptions:
    """When speech begins and ends. Durations are frames at 25 Hz.

    Attributes:
        begin_threshold: activity, from 0 to 1, above which speech begins.
        end_threshold: activity below which it may end; lower, so that weak endings do not flicker.
        min_speech_frames: shorter bursts are taken for noise.
        endpoint_silence_frames: a pause of so long ends the utterance.
        margin_frames: kept before and after the speech, for lips move before and after the sound.
        max_frames: longer speech is cut at its quietest moment.
    """

    begin_threshold: float = 0.5
    end_threshold: float = 0.35
    min_speech_frames: int = 5
    endpoint_silence_frames: int = 11
    margin_frames: int = 6
    max_frames: int = 20 * FRAME_RATE_HZ

    def for_lips(self) -> EndpointingOptions:
        """The same for a curve of lip movement.

        Movement is judged over a third of a second around each frame, so speech seems to begin and end up to four
        frames further out than it does.
        """
        shorter = max(MIN_LIP_SILENCE_FRAMES, self.endpoint_silence_frames - LIP_SILENCE_OFFSET_FRAMES)
        return replace(self, endpoint_silence_frames=shorter, margin_frames=3)

    def for_live_audio(self) -> EndpointingOptions:
        """The same for the sound of a live stream."""
        shorter = max(MIN_AUDIO_SILENCE_FRAMES, self.endpoint_silence_frames - AUDIO_SILENCE_OFFSET_FRAMES)
        return replace(self, endpoint_silence_frames=min(self.endpoint_silence_frames, shorter))

    def for_crops(self) -> EndpointingOptions:
        """The same for a curve of movement in mouth crops alone."""
        return replace(
            self.for_lips(),
            begin_threshold=CROPS_THRESHOLD_RATIO * self.begin_threshold,
            end_threshold=CROPS_THRESHOLD_RATIO * self.end_threshold,
        )

    @classmethod
    def from_config(cls, config: EndpointingConfig) -> EndpointingOptions:
        """What a caller asked for, in frames."""
        return cls(
            begin_threshold=config.threshold,
            end_threshold=END_THRESHOLD_RATIO * config.threshold,
            min_speech_frames=max(1, round(config.min_speech_s * FRAME_RATE_HZ)),
            endpoint_silence_frames=max(1, round(config.endpoint_silence_s * FRAME_RATE_HZ)),
            max_frames=int(config.max_utterance_s * FRAME_RATE_HZ),
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
        self._next_frame = first_frame  # the frame that the next activity value belongs to
        self._min_start = first_frame  # where the next stretch may begin at the earliest
        self._speech_start: int | None = None  # first frame of speech in the open stretch
        self._last_speech_frame = 0  # last frame of speech in the open stretch
        self._speech_frames = 0  # frames of speech in the open stretch
        self._activity: list[float] = []  # the open stretch's activity, from _begin on

    @property
    def available_end(self) -> int:
        """The frame up to which activity is known."""
        return self._next_frame

    @property
    def committed_end(self) -> int:
        """The frame before which no further stretch will begin."""
        if self._speech_start is not None:
            return max(self._min_start, self._speech_start - self._options.margin_frames)
        return max(self._min_start, self._next_frame - self._options.margin_frames)

    @property
    def open_span(self) -> FrameSpan | None:
        """The stretch still going on, once it is long enough to be speech."""
        if self._speech_start is None or self._speech_frames < self._options.min_speech_frames:
            return None
        return FrameSpan(self.committed_end, self._next_frame)

    def push(self, activity: Iterable[float]) -> list[FrameSpan]:
        """Take in the next activity values; return the stretches that end with them."""
        ended = []
        for value in activity:
            stretch = self._push_value(float(value))
            if stretch is not None:
                ended.append(stretch)
        return ended

    def flush(self) -> list[FrameSpan]:
        """The curve ends here: return the stretch still open, if it is speech."""
        stretch = self._close(self._next_frame) if self._speech_start is not None else None
        return [] if stretch is None else [stretch]

    def _push_value(self, value: float) -> FrameSpan | None:
        frame, self._next_frame = self._next_frame, self._next_frame + 1
        if self._speech_start is None:
            if value < self._options.begin_threshold:
                return None
            self._speech_start, self._last_speech_frame, self._speech_frames, self._activity = (
                frame,
                frame,
                0,
                [],
            )
        self._activity.append(value)
        if value >= self._options.end_threshold:
            self._last_speech_frame = frame
            self._speech_frames += 1
        if frame - self._last_speech_frame >= self._options.endpoint_silence_frames:
            return self._close(self._next_frame)
        if self._next_frame - self.committed_end >= self._options.max_frames:
            return self._split()
        return None

    def _close(self, available_end: int) -> FrameSpan | None:
        assert self._speech_start is not None
        start = max(self._min_start, self._speech_start - self._options.margin_frames)
        end = min(available_end, self._last_speech_frame + 1 + self._options.margin_frames)
        is_speech = self._speech_frames >= self._options.min_speech_frames
        self._speech_start = None
        if not is_speech:
            return None
        self._min_start = end
        return FrameSpan(start, end)

    def _split(self) -> FrameSpan:
        """End the stretch at its quietest frame in the last third, and go on from there."""
        assert self._speech_start is not None
        first = len(self._activity) * 2 // 3
        quietest = min(range(first, len(self._activity)), key=lambda index: self._activity[index])
        start, cut = self.committed_end, self._speech_start + quietest
        self._activity = self._activity[quietest:]
        self._speech_start = self._min_start = cut
        active = [index for index, value in enumerate(self._activity) if value >= self._options.end_threshold]
        self._speech_frames = len(active)
        self._last_speech_frame = cut + (active[-1] if active else 0)
        return FrameSpan(start, cut)
