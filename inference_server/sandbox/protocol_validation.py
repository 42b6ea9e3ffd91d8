"""Validates the messages of a decoder process before memory is allocated for them.

A process that has opened untrusted media is itself untrusted. Only messages of known types and sizes are accepted, with
contiguous frames and samples, supported container and codec names, and finite numbers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from gorggle_server.input_format import FRAME_RATE_HZ, MOUTH_CROP_SIZE_PX, SAMPLE_RATE_HZ
from gorggle_server.media.demuxer import StreamInfo
from gorggle_server.media.formats import AUDIO_CODECS, CONTAINERS, VIDEO_CODECS
from gorggle_server.media.resampling import MAX_CHUNK_SAMPLES, ROUNDING_S, EndOfStream, Waveform
from gorggle_server.sandbox.protocol import (
    CROP_BYTES,
    END,
    FRAME,
    HEADER,
    INFO,
    MAGIC,
    MAX_BODY_BYTES,
    MAX_CROPS,
    MAX_MOUTHS_BYTES,
    MAX_PROBABILITIES,
    MAX_REQUEST_BYTES,
    MAX_TEXT_BYTES,
    MOUTH,
    VERSION,
    DecodeJob,
    DecoderError,
    FrameFlag,
    Header,
    MessageType,
    MouthFlag,
)
from gorggle_server.vision.mouth_cropper import MAX_ABSENCE_FRAMES, MouthCrop
from gorggle_server.vision.mouth_tracker import (
    MAX_NORMALIZED_OFFSET,
    FrameResult,
    MouthUpdate,
    NormalizedBox,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gorggle_server.vision.frame_stage import PipelineItem

# More people than any media can show.
MAX_PEOPLE = 2**31 - 1
# Longer than any frame can take: the decoder's timeout is some seconds.
MAX_FRAME_TIME_S = 3600.0


class _Person:
    """The state of one tracked face."""

    def __init__(self, begun: int) -> None:
        self.has_ended = False
        self.identity = 0
        self._begun, self._next_crop, self._probabilities = begun, begun, 0

    def add(self, crops: list[int], probabilities: int, frame: int) -> None:
        """Validate the crops and the number of probabilities of a frame."""
        for index in crops:
            if not self._next_crop <= index <= frame:
                _refuse(f"the crop of frame {index} with frame {frame}")
            self._next_crop = index + 1
        self._probabilities += probabilities
        if self._probabilities > frame - self._begun + 1:
            _refuse(
                f"{self._probabilities} probabilities of a mouth seen for {frame - self._begun + 1} frames"
            )


class ProtocolValidator:
    """Validates the sequence of messages of one job, and counts frames and samples.

    All methods raise ``DecoderError`` for an invalid message.
    """

    def __init__(self, job: DecodeJob) -> None:
        self._job = job
        self._info: StreamInfo | None = None
        self._mouths: list[MouthUpdate] = []  # of the next frame
        self._mouths_bytes = 0
        self._people: dict[int, _Person] = {}
        self._video_ended = False
        self.frames = 0
        self.samples = 0

    def parse_header(self, data: bytes) -> Header:
        """Parse the header of the next message, whose body is at most ``MAX_BODY_BYTES``."""
        header = parse_header(data)
        match header.kind:
            case MessageType.DATA_REQUEST if not 1 <= header.number <= MAX_REQUEST_BYTES or header.size:
                _refuse(f"a request for {header.number} bytes")
            case MessageType.DATA_REQUEST | MessageType.FAILED:
                pass
            case MessageType.INFO if self._info is not None:
                _refuse("a second description of the media")
            case MessageType.INFO:
                _expect(header.size, INFO.size, "bytes of description")
            case MessageType.FRAME:
                self._check_frame(header)
            case MessageType.MOUTH:
                self._check_mouth(header)
            case MessageType.AUDIO:
                self._check_audio(header)
            case MessageType.END if self._info is not None:
                _expect(header.size, END.size, "bytes of end")
            case _:
                _refuse(f"{header.kind.name} out of place")
        return header

    def parse_item(self, header: Header, body: NDArray[np.uint8]) -> PipelineItem | None:
        """Parse the body of a validated header; return None for a mouth, which is part of the next frame."""
        match header.kind:
            case MessageType.INFO:
                self._info = _parse_info(body.tobytes(), self._job)
                return self._info
            case MessageType.MOUTH:
                self._mouths.append(self._parse_mouth(header.number, body))
                return None
            case MessageType.FRAME:
                return self._parse_frame(header, body)
            case MessageType.AUDIO:
                start, self.samples = self.samples, self.samples + header.size // 2
                return Waveform(start, body.view("<i2").astype(np.int16, copy=False))
            case MessageType.END:
                return self._parse_end(body.tobytes())
        raise _protocol_error(f"{header.kind.name} instead of an item")

    def _parse_frame(self, header: Header, body: NDArray[np.uint8]) -> FrameResult:
        (elapsed_s,) = FRAME.unpack(body.data)
        if not 0 <= elapsed_s <= MAX_FRAME_TIME_S:
            _refuse(f"a frame that took {elapsed_s} s")
        mouths, self._mouths, self._mouths_bytes = self._mouths, [], 0
        self._people = {number: person for number, person in self._people.items() if not person.has_ended}
        self._video_ended = bool(header.height & FrameFlag.LAST)
        self.frames += not self._video_ended
        return FrameResult(
            index=header.number,
            mouths=mouths,
            faces=header.width,
            is_crowded=bool(header.height & FrameFlag.CROWDED),
            is_last=self._video_ended,
            elapsed_s=elapsed_s,
        )

    def _parse_mouth(self, number: int, body: NDArray[np.uint8]) -> MouthUpdate:
        flags, crops, probabilities, identity, *place = MOUTH.unpack_from(body.data)
        if flags > sum(MouthFlag) or crops > MAX_CROPS or probabilities > MAX_PROBABILITIES:
            _refuse(f"a mouth with {crops} crops, {probabilities} probabilities and flags {flags}")
        has_preview = bool(flags & MouthFlag.PREVIEW)
        size = MOUTH.size + 8 * probabilities + crops * (8 + CROP_BYTES) + has_preview * CROP_BYTES
        _expect(len(body), size, "bytes of mouth")
        rest = body[MOUTH.size + 8 * probabilities :]
        speaking = body[MOUTH.size :][: 8 * probabilities].view("<f8")
        indices = rest[: 8 * crops].view("<i8")
        pixels = rest[8 * crops :].reshape(-1, MOUTH_CROP_SIZE_PX, MOUTH_CROP_SIZE_PX)
        if not np.all((speaking >= 0) & (speaking <= 1)):
            _refuse("a probability outside 0 to 1")
        if not all(abs(share) <= MAX_NORMALIZED_OFFSET for share in place):
            _refuse(f"a face at {place}")
        person = self._people.setdefault(number, _Person(self.frames))
        person.add(indices.tolist(), probabilities, self.frames)
        if identity > number or person.identity not in {0, identity}:
            _refuse(f"identity {identity} of face {number}, which had identity {person.identity}")
        person.identity = identity
        person.has_ended = bool(flags & MouthFlag.ENDED)
        return MouthUpdate(
            number,
            is_seen=bool(flags & MouthFlag.SEEN),
            crops=list(map(MouthCrop, indices.tolist(), pixels)),
            speaking=speaking.tolist(),
            preview=pixels[-1] if has_preview else None,
            box=NormalizedBox(*place) if flags & MouthFlag.BOX else None,
            has_ended=person.has_ended,
            identity=identity or None,
        )

    def _check_frame(self, header: Header) -> None:
        self._check_video("a frame")
        _expect(header.number, self.frames, "as the frame's index")
        _expect(header.size, FRAME.size, "bytes of frame")
        if not header.height & FrameFlag.LAST:
            self._check_time(self.frames / FRAME_RATE_HZ)
        if header.width > self._job.max_faces or header.height > sum(FrameFlag):
            _refuse(f"a frame with {header.width} faces and flags {header.height}")

    def _check_mouth(self, header: Header) -> None:
        self._check_video("a mouth")
        # Tracks of absent faces are kept for a while.
        max_people = (MAX_ABSENCE_FRAMES + 2) * self._job.max_faces
        if header.number not in self._people and len(self._people) >= max_people:
            _refuse(f"more than {max_people} people at a time")
        if header.size < MOUTH.size or not 1 <= header.number <= MAX_PEOPLE:
            _refuse(f"a mouth of {header.size} bytes of person {header.number}")
        if any(mouth.person == header.number for mouth in self._mouths):
            _refuse(f"person {header.number} twice on a frame")
        self._mouths_bytes += header.size
        if self._mouths_bytes > MAX_MOUTHS_BYTES:
            _refuse(f"mouths of {self._mouths_bytes} bytes on a frame")

    def _check_video(self, what: str) -> None:
        if self._info is None or not self._info.decodes_video:
            _refuse(f"{what} in media without video")
        if self._video_ended:
            _refuse(f"{what} after the last")

    def _check_audio(self, header: Header) -> None:
        if self._info is None or not self._info.decodes_audio:
            _refuse("audio in media without audio")
        _expect(header.number, self.samples, "as the audio's position")
        self._check_time(self.samples / SAMPLE_RATE_HZ)
        if header.size % 2 or not 1 <= header.size // 2 <= MAX_CHUNK_SAMPLES:
            _refuse(f"audio of {header.size} bytes")

    def _check_time(self, time_s: float) -> None:
        if time_s > self._job.limits.max_duration_s + ROUNDING_S:
            _refuse(f"media at {time_s:.2f} s, beyond the limit")

    def _parse_end(self, body: bytes) -> EndOfStream:
        frames, samples, broken_packets, truncated = END.unpack(body)
        _expect(frames, self.frames, "frames in all")
        _expect(samples, self.samples, "samples in all")
        if self._mouths or (self._info is not None and self._info.decodes_video and not self._video_ended):
            _refuse("the end before the last frame")
        return EndOfStream(frames, samples, broken_packets, bool(truncated))


def parse_header(data: bytes) -> Header:
    """Parse a header of 24 bytes.

    Raises:
        DecoderError: it is invalid, or its body is too large.
    """
    magic, version, kind, width, height, nothing, size, number = HEADER.unpack(data)
    if magic != MAGIC or version != VERSION or nothing:
        _refuse(f"a header that begins with {data[:8].hex(' ')}")
    if kind not in MessageType.__members__.values():
        _refuse(f"a message of the kind {kind}")
    header = Header(MessageType(kind), width, height, size, number)
    limit = {
        MessageType.INFO: INFO.size, MessageType.FRAME: FRAME.size, MessageType.MOUTH: MAX_BODY_BYTES, MessageType.AUDIO: 2 * MAX_CHUNK_SAMPLES,
        MessageType.END: END.size, MessageType.FAILED: MAX_TEXT_BYTES,
    }.get(header.kind, 0)  # fmt: skip
    if size > limit:
        _refuse(f"{header.kind.name} of {size} bytes")
    if header.kind is not MessageType.FRAME and (width or height):
        _refuse(f"{header.kind.name} with a width and a height")
    return header


def _parse_info(body: bytes, job: DecodeJob) -> StreamInfo:
    container, video, audio, width, height, rate_hz, *times, rotation, decodes_video, decodes_audio = (
        INFO.unpack(body)
    )
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
        decodes_video=bool(decodes_video),
        decodes_audio=bool(decodes_audio),
    )
    if not _is_valid_info(info, job):
        _refuse("an invalid description of the media")
    return info


def _is_valid_info(info: StreamInfo, job: DecodeJob) -> bool:
    """Return whether the names are supported ones (they are sent to clients) and the numbers are valid."""
    times_s = [
        time_s for time_s in (info.duration_s, info.video_start_s, info.audio_start_s) if time_s is not None
    ]
    return (
        # FFmpeg gives some demuxers several alphanumeric names.
        not set(CONTAINERS).isdisjoint(info.container.split(","))
        and info.container.replace(",", "").isalnum()
        and info.video_codec in VIDEO_CODECS | {""}
        and info.audio_codec in AUDIO_CODECS | {""}
        and info.decodes_video == (info.has_video and job.video)
        and info.decodes_audio == (info.has_audio and job.audio)
        and info.rotation_degrees in {0, 90, 180, 270}
        and all(map(math.isfinite, [info.frame_rate_hz, *times_s]))
        and info.frame_rate_hz >= 0
        and 0 <= (info.duration_s or 0) <= job.limits.max_duration_s
    )


def _expect(found: int, expected: int, what: str) -> None:
    if found != expected:
        _refuse(f"{found} {what} instead of {expected}")


def _refuse(found: str) -> NoReturn:
    raise _protocol_error(found)


def _protocol_error(found: str) -> DecoderError:
    return DecoderError(f"the decoder process sent {found}: it was killed")
