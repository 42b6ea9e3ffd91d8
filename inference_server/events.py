"""Results and other events of a stream, and the checkpoint it can be resumed from.

Times are seconds from the first video frame or audio sample of the clip; the caller's start offset is added when messages
are encoded (``grpc_server.response_encoding``).
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gorggle_server.recognition_options import Modality


class WordSource(enum.Enum):
    """What a word was recognized from. ``BOTH``: one model used lips and audio, or two models agree."""

    LIPS = "lips"
    AUDIO = "audio"
    BOTH = "both"


@dataclass(frozen=True)
class Word:
    """One word: its text, time in seconds, confidence from 0 to 1, and source.

    ``source`` is None until the segment is created, if one model recognized the utterance: its modality is the source.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float
    source: WordSource | None = None


class TextScorer(Protocol):
    """Scores texts for the audio of one utterance."""

    def score(self, texts: Sequence[str]) -> list[float]:
        """Return the log-likelihood of each text; values are comparable between texts only."""

    def compute_fit(self, score: float) -> float:
        """Return how well a text with this score fits: 0 if its letters are the likeliest in every frame of speech, else less."""


@dataclass(frozen=True)
class Hypothesis:
    """One possible transcript of an utterance, with confidence from 0 to 1.

    Attributes:
        is_loop_removed: the model repeated a phrase in a loop, which is kept once.
        is_doubtful: noise hid the audio from an open vocabulary, and a closed one decided alone.
        log_probability: sum over the tokens; 0 if unknown.
        text_scorer: scores other texts for the same audio; None if the model cannot.
    """

    text: str
    confidence: float
    words: tuple[Word, ...] = ()
    is_loop_removed: bool = False
    is_doubtful: bool = False
    log_probability: float = 0.0
    text_scorer: TextScorer | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class FaceBox:
    """Bounding box of a face at one moment, as fractions of the upright frame."""

    offset_s: float
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Segment:
    """What one person said in one span of the media. ``alternatives`` follow ``best``, in order of likelihood.

    Later results of the same segment keep its first ``stable_words`` words. ``is_doubtful``: the words were read by a model without
    an open vocabulary from the lips alone, or from lips and noisy audio that an open vocabulary did not confirm.
    """

    segment_id: str
    revision: int
    is_final: bool
    stable_words: int
    start_s: float
    end_s: float
    best: Hypothesis
    speaker_id: str
    modality: Modality
    alternatives: tuple[Hypothesis, ...] = ()
    face_boxes: tuple[FaceBox, ...] = ()
    is_doubtful: bool = False

    @property
    def stability(self) -> float:
        """Fraction of the words that are stable, from 0 to 1."""
        if self.is_final:
            return 1.0
        return min(1.0, self.stable_words / max(1, len(self.best.text.split())))


@dataclass(frozen=True)
class MediaInfo:
    """The streams of a container, as it declares them.

    Attributes:
        container: FFmpeg's name of the format.
        video_codec: empty without video.
        audio_codec: empty without audio.
        width_px, height_px: of the upright video in the source's resolution; 0 without video.
        frame_rate_hz: a hint, since only timestamps are used; 0 if unknown.
        duration_s: None if not declared (browser recordings, live streams).
        rotation_degrees: 0, 90, 180 or 270, the clockwise rotation applied to make the video upright.
    """

    container: str
    video_codec: str = ""
    audio_codec: str = ""
    width_px: int = 0
    height_px: int = 0
    frame_rate_hz: float = 0.0
    duration_s: float | None = None
    rotation_degrees: int = 0


class ActivityKind(enum.Enum):
    """Whether speech begins or ends."""

    SPEECH_BEGIN = "begin"
    SPEECH_END = "end"


@dataclass(frozen=True)
class Activity:
    """Beginning or end of speech."""

    kind: ActivityKind
    offset_s: float
    speaker_id: str


class WarningKind(enum.Enum):
    """Subject of a warning."""

    NO_AUDIO = "no audio"
    NO_FACE = "no face"
    DAMAGED_MEDIA = "damaged media"
    TOO_MANY_FACES = "too many faces"
    LAGGING_MODALITY = "lagging modality"
    NO_SPEECH = "no speech"
    INPUT_TOO_FAST = "input too fast"
    SILENCE_TIMEOUT = "silence timeout"
    LIPS_NOT_USED = "lips not used"
    CLOSED_VOCABULARY = "closed vocabulary"
    REPETITION = "repetition"


@dataclass(frozen=True)
class StreamWarning:
    """A condition that the caller should know about and that does not end the stream."""

    kind: WarningKind
    message: str


@dataclass(frozen=True)
class ChannelCheckpoint:
    """Segmentation state of one activity signal.

    Attributes:
        person: whose mouth it is; None for the audio.
        committed_end: the frame to continue from; everything before is committed.
        continues_previous: an utterance that was too long was cut there, so speech continues across it.
    """

    person: int | None
    committed_end: int
    continues_previous: bool = False


@dataclass(frozen=True)
class StreamCheckpoint:
    """State of a stream at one moment. Frames count from the start of the media, at 25 Hz.

    Attributes:
        final_end: every segment that begins before this frame is final and sent.
        needed_start: earlier frames are not needed again, except for the replay margin.
        channels: signals being segmented; the audio first, if present.
        recent_speech: (start, end) of recent speech in the audio; lip movement elsewhere is visual-only speech.
        speakers: people who have spoken, in the order of their labels.
        last_speech_end: end of the latest speech.
        segment_count: final segments sent.
        has_utterances: whether any utterance was found, with or without words.
    """

    final_end: int = 0
    needed_start: int = 0
    channels: tuple[ChannelCheckpoint, ...] = ()
    recent_speech: tuple[tuple[int, int], ...] = ()
    speakers: tuple[int, ...] = ()
    last_speech_end: int = 0
    segment_count: int = 0
    has_utterances: bool = False

    def shift(self, frames: int) -> StreamCheckpoint:
        """Return the same state on a clock that starts ``frames`` later."""
        return dataclasses.replace(
            self,
            final_end=self.final_end - frames,
            needed_start=self.needed_start - frames,
            last_speech_end=self.last_speech_end - frames,
            channels=tuple(
                dataclasses.replace(channel, committed_end=channel.committed_end - frames)
                for channel in self.channels
            ),
            recent_speech=tuple((start - frames, end - frames) for start, end in self.recent_speech),
        )


@dataclass(frozen=True)
class Progress:
    """Progress in seconds of media; with ``checkpoint`` the stream can be resumed."""

    received_s: float
    processed_s: float
    faces: int
    checkpoint: StreamCheckpoint | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Finished:
    """All media was processed and every segment sent."""

    duration_s: float
    segments: int
    faces: int


@dataclass(frozen=True)
class Draining:
    """The server will shut down in ``deadline_s`` seconds."""

    deadline_s: float


@dataclass(frozen=True)
class Heartbeat:
    """Nothing new."""


Event = MediaInfo | Segment | Activity | Progress | StreamWarning | Finished | Draining | Heartbeat


@dataclass
class Transcript:
    """Results of a whole clip, collected from its events."""

    media_info: MediaInfo | None = None
    segments: list[Segment] = field(default_factory=list)
    warnings: list[StreamWarning] = field(default_factory=list)
    duration_s: float = 0.0

    def add(self, event: Event) -> None:
        """Add one event of the clip's session."""
        match event:
            case MediaInfo():
                self.media_info = event
            case Segment(is_final=True) if event.best.text:
                self.segments.append(event)
            case StreamWarning():
                self.warnings.append(event)
            case Finished():
                self.duration_s = event.duration_s
