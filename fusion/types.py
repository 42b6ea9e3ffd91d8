"""Inputs of fusion: transcribed words of each source, faces, noise, and failures.

Times are seconds from the start of the whole media, also in documents about one window of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Origin = Literal["lips", "audio", "both"]
"""Source of a word. ``both``: the two sources agree, or one model used video and audio together."""

SourceName = Literal["lips", "audio", "faces"]

UNKNOWN_SPEAKER = ""
"""Speaker of a word whose source does not distinguish speakers."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """An alternative word of the same source, with its confidence from 0 to 1."""

    text: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Word:
    """One word with its source's confidence, 0 to 1; ``end_s`` is never before ``start_s``.

    ``origin`` is that of the segment if it is None.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float
    alternatives: tuple[Alternative, ...] = ()
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class FaceBox:
    """A face at one time, as fractions of the upright frame; a box may extend beyond it."""

    time_s: float
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive words of one speaker.

    Attributes:
        speaker: the source's label: "face-1" (unique within a window), "spk_0" (unique within the media), or
            ``UNKNOWN_SPEAKER``.
        origin: the source of the words.
        is_doubtful: the server marked the words as probably wrong.
    """

    start_s: float
    end_s: float
    speaker: str
    origin: Origin
    words: tuple[Word, ...]
    face_boxes: tuple[FaceBox, ...] = ()
    is_doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """One source's segments in one window of the media; neighbouring windows may overlap."""

    start_s: float
    end_s: float
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class FaceTrack:
    """One face tracked through the video: at least one box, sorted by time."""

    name: str
    boxes: tuple[FaceBox, ...]


@dataclass(frozen=True, slots=True)
class NoiseSpan:
    """The estimated signal-to-noise ratio of one span."""

    start_s: float
    end_s: float
    snr_db: float


@dataclass(frozen=True, slots=True)
class SourceFailure:
    """Why a source has no result, for the whole media or (with times) for a part of it."""

    source: SourceName
    reason: str
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, slots=True)
class Media:
    """Properties of the container; sizes are of the upright frame. 0 and empty without such a stream."""

    duration_s: float
    name: str = ""
    width_px: int = 0
    height_px: int = 0
    frame_rate_hz: float = 0.0
    video_codec: str = ""
    audio_codec: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """The lip reading model and its licence.

    ``has_open_vocabulary`` is false if it recognizes only the words that it was trained on.
    """

    name: str
    licence: str
    licence_summary: str = ""
    licence_url: str = ""
    has_open_vocabulary: bool = True


@dataclass(frozen=True, slots=True)
class Inputs:
    """All data about one video.

    Attributes:
        lips: lip reading windows; None if not requested or failed completely.
        audio: windows of the audio transcript (Amazon Transcribe's is one window); None likewise.
        faces: tracks of a separate source; None likewise. Face boxes of lip reading are in its segments.
        noise: where measured; elsewhere the audio counts as clean.
        failures: why a source is None, or lacks windows.
        language: BCP 47, or empty if unknown.
        audio_engine, face_engine: names of the services, for the report.
        audio_has_open_vocabulary: the audio was transcribed by an engine that recognizes any words.
    """

    media: Media
    lips: tuple[Window, ...] | None = None
    audio: tuple[Window, ...] | None = None
    faces: tuple[FaceTrack, ...] | None = None
    noise: tuple[NoiseSpan, ...] = ()
    failures: tuple[SourceFailure, ...] = ()
    model: Model | None = None
    language: str = ""
    audio_engine: str = ""
    face_engine: str = ""
    audio_has_open_vocabulary: bool = True
