"""What fusion is given: words as each source read them, faces, noise, and what failed.

Times are seconds from the start of the whole media, also in documents about one window of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Origin = Literal["lips", "sound", "both"]
"""What a word was read from. ``both``: the two agree, or one model read lips and sound together."""

SourceName = Literal["lips", "sound", "faces"]

UNKNOWN_SPEAKER = ""
"""Speaker of a word whose source does not tell speakers apart."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another word that the same source thought of, with its confidence from 0 to 1."""

    text: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Word:
    """One word with the confidence that its source states, from 0 to 1; ``end_s`` is never before ``start_s``."""

    text: str
    start_s: float
    end_s: float
    confidence: float
    alternatives: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True)
class FaceBox:
    """Where a face was at one moment, as shares of the upright picture; a box may stick out of it."""

    time_s: float
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Segment:
    """What one person said in one stretch.

    Attributes:
        speaker: as the source calls it: "face-1" (constant within a window), "spk_0" (constant within the media),
            or ``ANYBODY``.
        origin: what it was read from.
    """

    start_s: float
    end_s: float
    speaker: str
    origin: Origin
    words: tuple[Word, ...]
    face_boxes: tuple[FaceBox, ...] = ()


@dataclass(frozen=True, slots=True)
class Window:
    """What one source read in one stretch of the media; neighbouring windows may overlap."""

    start_s: float
    end_s: float
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class FaceTrack:
    """One face followed through the picture: at least one box, in order of time."""

    name: str
    boxes: tuple[FaceBox, ...]


@dataclass(frozen=True, slots=True)
class NoiseSpan:
    """How much louder the speech is than the rest, estimated over one stretch."""

    start_s: float
    end_s: float
    snr_db: float


@dataclass(frozen=True, slots=True)
class SourceFailure:
    """Why a source gave nothing, for the whole media or (with times) for a stretch of it."""

    source: SourceName
    reason: str
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, slots=True)
class Media:
    """What the container holds; sizes are of the upright picture. Zero and empty where it has no such stream."""

    duration_s: float
    name: str = ""
    width_px: int = 0
    height_px: int = 0
    frame_rate_hz: float = 0.0
    video_codec: str = ""
    audio_codec: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """The model that read the lips, and what its licence is."""

    name: str
    licence: str
    licence_summary: str = ""
    licence_url: str = ""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that is known about one video.

    Attributes:
        lips: windows as the lips were read; None where lip reading was not asked for or failed wholly.
        audio: windows of the sound's transcript (Amazon Transcribe's is one window); None likewise.
        faces: tracks from a source of their own; None likewise. Faces of lip reading come with its segments.
        noise: where it was measured; elsewhere the sound counts as clean.
        failures: why a source is None, or misses windows.
        language: BCP 47, or empty where unknown.
        audio_engine: who transcribed the sound.
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
