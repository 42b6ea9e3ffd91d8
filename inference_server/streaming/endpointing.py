"""Endpointing: split a growing speech activity signal at 25 Hz into utterances."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gorggle_server.input_format import FRAME_RATE_HZ
from gorggle_server.recognition_options import EndpointingConfig

# Hysteresis against flickering at weak endings: speech continues down to this share of the begin threshold.
END_THRESHOLD_RATIO = 0.7
# Mouth movement is measured over eight frames around each frame (``vision.lip_activity``), which shortens pauses by
# as many; in mid-sentence lips rest for three of them. Chosen on clips of the validation speakers.
LIP_SILENCE_OFFSET_FRAMES = 5
MIN_LIP_SILENCE_FRAMES = 3
# Each audio frame is averaged with the two before it (``media.vad``), which shortens pauses by as many. Only live
# streams use the shorter silence: files can wait, and a later decision is surer.
AUDIO_SILENCE_OFFSET_FRAMES = 2
MIN_AUDIO_SILENCE_FRAMES = 4
# Crops alone show small movements less reliably than crops and landmarks together.
CROPS_THRESHOLD_RATIO = 0.7


@dataclass(frozen=True)
class EndpointingOptions:
    """When speech begins and ends. Durations are frames at 25 Hz.

    Attributes:
        begin_threshold: activity (0 to 1) above which speech begins.
        end_threshold: activity below which it may end; lower, so that weak endings do not flicker.
        min_speech_frames: shorter bursts count as noise.
        endpoint_silence_frames: silence of this length ends the utterance.
        max_frames: longer speech is cut at its quietest frame.
        margin_frames: kept before and after the speech: lips move before and after the audio.
    """

    begin_threshold: float
    end_threshold: float
    min_speech_frames: int
    endpoint_silence_frames: int
    max_frames: int
    margin_frames: int = 6

    def for_lips(self) -> EndpointingOptions:
        """Return the options adapted to a lip movement signal.

        Movement is measured over a third of a second around each frame, so speech appears to begin and end up to four frames
        further out than it does.
        """
        shorter = max(MIN_LIP_SILENCE_FRAMES, self.endpoint_silence_frames - LIP_SILENCE_OFFSET_FRAMES)
        return replace(self, endpoint_silence_frames=shorter, margin_frames=3)

    def for_live_audio(self) -> EndpointingOptions:
        """Return the options adapted to the audio of a live stream."""
        shorter = max(MIN_AUDIO_SILENCE_FRAMES, self.endpoint_silence_frames - AUDIO_SILENCE_OFFSET_FRAMES)
        return replace(self, endpoint_silence_frames=min(self.endpoint_silence_frames, shorter))

    def for_crops(self) -> EndpointingOptions:
        """Return the options adapted to a movement signal from mouth crops alone."""
        return replace(
            self.for_lips(),
            begin_threshold=CROPS_THRESHOLD_RATIO * self.begin_threshold,
            end_threshold=CROPS_THRESHOLD_RATIO * self.end_threshold,
        )

    @classmethod
    def from_config(cls, config: EndpointingConfig) -> EndpointingOptions:
        """Convert a configuration in seconds to frames."""
        return cls(
            begin_threshold=config.threshold,
            end_threshold=END_THRESHOLD_RATIO * config.threshold,
            min_speech_frames=max(1, round(config.min_speech_s * FRAME_RATE_HZ)),
            endpoint_silence_frames=max(1, round(config.endpoint_silence_s * FRAME_RATE_HZ)),
            max_frames=int(config.max_utterance_s * FRAME_RATE_HZ),
        )


@dataclass(frozen=True)
class FrameSpan:
    """Frames from ``start`` up to, not including, ``end``, margins included."""

    start: int
    end: int

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.end - self.start

    def overlap(self, other: FrameSpan) -> int:
        """Return the number of frames that two spans share."""
        return max(0, min(self.end, other.end) - max(self.start, other.start))


class Endpointer:
    """Finds the spans of speech in one activity signal as it grows.

    Spans never overlap and come in order. Every frame above ``begin_threshold`` lies in exactly one span, except bursts
    shorter than ``min_speech_frames``.
    """

    def __init__(self, options: EndpointingOptions, first_frame: int = 0) -> None:
        self._options = options
        self.available_end = first_frame  # frame up to which activity was pushed
        self._min_start = first_frame  # earliest start of the next span
        self._speech_start: int | None = None  # first frame of speech in the open span
        self._last_speech_frame = 0  # last frame of speech in the open span
        self._speech_frames = 0  # frames of speech in the open span
        self._activity: list[float] = []  # activity of the open span, from _speech_start on

    @property
    def committed_end(self) -> int:
        """Frame before which no further span will begin."""
        if self._speech_start is not None:
            return max(self._min_start, self._speech_start - self._options.margin_frames)
        return max(self._min_start, self.available_end - self._options.margin_frames)

    @property
    def open_span(self) -> FrameSpan | None:
        """The ongoing span, once it is long enough to be speech."""
        if self._speech_start is None or self._speech_frames < self._options.min_speech_frames:
            return None
        return FrameSpan(self.committed_end, self.available_end)

    def push(self, activity: Iterable[float]) -> list[FrameSpan]:
        """Add activity values; return the spans that end with them."""
        spans = [self._push_value(float(value)) for value in activity]
        return [span for span in spans if span is not None]

    def flush(self) -> list[FrameSpan]:
        """End the signal; return the span still open, if it is speech."""
        span = self._close(self.available_end) if self._speech_start is not None else None
        return [] if span is None else [span]

    def _push_value(self, value: float) -> FrameSpan | None:
        frame, self.available_end = self.available_end, self.available_end + 1
        if self._speech_start is None:
            if value < self._options.begin_threshold:
                return None
            self._speech_start = self._last_speech_frame = frame
            self._speech_frames, self._activity = 0, []
        self._activity.append(value)
        if value >= self._options.end_threshold:
            self._last_speech_frame = frame
            self._speech_frames += 1
        if frame - self._last_speech_frame >= self._options.endpoint_silence_frames:
            return self._close(self.available_end)
        if self.available_end - self.committed_end >= self._options.max_frames:
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
        """End the span at its quietest frame in the last third and continue from there."""
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
