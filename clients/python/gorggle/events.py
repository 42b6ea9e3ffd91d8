"""Events of a stream besides segments; ``on_event`` of ``transcribe`` receives them."""

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
    "lips_not_used",
    "closed_vocabulary",
    "repetition",
    "other",
]


@dataclass(frozen=True, slots=True)
class Started:
    """The server accepted the request.

    Attributes:
        request_id: identifies the call in the server's log.
        model: name of the model.
        audio_model: name of the second model, which recognizes the audio; empty: none.
    """

    request_id: str
    model: str
    audio_model: str = ""


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """Properties of the media.

    Attributes:
        container: FFmpeg's name, such as "mov,mp4,m4a,3gp,3g2,mj2".
        video_codec: empty without a video stream.
        audio_codec: empty without an audio stream.
        width_px: of the upright frame.
        height_px: of the upright frame.
        frame_rate_hz: as declared by the container; 0 if unknown.
        duration_s: as declared by the container; None if it is not.
        rotation_degrees: clockwise rotation applied to show frames upright.
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
    """Progress of the server, about once per second of media.

    Attributes:
        bytes_received: media bytes received.
        received_s: duration of the media decoded and face-tracked.
        processed_s: time up to which every segment is final and sent.
        face_count: faces being tracked.
    """

    bytes_received: int
    received_s: float
    processed_s: float
    face_count: int


@dataclass(frozen=True, slots=True)
class Activity:
    """Speech begins or ends; sent if ``activity_events`` is on."""

    kind: Literal["speech_begin", "speech_end"]
    time_s: float
    speaker: str


@dataclass(frozen=True, slots=True)
class StreamWarning:
    """A problem that does not end the stream; ``message`` is human-readable."""

    kind: WarningKind
    message: str


@dataclass(frozen=True, slots=True)
class Finished:
    """All media was processed and every segment sent."""

    duration_s: float
    segment_count: int
    face_count: int


@dataclass(frozen=True, slots=True)
class ServerDraining:
    """The server shuts down after ``deadline_s``; the stream moves to another server if one is configured."""

    deadline_s: float


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The server or the connection was lost; the stream is resumed after the backoff.

    Attributes:
        reason: human-readable.
        backoff_s: time until the next attempt.
        final_end_s: time up to which every segment was received.
    """

    reason: str
    backoff_s: float
    final_end_s: float


Event = Started | MediaInfo | Progress | Activity | StreamWarning | ServerDraining | Interrupted | Finished
