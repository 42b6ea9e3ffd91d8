"""Messages of ``/v1/live``: parsing of client messages, and server messages. ``docs/live.md`` documents them."""

from __future__ import annotations

import dataclasses
import struct
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

import gorggle
from gorggle import Segment
from gorggle.events import Activity, Event, Finished, MediaInfo, Progress, Started, StreamWarning
from gorggle.results import Modality

VERSION = 1
SUBPROTOCOL = "gorggle.live.v1"

# Size of a text message; media is binary.
MAX_TEXT_CHARS = 16_384
_SEQUENCE_HEADER = struct.Struct(">I")
_STRICT = ConfigDict(extra="forbid", strict=True)


class SessionError(Exception):
    """Ends a session; ``code`` and text are sent to the client. The code of an invalid message is "protocol"."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, config=_STRICT)
class Start:
    """Begin a session."""

    media: Literal["webm", "pcm"]
    modality: Modality = "av"
    interim: bool = True
    face_boxes: bool = False
    model: str = ""
    token: str = ""
    type: Literal["start"] = "start"


@dataclass(frozen=True, config=_STRICT)
class Resume:
    """Resume a session after a lost connection."""

    session: str
    key: str
    last_event: Annotated[int, Field(ge=0)] = 0
    token: str = ""
    type: Literal["resume"] = "resume"


@dataclass(frozen=True, config=_STRICT)
class Ping:
    """The client is alive and has received all events up to this one."""

    last_event: Annotated[int, Field(ge=0)] = 0
    type: Literal["ping"] = "ping"


@dataclass(frozen=True, config=_STRICT)
class Stop:
    """End of the media."""

    type: Literal["stop"] = "stop"


@dataclasses.dataclass(frozen=True)
class MediaChunk:
    """The next chunk of media."""

    sequence: int
    media: bytes


TextMessage = Start | Resume | Ping | Stop
ClientMessage = TextMessage | MediaChunk
# Any: for a type checker an annotated union is a special form, not a type.
_TAGGED: Any = Annotated[TextMessage, Field(discriminator="type")]
_PARSER: TypeAdapter[TextMessage] = TypeAdapter(_TAGGED)


def parse_text(text: str) -> TextMessage:
    """Parse a text message.

    Raises:
        SessionError: it is not a message of this version.
    """
    if len(text) > MAX_TEXT_CHARS:
        raise SessionError(
            "protocol", f"a text message of {len(text)} characters: expected at most {MAX_TEXT_CHARS}"
        )
    try:
        return _PARSER.validate_json(text)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise SessionError(
            "protocol", f"{'.'.join(map(str, problem['loc'])) or 'message'}: {problem['msg']}"
        ) from None


def parse_binary(data: bytes) -> MediaChunk:
    """Parse a binary message: the chunk's number as four bytes, big-endian, then the media.

    Raises:
        SessionError: it is too short, or the number is 0.
    """
    if len(data) <= _SEQUENCE_HEADER.size:
        raise SessionError(
            "protocol", f"a binary message of {len(data)} bytes: expected a number of 4 bytes, then media"
        )
    sequence = _SEQUENCE_HEADER.unpack_from(data)[0]
    if sequence == 0:
        raise SessionError("protocol", "a chunk of media has number 0: expected numbers from 1")
    return MediaChunk(sequence, data[_SEQUENCE_HEADER.size :])


# ------------------------------------------------------------------------------------------------------------- answers


def segment_to_message(segment: Segment, generation: int, speaker: str) -> dict[str, Any]:
    """Return the message of a segment; its ID contains the generation of the server."""
    return {
        "type": "segment",
        "segment_id": f"{generation}.{segment.segment_id}",
        "revision": segment.revision,
        "is_final": segment.is_final,
        "speaker": speaker,
        "modality": segment.modality,
        "start_s": _round_ms(segment.start_s),
        "end_s": _round_ms(segment.end_s),
        "text": segment.text,
        "confidence": round(segment.confidence, 4),
        "doubtful": segment.is_doubtful,
        "words": [_round_fields(word, confidence=4) for word in segment.words],
        "face_boxes": [_round_fields(box, left=4, top=4, width=4, height=4) for box in segment.face_boxes],
    }


def event_to_message(event: Event, offset_s: float) -> dict[str, Any] | None:
    """Return the message of an event other than a segment; None for events that browsers do not need."""
    match event:
        case Started():
            return {"type": "started", **_round_fields(event)}
        case MediaInfo():
            return {
                "type": "media",
                "width_px": event.width_px,
                "height_px": event.height_px,
                "video_codec": event.video_codec,
                "audio_codec": event.audio_codec,
            }
        case Activity():
            return {"type": "activity", **_round_fields(event)}
        case Progress():
            return {
                "type": "progress",
                "received_s": _round_ms(event.received_s + offset_s),
                "processed_s": _round_ms(event.processed_s + offset_s),
                "faces": event.face_count,
            }
        case StreamWarning():
            return {"type": "warning", **_round_fields(event)}
        case Finished():
            return {
                "type": "finished",
                "duration_s": _round_ms(event.duration_s + offset_s),
                "segments": event.segment_count,
                "faces": event.face_count,
            }
    return None


def build_error_message(code: str, message: str, retry_after_s: float | None = None) -> dict[str, Any]:
    """Return the last message of a failed session."""
    return {"type": "error", "code": code, "message": message, "retry_after_s": retry_after_s}


# The protocol's codes of the SDK's errors; others are "internal".
ERROR_CODES: dict[type[gorggle.GorggleError], str] = {
    gorggle.NoFaceError: "no_face",
    gorggle.InvalidRequestError: "invalid_media",
    gorggle.NotFoundError: "not_found",
    gorggle.OverloadedError: "overloaded",
    gorggle.UnavailableError: "unavailable",
    gorggle.DeadlineError: "deadline",
}


def error_to_message(error: gorggle.GorggleError) -> dict[str, Any]:
    """Return the message of an SDK error; internal errors show only their request ID."""
    code = next((code for kind, code in ERROR_CODES.items() if isinstance(error, kind)), "internal")
    text = str(error) if code != "internal" else f"internal error (request {error.request_id or 'unknown'})"
    return build_error_message(code, text, getattr(error, "retry_after_s", None))


def _round_fields(item: Any, **digits: int) -> dict[str, Any]:
    """Return a dataclass as a dictionary; numbers have three decimals, or ``digits``."""
    return {
        name: round(value, digits.get(name, 3)) if isinstance(value, float) else value
        for name, value in dataclasses.asdict(item).items()
    }


def _round_ms(time_s: float) -> float:
    return round(time_s, 3)
