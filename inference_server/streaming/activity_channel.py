"""One curve of activity on its way to utterances: the sound's, or one face's; and what is known of an open utterance."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from numpy import float32
from numpy.typing import NDArray

from gorggle_server.stream_state import ChannelCheckpoint
from gorggle_server.streaming.endpointing import Endpointer, EndpointingOptions, FrameSpan
from gorggle_server.streaming.interim_text import StableTextTracker
from gorggle_server.streaming.stream_buffer import FaceTrack
from gorggle_server.types import Hypothesis


@dataclass(frozen=True)
class EndedSpan:
    """A stretch that has ended. ``is_going_on``: speech went on across its beginning, where one too long was cut."""

    span: FrameSpan
    continues_previous: bool


@dataclass
class OpenUtterance:
    """Speech that still goes on, of which interim results are sent."""

    segment_id: str
    text: StableTextTracker
    revision: int = 0
    submitted_end: int = 0  # the frame up to which it was read, or is being read
    submitted_at: float = 0.0
    result: Future[list[Hypothesis]] | None = None


@dataclass(frozen=True)
class SpeculativeResult:
    """The reading of a stretch that will have ended, if nobody goes on speaking."""

    span: FrameSpan
    track: FaceTrack | None
    result: Future[list[Hypothesis]]


@dataclass(eq=False)
class ActivityChannel:
    """Cuts one curve as it grows.

    Attributes:
        options: where utterances begin and end.
        first_frame: the curve's first frame.
        track: whose mouth it is; None for the sound.
        resume_from: how far another server had cut it; what comes before is looked at and not cut again.
        closed: the curve has ended.
        has_reported_begin: that speech begins was told.
        open_utterances: utterances still going on, by their first frame.
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
        settled = self.first_frame if self.resume_from is None else self.resume_from.committed_end
        self._endpointer = Endpointer(self.options, settled)
        self._cut_at = (
            settled if self.resume_from is not None and self.resume_from.continues_previous else None
        )
        self._opens_at = self._cut_at
        self.last_active_frame = settled - 1

    @property
    def committed_end(self) -> int:
        """The frame before which no further stretch will begin."""
        return self._endpointer.committed_end

    @property
    def available_end(self) -> int:
        """The frame up to which the curve was cut."""
        return self._endpointer.available_end

    @property
    def open_span(self) -> FrameSpan | None:
        """The stretch still going on, once it is long enough to be speech."""
        return self._endpointer.open_span

    @property
    def checkpoint(self) -> ChannelCheckpoint:
        """What it takes to cut on from here, on another server."""
        settled = self.committed_end
        return ChannelCheckpoint(self._person, settled, continues_previous=settled == self._cut_at)

    def create_checkpoint_at(self, ended: EndedSpan) -> ChannelCheckpoint:
        """What it takes to find a stretch that has ended once more, and all after it."""
        return ChannelCheckpoint(self._person, ended.span.start, ended.continues_previous)

    def create_segment_id(self, start: int) -> str:
        """The name of the utterance that begins at a frame of the media: the same whoever reads it, and whenever."""
        return f"segment-{start}" if self._person is None else f"segment-{start}-{self._person}"

    def process(
        self, vad_end: int, get_activity: Callable[[FrameSpan], NDArray[float32]], *, ended: bool
    ) -> list[EndedSpan]:
        """Take in the curve up to a frame; give the stretches that end with it.

        Args:
            vad_end: the frame up to which the curve is known.
            get_activity: gives a piece of the curve; asked for each frame once, in order.
            ended: the curve ends there.
        """
        if self.closed:
            return []
        new = FrameSpan(self._processed_end, max(vad_end, self._processed_end))
        self._processed_end = new.end
        cuts: list[EndedSpan] = []
        # One by one: whether a stretch was cut is seen from the frame at which it ended.
        for frame, value in zip(range(new.start, new.end), get_activity(new), strict=True):
            if frame >= self._endpointer.available_end:
                cuts += self._push(frame, 1.0 if frame == self._opens_at else float(value))
        if ended:
            self.closed = True
            cuts += [self._create_ended_span(stretch) for stretch in self._endpointer.flush()]
        return cuts

    def _push(self, frame: int, activity: float) -> list[EndedSpan]:
        if activity >= self.options.end_threshold:
            self.last_active_frame = frame
        cuts = []
        for stretch in self._endpointer.push([activity]):
            cuts.append(self._create_ended_span(stretch))
            if frame + 1 - stretch.start >= self.options.max_frames:
                self._cut_at = stretch.end
        return cuts

    def _create_ended_span(self, span: FrameSpan) -> EndedSpan:
        return EndedSpan(span, continues_previous=span.start == self._cut_at)

    @property
    def _person(self) -> int | None:
        return None if self.track is None else self.track.person
