"""What the server and a decoder process say to each other: fixed binary layouts, nothing that could be code.

The server sends an order, then the media in answer to requests, each piece behind its length. The process answers in
messages: a header of 24 bytes, then a body whose size the header tells. ``reception`` checks them.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from inference_server.media.container import MediaLimits, StreamInfo
from inference_server.media.pictures import WORKING_SIDE_PX

if TYPE_CHECKING:
    from inference_server.media.timeline import TimelineEnd

MAGIC = b"GDEC"
VERSION = 1

# Magic, version, kind, width, height, nothing, size of the body, number.
HEADER = struct.Struct("<4sBBHHHIQ")
# Container, codecs, width, height, frame rate, duration, starts of pictures and sound, rotation, what is given.
INFO = struct.Struct("<64s32s32sIIddddHBB")
# Frames, samples, broken packets, leaps, truncated.
END = struct.Struct("<QQQQB")
# Duration, spooled bytes, pixels, memory, seconds of processor time, pictures, sound, live.
ORDER = struct.Struct("<dQQQIBBB")
DATA_SIZE = struct.Struct("<I")

MAX_REQUEST_BYTES = 60 * 2**10
MAX_TEXT_BYTES = 2000
MAX_BODY_BYTES = WORKING_SIDE_PX**2


class DecoderError(Exception):
    """A decoder process did not do its part: the server's own fault, for its log and not for a caller."""


class Kind(IntEnum):
    """What a message is. ``number`` in brackets."""

    READY = 1  # the process waits for an order
    CONFINED = 2  # it has shut itself in (Protection flags), and opens the media next
    NEED = 3  # it wants more of the media (how much at most)
    INFO = 4
    FRAME = 5  # a grey picture, width x height (its place among the frames)
    SAME_FRAME = 6  # the picture before stands for one frame more (its place)
    SOUND = 7  # int16 samples (its first sample's place)
    END = 8
    FAILED = 9  # it gives up, with a text (Failure)


class Failure(IntEnum):
    """Why a decoder gives up."""

    INVALID_MEDIA = 1
    OUT_OF_RANGE = 2
    MEMORY = 3
    INTERNAL = 4


@dataclass(frozen=True)
class Order:
    """What a decoder process is to do, and what it may use."""

    limits: MediaLimits
    pictures: bool
    sound: bool
    memory_bytes: int
    cpu_s: int
    live: bool = False

    def packed(self) -> bytes:
        """As it is sent."""
        limits = self.limits
        return ORDER.pack(
            limits.max_duration_s,
            limits.max_spooled_bytes,
            limits.max_frame_pixels,
            self.memory_bytes,
            self.cpu_s,
            self.pictures,
            self.sound,
            self.live,
        )

    @classmethod
    def unpacked(cls, data: bytes) -> Order:
        """As it was sent."""
        duration_s, spooled, pixels, memory_bytes, cpu_s, pictures, sound, live = ORDER.unpack(data)
        limits = MediaLimits(duration_s, spooled, pixels)
        return cls(limits, bool(pictures), bool(sound), memory_bytes, cpu_s, bool(live))


@dataclass(frozen=True)
class Header:
    """The start of a message from a decoder."""

    kind: Kind
    width: int = 0
    height: int = 0
    size: int = 0
    number: int = 0

    def packed(self) -> bytes:
        """As it is sent."""
        return HEADER.pack(
            MAGIC, VERSION, self.kind, self.width, self.height, 0, self.size, self.number
        )  # fmt: skip


def info_body(info: StreamInfo) -> bytes:
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
        info.gives_pictures,
        info.gives_sound,
    )


def end_body(end: TimelineEnd) -> bytes:
    """How it went, as it is sent."""
    return END.pack(end.frames, end.samples, end.broken_packets, end.leaps, end.truncated)


def text_of(body: bytes | memoryview) -> str:
    """A text without anything that could pass for more than one line of a log."""
    said = bytes(body).decode(errors="replace")
    return "".join(letter if letter.isprintable() else " " for letter in said)
