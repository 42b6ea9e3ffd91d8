"""Checks what a decoder process says before it is believed, and before anything is allocated for it.

Once the process has opened a stranger's file its word is a stranger's word. What it may say is narrow: messages of known
kinds and sizes, frames and samples in order without a gap, names from our own lists, numbers that are finite.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from inference_server.media.container import StreamInfo
from inference_server.media.formats import AUDIO_CODECS, CONTAINERS, VIDEO_CODECS
from inference_server.media.pictures import WORKING_SIDE_PX
from inference_server.media.sound import SAMPLE_RATE_HZ
from inference_server.media.timeline import (
    FRAME_RATE_HZ,
    PIECE_SAMPLES,
    ROUNDING_S,
    GreyFrame,
    Timed,
    TimelineEnd,
    Waveform,
)
from inference_server.media.wire import (
    END,
    HEADER,
    INFO,
    MAGIC,
    MAX_BODY_BYTES,
    MAX_REQUEST_BYTES,
    MAX_TEXT_BYTES,
    VERSION,
    DecoderError,
    Header,
    Kind,
    Order,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Reception:
    """Checks what a decoder says against what it may say at this point of its order, and keeps count.

    Raises:
        DecoderError: it says anything else.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._info: StreamInfo | None = None
        self._picture: NDArray[np.uint8] | None = None
        self.frames = 0
        self.samples = 0

    def header(self, data: bytes) -> Header:
        """The header of the next message: its body is at most ``MAX_BODY_BYTES`` long."""
        header = checked_header(data)
        match header.kind:
            case Kind.NEED if not 1 <= header.number <= MAX_REQUEST_BYTES or header.size:
                _refuse(f"a request for {header.number} bytes")
            case Kind.NEED | Kind.FAILED:
                pass
            case Kind.INFO if self._info is not None:
                _refuse("a second description of the media")
            case Kind.INFO:
                _expect(header.size, INFO.size, "bytes of description")
            case Kind.FRAME | Kind.SAME_FRAME:
                self._check_frame(header)
            case Kind.SOUND:
                self._check_sound(header)
            case Kind.END if self._info is not None:
                _expect(header.size, END.size, "bytes of end")
            case _:
                _refuse(f"{header.kind.name} out of place")
        return header

    def item(self, header: Header, body: NDArray[np.uint8]) -> Timed:
        """The item that a checked header announced."""
        match header.kind:
            case Kind.INFO:
                self._info = _info_from(body.tobytes(), self._order)
                return self._info
            case Kind.FRAME:
                self._picture = body.reshape(header.height, header.width)
                return self._frame(self._picture)
            case Kind.SAME_FRAME if self._picture is not None:
                return self._frame(self._picture)
            case Kind.SOUND:
                start, self.samples = self.samples, self.samples + header.size // 2
                return Waveform(start, body.view("<i2").astype(np.int16, copy=False))
            case Kind.END:
                return self._end(body.tobytes())
        raise _fault(f"{header.kind.name} where an item is due")

    def _frame(self, picture: NDArray[np.uint8]) -> GreyFrame:
        self.frames += 1
        return GreyFrame(self.frames - 1, picture)

    def _check_frame(self, header: Header) -> None:
        if self._info is None or not self._info.gives_pictures:
            _refuse("a picture where there are none")
        _expect(header.number, self.frames, "as the picture's place")
        self._check_time(self.frames / FRAME_RATE_HZ)
        if header.kind is Kind.SAME_FRAME:
            if self._picture is None:
                _refuse("a picture like the one before the first")
            _expect(header.size, 0, "bytes of a picture that is known")
            return
        if not (1 <= header.width <= WORKING_SIDE_PX and 1 <= header.height <= WORKING_SIDE_PX):
            _refuse(f"a picture of {header.width}x{header.height}")
        _expect(header.size, header.width * header.height, "bytes of picture")
        if self._picture is not None and self._picture.shape != (header.height, header.width):
            _refuse("a picture of another size than the first")

    def _check_sound(self, header: Header) -> None:
        if self._info is None or not self._info.gives_sound:
            _refuse("sound where there is none")
        _expect(header.number, self.samples, "as the sound's place")
        self._check_time(self.samples / SAMPLE_RATE_HZ)
        if header.size % 2 or not 1 <= header.size // 2 <= PIECE_SAMPLES:
            _refuse(f"sound of {header.size} bytes")

    def _check_time(self, time_s: float) -> None:
        if time_s > self._order.limits.max_duration_s + ROUNDING_S:
            _refuse(f"media at {time_s:.2f} s, beyond the limit")

    def _end(self, body: bytes) -> TimelineEnd:
        frames, samples, broken_packets, leaps, truncated = END.unpack(body)
        _expect(frames, self.frames, "frames in all")
        _expect(samples, self.samples, "samples in all")
        return TimelineEnd(frames, samples, broken_packets, bool(truncated), leaps)


