"""What is asked of a recognition and what comes out of it: the words the whole server shares.

Times are seconds on the clip's own clock, which starts at 0 with its first picture or sound; the start offset that a
caller asks for is added where messages are written (``service.response_messages``).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gorggle_server.stream_state import StreamCheckpoint

VIDEO_FRAME_RATE_HZ = 25
AUDIO_SAMPLE_RATE_HZ = 16_000
SAMPLES_PER_FRAME = AUDIO_SAMPLE_RATE_HZ // VIDEO_FRAME_RATE_HZ
MOUTH_CROP_SIZE_PX = 96


class Modality(enum.Enum):
    """What the words are read from."""

    AUDIO_VISUAL = "audio-visual"
    VIDEO_ONLY = "video only"
    AUDIO_ONLY = "audio only"

    @property
    def uses_video(self) -> bool:
        """Whether the lips are read."""
        return self is not Modality.AUDIO_ONLY

    @property
    def uses_audio(self) -> bool:
        """Whether the sound is read."""
        return self is not Modality.VIDEO_ONLY


@dataclass(frozen=True)
class EndpointingConfig:
    """Where utterances begin and end, in seconds; ``threshold`` from 0 to 1 is how sure it must be that one speaks."""

    endpoint_silence_s: float = 0.44
    min_speech_s: float = 0.2
    max_utterance_s: float = 20.0
    threshold: float = 0.5


@dataclass(frozen=True)
class RecognitionOptions:
    """How to read one clip or stream: validated, with every default filled in.

    Attributes:
        model: name of the model.
        beam_size: width of the beam search, at least 1.
        length_penalty: exponent of the length that divides a hypothesis' score.
        max_speakers: faces followed at once.
        start_offset_s: added to every time that is sent.
        silence_timeout_s: the stream ends when nobody has spoken for so long; 0: never.
        live: the media comes into being while it is sent.
    """

    model: str
    modality: Modality = Modality.AUDIO_VISUAL
    word_timestamps: bool = True
    max_alternatives: int = 0
    max_speakers: int = 4
    beam_size: int = 5
    length_penalty: float = 1.0
    start_offset_s: float = 0.0
    face_boxes: bool = False
    interim_results: bool = False
    activity_events: bool = False
    silence_timeout_s: float = 0.0
    live: bool = False
    endpointing: EndpointingConfig = field(default_factory=EndpointingConfig)


@dataclass(frozen=True)
class Word:
    """One word: its time in seconds and the model's confidence from 0 to 1."""

    text: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True)
class Hypothesis:
    """One way to read an utterance, with confidence from 0 to 1."""

    text: str
    confidence: float
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class FaceBox:
    """Where a face was at one moment, as shares of the upright picture."""

    offset_s: float
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Segment:
    """What one person said in one stretch. ``best`` is the likeliest reading; ``alternatives`` follow it.

    Its first ``stable_words`` words begin every later result of the same segment.
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

    @property
    def stability(self) -> float:
        """The share of the words that are stable, from 0 to 1."""
        if self.is_final:
            return 1.0
        return min(1.0, self.stable_words / max(1, len(self.best.text.split())))


@dataclass(frozen=True)
class MediaInfo:
    """What the container holds. Sizes are of the upright picture; ``duration_s`` is what it declares, or None."""

    container: str
    video_codec: str
    audio_codec: str
    width_px: int
    height_px: int
    frame_rate_hz: float
    duration_s: float | None
    rotation_degrees: int


class ActivityKind(enum.Enum):
    """Whether speech begins or ends."""

    SPEECH_BEGIN = "begin"
    SPEECH_END = "end"


@dataclass(frozen=True)
class Activity:
    """Speech begins or ends."""

    kind: ActivityKind
    offset_s: float
    speaker_id: str


class WarningKind(enum.Enum):
    """What a warning is about."""

    NO_AUDIO = "no audio"
    NO_FACE = "no face"
    DAMAGED_MEDIA = "damaged media"
    TOO_MANY_FACES = "too many faces"
    LAGGING_MODALITY = "lagging modality"
    NO_SPEECH = "no speech"
    INPUT_TOO_FAST = "input too fast"
    SILENCE_TIMEOUT = "silence timeout"


@dataclass(frozen=True)
class StreamWarning:
    """Something the caller should know that does not end the stream."""

    kind: WarningKind
    message: str


@dataclass(frozen=True)
class Progress:
    """How far the server has come, in seconds of media; with ``checkpoint`` the stream can be taken up again."""

    received_s: float
    processed_s: float
    faces: int
    checkpoint: StreamCheckpoint | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Finished:
    """All media has been read and every segment sent."""

    duration_s: float
    segments: int
    faces: int


@dataclass(frozen=True)
class Draining:
    """The server goes after so many seconds."""

    deadline_s: float


@dataclass(frozen=True)
class Heartbeat:
    """Nothing new."""


Event = MediaInfo | Segment | Activity | Progress | StreamWarning | Finished | Draining | Heartbeat


@dataclass
class Transcript:
    """Everything that a clip gave, gathered from its events."""

    media_info: MediaInfo | None = None
    segments: list[Segment] = field(default_factory=list)
    warnings: list[StreamWarning] = field(default_factory=list)
    duration_s: float = 0.0

    def add(self, event: Event) -> None:
        """Take in one event of the clip's session."""
        match event:
            case MediaInfo():
                self.media_info = event
            case Segment(is_final=True) if event.best.text:
                self.segments.append(event)
            case StreamWarning():
                self.warnings.append(event)
            case Finished():
                self.duration_s = event.duration_s
            case _:
                pass
