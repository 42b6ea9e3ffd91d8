"""What a server tells while it reads, besides segments. ``on_event`` of ``transcribe`` receives these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WarningKind = Literal[
    "no_audio",
    "no_face",
    "damaged_media",
    "too_many_faces",
    "lagging_modality",
    "no_speech",
    "input_too_fast",
    "silence_timeout",
    "other",
]


@dataclass(frozen=True, slots=True)
class Started:
    """The request was accepted. ``request_id`` is the call's name in the server's log."""

    request_id: str
    model: str


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What the server found when it opened the media.

    Attributes:
        container: as FFmpeg calls it: "mov,mp4,m4a,3gp,3g2,mj2".
        video_codec: empty where there are no pictures.
        audio_codec: empty where there is no sound.
        width_px: of the upright picture.
        height_px: of the upright picture.
        frame_rate_hz: as the container declares it; 0 where unknown.
        duration_s: as the container declares it; None where it does not.
        rotation_degrees: clockwise rotation that was applied to show the picture upright.
    """

    container: str
    video_codec: str
    audio_codec: str
    width_px: int
    height_px: int
    frame_rate_hz: float
    duration_s: float | None
    rotation_degrees: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the server has come, about once a second of media.

    Attributes:
        bytes_received: media bytes taken in.
        received_s: media decoded and searched for faces, from its start.
        processed_s: media up to which every segment is final and sent.
        face_count: faces followed at this moment.
    """

    bytes_received: int
    received_s: float
    processed_s: float
    face_count: int


@dataclass(frozen=True, slots=True)
class Activity:
    """Speech begins or ends; comes where ``activity_events`` was asked for."""

    kind: Literal["speech_begin", "speech_end"]
    time_s: float
    speaker: str


@dataclass(frozen=True, slots=True)
class StreamWarning:
    """Something worth knowing that does not end the stream; ``message`` is for people."""

    kind: WarningKind
    message: str


@dataclass(frozen=True, slots=True)
class Finished:
    """All media has been read and every segment sent."""

    duration_s: float
    segment_count: int
    face_count: int


@dataclass(frozen=True, slots=True)
class ServerDraining:
    """The server goes after so many seconds; the stream is carried on elsewhere, where there is another server."""

    deadline_s: float


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The server or the connection was lost; the stream is taken up again after the pause.

    Attributes:
        reason: for people.
        backoff_s: until the next attempt.
        final_end_s: media up to which every segment has come.
    """

    reason: str
    backoff_s: float
    final_end_s: float


Event = Started | MediaInfo | Progress | Activity | StreamWarning | ServerDraining | Interrupted | Finished
