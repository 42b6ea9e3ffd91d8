"""What the server and a decoder process say to each other: fixed binary layouts, nothing that could be code.

The server sends an order, then the media in answer to requests, each piece behind its length. The process answers in
messages: a header of 24 bytes, then a body whose size the header tells. ``reception`` checks them.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING

import numpy as np

from gorggle_server.media.demuxer import MediaLimits, StreamInfo
from gorggle_server.timebase import MOUTH_CROP_SIZE_PX
from gorggle_server.vision.mouth_cropper import SMOOTHING_FRAMES
from gorggle_server.vision.mouth_tracker import MAX_ABSENCE_FRAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gorggle_server.media.resampling import EndOfStream
    from gorggle_server.vision.mouth_tracker import FrameResult, MouthUpdate

MAGIC = b"GDEC"
VERSION = 2

# Magic, version, kind, width, height, nothing, size of the body, number.
HEADER = struct.Struct("<4sBBHHHIQ")
# Container, codecs, width, height, frame rate, duration, starts of pictures and sound, rotation, what is given.
INFO = struct.Struct("<64s32s32sIIddddHBB")
# Frames, samples, broken packets, leaps, truncated.
END = struct.Struct("<QQQQB")
# Seconds that it took to see a frame.
FRAME = struct.Struct("<d")
# Flags (MouthFlag), how many crops, how many frames judged, left, top, width and height of the face. Behind it the
# judgements (float64), the numbers of the crops' frames (int64), the crops, and the glimpse.
MOUTH = struct.Struct("<HHHdddd")
# Duration, spooled bytes, pixels, memory, seconds of processor time, faces, pictures, sound, live.
JOB = struct.Struct("<dQQQIHBBB")
DATA_SIZE = struct.Struct("<I")

MAX_REQUEST_BYTES = 60 * 2**10
MAX_TEXT_BYTES = 2000
CROP_BYTES = MOUTH_CROP_SIZE_PX**2
# A face that comes back brings what was held while it was away, and one that leaves what was held for it.
MAX_CROPS = MAX_PROBABILITIES = 2 * (SMOOTHING_FRAMES + MAX_ABSENCE_FRAMES)
MAX_BODY_BYTES = MOUTH.size + 8 * MAX_PROBABILITIES + MAX_CROPS * (8 + CROP_BYTES) + CROP_BYTES
# Of all mouths of a frame together.
MAX_MOUTHS_BYTES = 32 * 2**20


class DecoderError(Exception):
    """A decoder process did not do its part: the server's own fault, for its log and not for a caller."""


class MessageType(IntEnum):
    """What a message is. ``number`` in brackets."""

    READY = 1  # the process waits for an order
    SANDBOXED = 2  # it has shut itself in (Protection flags), and opens the media next
    DATA_REQUEST = 3  # it wants more of the media (how much at most)
    INFO = 4
    FRAME = 5  # one was looked at: width is the faces on it, height its FrameFlag (its place)
    MOUTH = 6  # what the frame announced next adds to one person's mouth (the person)
    AUDIO = 7  # int16 samples (its first sample's place)
    END = 8
    FAILED = 9  # it gives up, with a text (Failure)


class FailureCode(IntEnum):
    """Why a decoder gives up."""

    INVALID_MEDIA = 1
    OUT_OF_RANGE = 2
    MEMORY = 3
    INTERNAL = 4


class FrameFlag(IntFlag):
    """What is to be said of a frame."""

    CROWDED = 1
    LAST = 2


class MouthFlag(IntFlag):
    """What is to be said of a mouth."""

    SEEN = 1
    ENDED = 2
    PREVIEW = 4
    BOX = 8


@dataclass(frozen=True)
class DecodeJob:
    """What a decoder process is to do, and what it may use."""

    limits: MediaLimits
    video: bool
    audio: bool
    memory_bytes: int
    cpu_s: int
    live: bool = False
    max_faces: int = 4

    def pack(self) -> bytes:
        """As it is sent."""
        limits = self.limits
        return JOB.pack(
            limits.max_duration_s,
            limits.max_spooled_bytes,
            limits.max_frame_pixels,
            self.memory_bytes,
            self.cpu_s,
            self.max_faces,
            self.video,
            self.audio,
            self.live,
        )

    @classmethod
    def unpack(cls, data: bytes) -> DecodeJob:
        """As it was sent."""
        duration_s, spooled, pixels, memory_bytes, cpu_s, max_faces, pictures, sound, live = JOB.unpack(data)
        limits = MediaLimits(duration_s, spooled, pixels)
        return cls(limits, bool(pictures), bool(sound), memory_bytes, cpu_s, bool(live), max_faces)


@dataclass(frozen=True)
class Header:
    """The start of a message from a decoder."""

    kind: MessageType
    width: int = 0
    height: int = 0
    size: int = 0
    number: int = 0

    def pack(self) -> bytes:
        """As it is sent."""
        return HEADER.pack(
            MAGIC, VERSION, self.kind, self.width, self.height, 0, self.size, self.number
        )  # fmt: skip


def encode_info(info: StreamInfo) -> bytes:
    """What there is, as it is sent; times that are not known are not a number."""
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


def encode_frame_result(sight: FrameResult) -> Iterator[tuple[Header, bytes]]:
    """What was seen on a frame, as it is sent: the mouths, then the frame."""
    for mouth in sight.mouths:
        body = _encode_mouth(mouth)
        yield Header(MessageType.MOUTH, size=len(body), number=mouth.person), body
    flags = FrameFlag.CROWDED * sight.is_crowded | FrameFlag.LAST * sight.is_last
    yield (
        Header(MessageType.FRAME, sight.faces, flags, FRAME.size, sight.index),
        FRAME.pack(sight.elapsed_s),
    )


def _encode_mouth(mouth: MouthUpdate) -> bytes:
    flags = MouthFlag.SEEN * mouth.is_seen | MouthFlag.ENDED * mouth.has_ended
    if mouth.preview is not None:
        flags |= MouthFlag.PREVIEW
    if mouth.box is not None:
        flags |= MouthFlag.BOX
    place = mouth.box or (0.0, 0.0, 0.0, 0.0)
    parts = [
        MOUTH.pack(flags, len(mouth.crops), len(mouth.speaking), *place),
        np.array(mouth.speaking, "<f8").tobytes(),
        np.array([crop.frame_index for crop in mouth.crops], "<i8").tobytes(),
        *(crop.pixels.tobytes() for crop in mouth.crops),
    ]
    if mouth.preview is not None:
        parts.append(mouth.preview.tobytes())
    return b"".join(parts)


def encode_end(end: EndOfStream) -> bytes:
    """How it went, as it is sent."""
    return END.pack(end.frames, end.samples, end.broken_packets, end.clock_jumps, end.truncated)


def decode_text(body: bytes | memoryview) -> str:
    """A text without anything that could pass for more than one line of a log."""
    said = bytes(body).decode(errors="replace")
    return "".join(letter if letter.isprintable() else " " for letter in said)