def checked_header(data: bytes) -> Header:
    """The header in 24 bytes.

    Raises:
        DecoderError: it is none, or its body would be larger than any may be.
    """
    magic, version, kind, width, height, nothing, size, number = HEADER.unpack(data)
    if magic != MAGIC or version != VERSION or nothing:
        _refuse(f"a header that begins with {data[:8].hex(' ')}")
    if kind not in Kind.__members__.values():
        _refuse(f"a message of the kind {kind}")
    header = Header(Kind(kind), width, height, size, number)
    limit = {
        Kind.INFO: INFO.size, Kind.FRAME: MAX_BODY_BYTES, Kind.SOUND: 2 * PIECE_SAMPLES,
        Kind.END: END.size, Kind.FAILED: MAX_TEXT_BYTES,
    }.get(header.kind, 0)  # fmt: skip
    if size > limit:
        _refuse(f"{header.kind.name} of {size} bytes")
    if header.kind is not Kind.FRAME and (width or height):
        _refuse(f"{header.kind.name} with a width and a height")
    return header


def _info_from(body: bytes, order: Order) -> StreamInfo:
    container, video, audio, width, height, rate_hz, *times, rotation, pictures, sound = INFO.unpack(body)
    names = [name.rstrip(b"\0").decode("ascii", "replace") for name in (container, video, audio)]
    duration_s, video_start_s, audio_start_s = (None if math.isnan(time_s) else time_s for time_s in times)
    info = StreamInfo(
        container=names[0],
        video_codec=names[1],
        audio_codec=names[2],
        width_px=width,
        height_px=height,
        frame_rate_hz=rate_hz,
        duration_s=duration_s,
        rotation_degrees=rotation,
        video_start_s=video_start_s,
        audio_start_s=audio_start_s,
        gives_pictures=bool(pictures),
        gives_sound=bool(sound),
    )
    if not _is_possible(info, order):
        _refuse("a description that no media has")
    return info


def _is_possible(info: StreamInfo, order: Order) -> bool:
    """Whether the names are of our lists (they go out to the caller) and the numbers are such."""
    times_s = [
        time_s for time_s in (info.duration_s, info.video_start_s, info.audio_start_s) if time_s is not None
    ]
    return (
        # FFmpeg gives some demuxers several names, all of letters and digits.
        not set(CONTAINERS).isdisjoint(info.container.split(","))
        and info.container.replace(",", "").isalnum()
        and info.video_codec in VIDEO_CODECS | {""}
        and info.audio_codec in AUDIO_CODECS | {""}
        and info.gives_pictures == (info.has_video and order.pictures)
        and info.gives_sound == (info.has_audio and order.sound)
        and info.rotation_degrees in {0, 90, 180, 270}
        and all(map(math.isfinite, [info.frame_rate_hz, *times_s]))
        and info.frame_rate_hz >= 0
        and 0 <= (info.duration_s or 0) <= order.limits.max_duration_s
    )


def _expect(found: int, expected: int, what: str) -> None:
    if found != expected:
        _refuse(f"{found} {what} instead of {expected}")


def _refuse(found: str) -> NoReturn:
    raise _fault(found)


def _fault(found: str) -> DecoderError:
    return DecoderError(f"the decoder process sent {found}: it was killed")
