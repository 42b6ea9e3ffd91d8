"""Incremental endpointing of one activity signal: the audio's, or that of one face."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from numpy import float32
from numpy.typing import NDArray

from gorggle_server.events import ChannelCheckpoint, Hypothesis
from gorggle_server.streaming.endpointing import Endpointer, EndpointingOptions, FrameSpan
from gorggle_server.streaming.interim_text import StableTextTracker
from gorggle_server.streaming.stream_buffer import FaceTrack


@dataclass(frozen=True)
class EndedSpan:
    """A span that has ended. ``continues_previous``: it starts where speech that was too long was cut."""

    span: FrameSpan
    continues_previous: bool


@dataclass
class OpenUtterance:
    """Ongoing speech, for which interim results are sent."""

    segment_id: str
    text: StableTextTracker
    revision: int = 0
    submitted_end: int = 0  # end of the span submitted last
    submitted_at: float = 0.0
    result: Future[list[Hypothesis]] | None = None

    def cancel(self) -> None:
        """Cancel the decoding, if one is pending."""
        if self.result is not None:
            self.result.cancel()


@dataclass(frozen=True)
class SpeculativeResult:
    """Decoding of a span that is complete if the speaker does not continue."""

    span: FrameSpan
    track: FaceTrack | None
    result: Future[list[Hypothesis]]


@dataclass(eq=False)
class ActivityChannel:
    """Segments one activity signal as it grows.

    Attributes:
        options: when utterances begin and end.
        first_frame: first frame of the signal.
        track: whose mouth it is; None for the audio.
        resume_from: how far another server had segmented it; earlier values are read and not segmented again.
        closed: the signal has ended.
        has_reported_begin: the begin of the current speech was reported.
        open_utterances: ongoing utterances by their first frame.
        endpointer: how far the signal was segmented.
    """

    options: EndpointingOptions
    first_frame: int = 0
    track: FaceTrack | None = None
    resume_from: ChannelCheckpoint | None = None
    closed: bool = False
    has_reported_begin: bool = False
    open_utterances: dict[int, OpenUtterance] = field(default_factory=dict)
    speculative: SpeculativeResult | None = None

    def __post_init__(self) -> None:
        self._processed_end = self.first_frame
        before = self.resume_from or ChannelCheckpoint(None, self.first_frame)
        settled = before.committed_end
        self.endpointer = Endpointer(self.options, settled)
        self._cut_at = self._opens_at = settled if before.continues_previous else None
        self.last_active_frame = settled - 1

    @property
    def checkpoint(self) -> ChannelCheckpoint:
        """State needed to continue from here on another server."""
        settled = self.endpointer.committed_end
        return ChannelCheckpoint(self._person, settled, continues_previous=settled == self._cut_at)

    def create_checkpoint_at(self, ended: EndedSpan) -> ChannelCheckpoint:
        """Return the state needed to find an ended span again, and everything after it."""
        return ChannelCheckpoint(self._person, ended.span.start, ended.continues_previous)

    def create_segment_id(self, start: int) -> str:
        """Return the id of the utterance that begins at a frame of the media: equal on every server and every attempt."""
        return f"segment-{start}" if self._person is None else f"segment-{start}-{self._person}"

    def process(
        self, vad_end: int, get_activity: Callable[[FrameSpan], NDArray[float32]], *, ended: bool
    ) -> list[EndedSpan]:
        """Process the signal up to a frame; return the spans that end.

        Args:
            vad_end: the frame up to which the signal is available.
            get_activity: returns part of the signal; called once for each frame, in order.
            ended: the signal ends there.
        """
        if self.closed:
            return []
        new = FrameSpan(self._processed_end, max(vad_end, self._processed_end))
        self._processed_end = new.end
        cuts: list[EndedSpan] = []
        # One frame at a time: the frame at which a span ended shows whether it was cut for its length.
        for frame, value in zip(range(new.start, new.end), get_activity(new), strict=True):
            if frame >= self.endpointer.available_end:
                cuts += self._push(frame, 1.0 if frame == self._opens_at else float(value))
        if ended:
            self.closed = True
            cuts += [self._create_ended_span(span) for span in self.endpointer.flush()]
        return cuts

    def _push(self, frame: int, activity: float) -> list[EndedSpan]:
        if activity >= self.options.end_threshold:
            self.last_active_frame = frame
        cuts = []
        for span in self.endpointer.push([activity]):
            cuts.append(self._create_ended_span(span))
            if frame + 1 - span.start >= self.options.max_frames:
                self._cut_at = span.end
        return cuts

    def _create_ended_span(self, span: FrameSpan) -> EndedSpan:
        return EndedSpan(span, continues_previous=span.start == self._cut_at)

    @property
    def _person(self) -> int | None:
        return None if self.track is None else self.track.person
