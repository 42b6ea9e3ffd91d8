"""Messages of ``/v1/live``: parsing of client messages, and server messages. ``docs/live.md`` documents them."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, Literal, get_args

import gorggle
from gorggle import Segment
from gorggle.events import Activity, Event, Finished, Interrupted, MediaInfo, Progress, Started, StreamWarning
from gorggle.results import Modality

VERSION = 1
SUBPROTOCOL = "gorggle.live.v1"

Media = Literal["webm", "pcm"]

# Size of a text message; media is binary.
MAX_TEXT_CHARS = 16_384
_SEQUENCE_HEADER = struct.Struct(">I")


class MessageError(ValueError):
    """An invalid message; the text is for the developer of the client."""


@dataclass(frozen=True)
class Start:
    """Begin a session."""

    media: Media
    modality: Modality
    interim: bool
    face_boxes: bool
    model: str
    token: str


@dataclass(frozen=True)
class Resume:
    """Resume a session after a lost connection."""

    session: str
    key: str
    last_event: int
    token: str


@dataclass(frozen=True)
class Ping:
    """The client is alive and has received all events up to this one."""

    last_event: int


@dataclass(frozen=True)
class Stop:
    """End of the media."""


@dataclass(frozen=True)
class MediaChunk:
    """The next chunk of media."""

    sequence: int
    media: bytes


ClientMessage = Start | Resume | Ping | Stop | MediaChunk

_FIELDS: dict[str, dict[str, type]] = {
    "start": {"media": str, "modality": str, "interim": bool, "face_boxes": bool, "model": str, "token": str},
    "resume": {"session": str, "key": str, "last_event": int, "token": str},
    "ping": {"last_event": int},
    "stop": {},
}
_DEFAULTS: dict[str, Any] = {
    "modality": "av",
    "interim": True,
    "face_boxes": False,
    "model": "",
    "token": "",
    "last_event": 0,
}


def parse_text(text: str) -> ClientMessage:
    """Parse a text message.

    Raises:
        MessageError: it is not a message of this version.
    """
    if len(text) > MAX_TEXT_CHARS:
        raise MessageError(f"a text message of {len(text)} characters: expected at most {MAX_TEXT_CHARS}")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MessageError("a text message is not JSON") from error
    kind = document.pop("type", None) if isinstance(document, dict) else None
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise MessageError(f"a text message without a known type: expected one of {', '.join(_FIELDS)}")
    values = _parse_fields(kind, document)
    match kind:
        case "start":
            _check_choice("media", values["media"], get_args(Media))
            _check_choice("modality", values["modality"], get_args(Modality))
            return Start(**values)
        case "resume":
            return Resume(**values)
        case "ping":
            return Ping(**values)
    return Stop()


def parse_binary(data: bytes) -> MediaChunk:
    """Parse a binary message: the chunk's number as four bytes, big-endian, then the media.

    Raises:
        MessageError: it is too short, or the number is 0.
    """
    if len(data) <= _SEQUENCE_HEADER.size:
        raise MessageError(f"a binary message of {len(data)} bytes: expected a number of 4 bytes, then media")
    sequence = _SEQUENCE_HEADER.unpack_from(data)[0]
    if sequence == 0:
        raise MessageError("a chunk of media has number 0: expected numbers from 1")
    return MediaChunk(sequence, data[_SEQUENCE_HEADER.size :])


def _parse_fields(kind: str, document: dict[str, Any]) -> dict[str, Any]:
    fields = _FIELDS[kind]
    unknown = sorted(set(document) - set(fields))
    if unknown:
        raise MessageError(f"{kind} has {', '.join(unknown)}: expected {', '.join(fields) or 'no fields'}")
    values = {}
    for name, expected in fields.items():
        value = document.get(name, _DEFAULTS.get(name))
        if type(value) is not expected or (isinstance(value, int) and value < 0):
            raise MessageError(f"{kind}.{name} is {value!r}: expected {expected.__name__}")
        values[name] = value
    return values


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise MessageError(f"start.{name} is {value!r}: expected one of {', '.join(choices)}")


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
        "words": [
            {
                "text": word.text,
                "start_s": _round_ms(word.start_s),
                "end_s": _round_ms(word.end_s),
                "confidence": round(word.confidence, 4),
            }
            for word in segment.words
        ],
        "face_boxes": [
            {
                "time_s": _round_ms(box.time_s),
                "left": round(box.left, 4),
                "top": round(box.top, 4),
                "width": round(box.width, 4),
                "height": round(box.height, 4),
            }
            for box in segment.face_boxes
        ],
    }


def event_to_message(event: Event, offset_s: float) -> dict[str, Any] | None:
    """Return the message of an event other than a segment; None for events that browsers do not need."""
    match event:
        case Started():
            return {"type": "started", "model": event.model, "request_id": event.request_id}
        case MediaInfo():
            return {
                "type": "media",
                "width_px": event.width_px,
                "height_px": event.height_px,
                "video_codec": event.video_codec,
                "audio_codec": event.audio_codec,
            }
        case Activity():
            return {
                "type": "activity",
                "kind": event.kind,
                "time_s": _round_ms(event.time_s),
                "speaker": event.speaker,
            }
        case Progress():
            return {
                "type": "progress",
                "received_s": _round_ms(event.received_s + offset_s),
                "processed_s": _round_ms(event.processed_s + offset_s),
                "faces": event.face_count,
            }
        case StreamWarning():
            return {"type": "warning", "kind": event.kind, "message": event.message}
        case Interrupted():
            return {"type": "recovering", "reason": event.reason}
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


def _round_ms(time_s: float) -> float:
    return round(time_s, 3)
