"""The protocol between the server and a decoder process: fixed binary layouts, without pickle.

The server sends a job, then the media on request, each chunk preceded by its length. The process sends messages: a
header of 24 bytes and a body. ``protocol_validation`` checks them.
"""

from __future__ import annotations

import math
import struct
from dataclasses import astuple, dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING

import numpy as np

from gorggle_server.input_format import MOUTH_CROP_SIZE_PX
from gorggle_server.media.demuxer import StreamInfo
from gorggle_server.recognition_options import MediaLimits, RecognitionOptions
from gorggle_server.vision.mouth_cropper import MAX_ABSENCE_FRAMES, SMOOTHING_FRAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gorggle_server.media.resampling import EndOfStream
    from gorggle_server.vision.mouth_tracker import FrameResult, MouthUpdate

MAGIC = b"GDEC"
VERSION = 4

# Magic, version, type, width, height, reserved, body size, number.
HEADER = struct.Struct("<4sBBHHHIQ")
# Container, codecs, width, height, frame rate, duration, starts of video and audio, rotation, which are decoded.
INFO = struct.Struct("<64s32s32sIIddddHBB")
# Frames, samples, broken packets, truncated.
END = struct.Struct("<QQQB")
# Processing time of a frame, seconds.
FRAME = struct.Struct("<d")
# Flags (MouthFlag), number of crops, number of probabilities, identity (0: unknown), left, top, width and height of the
# face. Followed by the probabilities (float64), the crops' frame indices (int64), the crops, and the preview crop.
MOUTH = struct.Struct("<HHHIdddd")
# Duration, spooled bytes, pixels, memory, CPU seconds, faces, video, audio, live, face identity.
JOB = struct.Struct("<dQQQIHBBBB")
DATA_SIZE = struct.Struct("<I")

MAX_REQUEST_BYTES = 60 * 2**10
MAX_TEXT_BYTES = 2000
CROP_BYTES = MOUTH_CROP_SIZE_PX**2
# When a face returns or a track ends, all its pending crops and probabilities are sent at once.
MAX_CROPS = MAX_PROBABILITIES = 2 * (SMOOTHING_FRAMES + MAX_ABSENCE_FRAMES)
MAX_BODY_BYTES = MOUTH.size + 8 * MAX_PROBABILITIES + MAX_CROPS * (8 + CROP_BYTES) + CROP_BYTES
# Of all mouths of a frame.
MAX_MOUTHS_BYTES = 32 * 2**20


class DecoderError(Exception):
    """A decoder process failed: an internal error that is logged and not sent to clients."""


class MessageType(IntEnum):
    """Type of a message; the meaning of ``number`` is in parentheses."""

    READY = 1  # the process waits for a job
    SANDBOXED = 2  # the sandbox is active (SandboxFeatures); the media is opened next
    DATA_REQUEST = 3  # request for media (maximum bytes)
    INFO = 4
    FRAME = 5  # width: number of faces, height: FrameFlag (index)
    MOUTH = 6  # a MouthUpdate of the next frame (person)
    AUDIO = 7  # int16 samples (index of the first)
    END = 8
    FAILED = 9  # decoding failed, with a message (FailureCode)


class FailureCode(IntEnum):
    """Why decoding failed."""

    INVALID_MEDIA = 1
    OUT_OF_RANGE = 2
    MEMORY = 3
    INTERNAL = 4


class FrameFlag(IntFlag):
    """Flags of a frame."""

    CROWDED = 1
    LAST = 2


class MouthFlag(IntFlag):
    """Flags of a mouth."""

    SEEN = 1
    ENDED = 2
    PREVIEW = 4
    BOX = 8


@dataclass(frozen=True)
class DecodeJob:
    """Options and limits of a decoder process."""

    limits: MediaLimits
    video: bool
    audio: bool
    memory_bytes: int
    cpu_s: int
    live: bool = False
    max_faces: int = RecognitionOptions.max_speakers
    face_identity: bool = True

    def pack(self) -> bytes:
        """Encode the job."""
        flags = self.video, self.audio, self.live, self.face_identity
        return JOB.pack(*astuple(self.limits), self.memory_bytes, self.cpu_s, self.max_faces, *flags)

    @classmethod
    def unpack(cls, data: bytes) -> DecodeJob:
        """Decode a job."""
        *limits, memory_bytes, cpu_s, max_faces, video, audio, live, face_identity = JOB.unpack(data)
        return cls(
            MediaLimits(*limits),
            bool(video),
            bool(audio),
            memory_bytes,
            cpu_s,
            bool(live),
            max_faces,
            bool(face_identity),
        )


@dataclass(frozen=True)
class Header:
    """The header of a message from a decoder."""

    kind: MessageType
    width: int = 0
    height: int = 0
    size: int = 0
    number: int = 0

    def pack(self) -> bytes:
        """Encode the header."""
        return HEADER.pack(MAGIC, VERSION, self.kind, self.width, self.height, 0, self.size, self.number)


def encode_info(info: StreamInfo) -> bytes:
    """Encode a ``StreamInfo``; unknown times are NaN."""
    times_s = (info.duration_s, info.video_start_s, info.audio_start_s)
    return INFO.pack(
        info.container.encode(),
        info.video_codec.encode(),
        info.audio_codec.encode(),
        info.width_px,
        info.height_px,
        info.frame_rate_hz,
        *(math.nan if time_s is None else time_s for time_s in times_s),
        info.rotation_degrees,
        info.decodes_video,
        info.decodes_audio,
    )


def encode_frame_result(result: FrameResult) -> Iterator[tuple[Header, bytes]]:
    """Encode a ``FrameResult``: one message per mouth, then the frame."""
    for mouth in result.mouths:
        body = _encode_mouth(mouth)
        yield Header(MessageType.MOUTH, size=len(body), number=mouth.person), body
    flags = FrameFlag.CROWDED * result.is_crowded | FrameFlag.LAST * result.is_last
    yield (
        Header(MessageType.FRAME, result.faces, flags, FRAME.size, result.index),
        FRAME.pack(result.elapsed_s),
    )


def _encode_mouth(mouth: MouthUpdate) -> bytes:
    flags = MouthFlag.SEEN * mouth.is_seen | MouthFlag.ENDED * mouth.has_ended
    if mouth.preview is not None:
        flags |= MouthFlag.PREVIEW
    if mouth.box is not None:
        flags |= MouthFlag.BOX
    place = mouth.box or (0.0, 0.0, 0.0, 0.0)
    parts = [
        MOUTH.pack(flags, len(mouth.crops), len(mouth.speaking), mouth.identity or 0, *place),
        np.array(mouth.speaking, "<f8").tobytes(),
        np.array([crop.frame_index for crop in mouth.crops], "<i8").tobytes(),
        *(crop.pixels.tobytes() for crop in mouth.crops),
    ]
    if mouth.preview is not None:
        parts.append(mouth.preview.tobytes())
    return b"".join(parts)


def encode_end(end: EndOfStream) -> bytes:
    """Encode an ``EndOfStream``."""
    return END.pack(end.frames, end.samples, end.broken_packets, end.truncated)


def decode_text(body: bytes | memoryview) -> str:
    """Decode a message's text, with unprintable characters replaced so that it cannot forge log lines."""
    text = bytes(body).decode(errors="replace")
    return "".join(letter if letter.isprintable() else " " for letter in text)
