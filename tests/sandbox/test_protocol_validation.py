"""Validation of decoder messages: invalid ones are rejected without large allocations or hangs."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gorggle_server.errors import InvalidMediaError, OutOfRangeError
from gorggle_server.media.demuxer import StreamInfo
from gorggle_server.media.resampling import EndOfStream, Waveform
from gorggle_server.recognition_options import MediaLimits
from gorggle_server.sandbox import protocol
from gorggle_server.sandbox.decoding import _DecoderClient
from gorggle_server.sandbox.protocol import (
    HEADER,
    MAX_BODY_BYTES,
    DecodeJob,
    DecoderError,
    Header,
    MessageType,
    decode_text,
)
from gorggle_server.sandbox.protocol_validation import ProtocolValidator, parse_header
from gorggle_server.vision.mouth_cropper import MouthCrop
from gorggle_server.vision.mouth_tracker import FrameResult, MouthUpdate, NormalizedBox
from tests.sandbox.helpers import make_pipe

LIMITS = MediaLimits(max_duration_s=2.0)
JOB = DecodeJob(LIMITS, video=True, audio=True, memory_bytes=2**30, cpu_s=60)
INFO = StreamInfo(
    container="mov,mp4,m4a,3gp,3g2,mj2",
    video_codec="h264",
    audio_codec="aac",
    width_px=640,
    height_px=480,
    frame_rate_hz=29.97,
    duration_s=1.5,
    rotation_degrees=90,
    video_start_s=None,
    audio_start_s=-0.02,
    decodes_video=True,
    decodes_audio=True,
)


class FakeDecoderProcess:
    """Sends the given bytes; records the largest receive buffer and the number of bytes received."""

    def __init__(self, output: bytes) -> None:
        self._output, self.max_buffer_bytes, self.received_bytes = memoryview(output), 0, 0

    def reset_timeout(self) -> None:
        pass

    def receive(self, size: int) -> bytes:
        buffer = bytearray(size)
        self.receive_into(memoryview(buffer))
        return bytes(buffer)

    def receive_into(self, buffer: memoryview) -> None:
        self.max_buffer_bytes = max(self.max_buffer_bytes, len(buffer))
        if len(self._output) < len(buffer):
            raise EOFError
        buffer[:], self._output = self._output[: len(buffer)], self._output[len(buffer) :]

    def send(self, data: bytes) -> None:
        self.received_bytes += len(data)


def pack_message(header: Header, body: bytes = b"") -> bytes:
    return header.pack() + body


def info_message(info: StreamInfo = INFO) -> bytes:
    return pack_message(Header(MessageType.INFO, size=protocol.INFO.size), protocol.encode_info(info))


def frame_message(number: int, mouths: Sequence[MouthUpdate] = (), **fields: Any) -> bytes:
    messages = protocol.encode_frame_result(FrameResult(number, list(mouths), **fields))
    return b"".join(pack_message(header, body) for header, body in messages)


def last_frame_message(number: int, mouths: Sequence[MouthUpdate] = ()) -> bytes:
    return frame_message(number, mouths, is_last=True)


def make_mouth(
    person: int = 1, crops: Sequence[int] = (), speaking_count: int = 0, **fields: Any
) -> MouthUpdate:
    pixels = np.arange(96 * 96, dtype=np.uint8).reshape(96, 96)
    fields.setdefault("is_seen", True)
    return MouthUpdate(
        person,
        crops=[MouthCrop(index, pixels) for index in crops],
        speaking=[0.25] * speaking_count,
        **fields,
    )


def raw_mouth_message(*fields: float, rest: bytes = b"", person: int = 1) -> bytes:
    """Return a mouth message with these flags, counts and box."""
    flags, crops, probabilities, *box = fields
    body = protocol.MOUTH.pack(flags, crops, probabilities, 0, *box) + rest
    return pack_message(Header(MessageType.MOUTH, size=len(body), number=person), body)


def audio_message(start: int, samples: int = 10) -> bytes:
    return pack_message(Header(MessageType.AUDIO, size=2 * samples, number=start), bytes(2 * samples))


def end_message(frames: int, samples: int) -> bytes:
    body = protocol.encode_end(EndOfStream(frames, samples, 0, False))
    return pack_message(Header(MessageType.END, size=len(body)), body)


def read_items(data: bytes, job: DecodeJob = JOB) -> list[object]:
    """Return the items decoded from the messages of a process."""
    return list(_DecoderClient(FakeDecoderProcess(data), make_pipe(b"media"), job).items())  # type: ignore[arg-type]


def test_valid_messages_are_accepted() -> None:
    first = make_mouth(1, box=NormalizedBox(0.1, 0.2, 0.3, 0.4))
    second = make_mouth(1, [0, 1], 2, preview=np.full((96, 96), 7, np.uint8))
    left = make_mouth(1, [2], 1, is_seen=False, has_ended=True)
    items = read_items(
        info_message()
        + frame_message(0, [first, make_mouth(2)], faces=2, is_crowded=True, elapsed_s=0.125)
        + audio_message(0)
        + frame_message(1, [second])
        + frame_message(2)
        + audio_message(10, 16_000)
        + last_frame_message(3, [left])
        + end_message(3, 16_010)
    )
    assert items[0] == INFO
    assert items[-1] == EndOfStream(3, 16_010, 0, False)
    results = [item for item in items if isinstance(item, FrameResult)]
    assert [type(item) for item in items[1:-1]] == [
        FrameResult,
        Waveform,
        FrameResult,
        FrameResult,
        Waveform,
        FrameResult,
    ]
    assert [(result.index, result.faces, result.is_crowded, result.is_last) for result in results] == [
        (0, 2, True, False), (1, 0, False, False), (2, 0, False, False), (3, 0, False, True),
    ]  # fmt: skip
    assert results[0].elapsed_s == 0.125
    assert [update.person for update in results[0].mouths] == [1, 2]
    assert results[0].mouths[0].box == first.box
    (update,) = results[1].mouths
    assert (update.person, update.is_seen, update.speaking, update.box) == (1, True, [0.25, 0.25], None)
    for crop, sent in zip(update.crops, second.crops, strict=True):
        assert crop.frame_index == sent.frame_index
        np.testing.assert_array_equal(crop.pixels, sent.pixels)
    assert update.preview is not None
    assert (update.preview == 7).all()
    (gone,) = results[3].mouths
    assert (gone.is_seen, gone.has_ended, [crop.frame_index for crop in gone.crops]) == (False, True, [2])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame_message(0), id="a frame before the stream info"),
        pytest.param(end_message(0, 0), id="the end before the stream info"),
        pytest.param(info_message() * 2, id="stream info twice"),
        pytest.param(info_message() + frame_message(1), id="a skipped frame"),
        pytest.param(info_message() + frame_message(0) + frame_message(0), id="a repeated frame"),
        pytest.param(info_message() + frame_message(0, faces=5), id="more faces than the maximum"),
        pytest.param(
            info_message() + pack_message(Header(MessageType.FRAME, 0, 4, 8, 0), bytes(8)),
            id="an unknown flag",
        ),
        pytest.param(
            info_message() + pack_message(Header(MessageType.FRAME)), id="a frame without a processing time"
        ),
        pytest.param(info_message() + frame_message(0, elapsed_s=math.nan), id="a NaN processing time"),
        pytest.param(info_message() + frame_message(0, elapsed_s=-1.0), id="a negative processing time"),
        pytest.param(info_message() + last_frame_message(0) + frame_message(0), id="a frame after the last"),
        pytest.param(info_message() + last_frame_message(0) + last_frame_message(0), id="two last frames"),
        pytest.param(
            info_message() + last_frame_message(0, [make_mouth()]) + raw_mouth_message(1, 0, 0, 0, 0, 0, 0),
            id="a mouth after the last",
        ),
        pytest.param(raw_mouth_message(1, 0, 0, 0, 0, 0, 0), id="a mouth before the stream info"),
        pytest.param(info_message() + frame_message(0, [make_mouth(), make_mouth()]), id="a person twice"),
        pytest.param(info_message() + frame_message(0, [make_mouth(n) for n in range(1, 110)]), id="a crowd"),
        pytest.param(info_message() + frame_message(0, [make_mouth(0)]), id="person 0"),
        pytest.param(info_message() + frame_message(0, [make_mouth(1, identity=2)]), id="a later identity"),
        pytest.param(
            info_message()
            + frame_message(0, [make_mouth(3, identity=1)])
            + frame_message(1, [make_mouth(3, identity=2)]),
            id="a changed identity",
        ),
        pytest.param(
            info_message()
            + frame_message(0, [make_mouth(3, identity=1)])
            + frame_message(1, [make_mouth(3)]),
            id="a lost identity",
        ),
        pytest.param(
            info_message() + frame_message(0, [make_mouth(2**40)]), id="a person number beyond the limit"
        ),
        pytest.param(info_message() + frame_message(0, [make_mouth(1, [1])]), id="a crop of a future frame"),
        pytest.param(
            info_message() + frame_message(0) + frame_message(1, [make_mouth(1, [0])]),
            id="a crop from before the person appeared",
        ),
        pytest.param(info_message() + frame_message(0, [make_mouth(1, [0, 0])]), id="a crop twice"),
        pytest.param(
            info_message() + frame_message(0, [make_mouth(1, [0])]) + frame_message(1, [make_mouth(1, [0])]),
            id="a crop repeated in a later frame",
        ),
        pytest.param(
            info_message() + frame_message(0, [make_mouth(1, speaking_count=2)]),
            id="speech probabilities of future frames",
        ),
        pytest.param(
            info_message()
            + frame_message(0, [make_mouth(1, speaking_count=1)])
            + frame_message(1, [make_mouth(1, speaking_count=2)]),
            id="too many speech probabilities",
        ),
        pytest.param(
            info_message() + raw_mouth_message(16, 0, 0, 0, 0, 0, 0), id="an unknown flag of a mouth"
        ),
        pytest.param(
            info_message() + raw_mouth_message(1, 0, 1, 0, 0, 0, 0, rest=bytes(7)),
            id="a truncated speech probability",
        ),
        pytest.param(
            info_message() + raw_mouth_message(1, 0, 1, 0, 0, 0, 0, rest=struct.pack("<d", 1.5)),
            id="a speech probability above 1",
        ),
        pytest.param(
            info_message() + raw_mouth_message(1, 0, 1, 0, 0, 0, 0, rest=struct.pack("<d", math.nan)),
            id="a NaN speech probability",
        ),
        pytest.param(
            info_message() + raw_mouth_message(1, 1, 0, 0, 0, 0, 0, rest=bytes(8 + 9215)),
            id="a pixel too few",
        ),
        pytest.param(info_message() + raw_mouth_message(5, 0, 0, 0, 0, 0, 0), id="a missing preview"),
        pytest.param(
            info_message() + raw_mouth_message(9, 0, 0, math.nan, 0, 0, 0), id="a NaN face position"
        ),
        pytest.param(
            info_message() + raw_mouth_message(9, 0, 0, 0, 1e9, 0, 0), id="a face far outside the frame"
        ),
        pytest.param(
            info_message() + pack_message(Header(MessageType.MOUTH, size=5, number=1), bytes(5)),
            id="a truncated mouth",
        ),
        pytest.param(
            info_message() + last_frame_message(0, [make_mouth()])[:-32] + end_message(0, 0),
            id="a mouth without its frame",
        ),
        pytest.param(info_message() + end_message(0, 0), id="an end without the last frame"),
        pytest.param(info_message() + audio_message(5), id="audio with a gap"),
        pytest.param(info_message() + audio_message(0, 16_001), id="too much audio at once"),
        pytest.param(
            info_message() + pack_message(Header(MessageType.AUDIO, size=3), bytes(3)), id="half a sample"
        ),
        pytest.param(info_message() + pack_message(Header(MessageType.AUDIO)), id="an empty audio message"),
        pytest.param(
            info_message() + audio_message(0) + last_frame_message(0) + end_message(0, 11),
            id="an end with a wrong sample count",
        ),
        pytest.param(
            info_message() + frame_message(0) + last_frame_message(1) + end_message(2, 0),
            id="an end with a wrong frame count",
        ),
        pytest.param(pack_message(Header(MessageType.DATA_REQUEST, number=0)), id="a request for nothing"),
        pytest.param(
            pack_message(Header(MessageType.DATA_REQUEST, number=2**40)), id="a request for a terabyte"
        ),
        pytest.param(
            pack_message(Header(MessageType.DATA_REQUEST, 7, 7, 0, 10)), id="a request with a width"
        ),
        pytest.param(pack_message(Header(MessageType.READY)), id="a second ready message"),
        pytest.param(pack_message(Header(MessageType.SANDBOXED)), id="a second sandboxed message"),
        pytest.param(pack_message(Header(MessageType.FAILED, number=99)), id="an unknown failure"),
        pytest.param(
            pack_message(Header(MessageType.FAILED, size=2001, number=1), bytes(2001)),
            id="a failure with a long message",
        ),
        pytest.param(b"\0" * 24, id="zeros"),
        pytest.param(HEADER.pack(b"GDEC", 1, 3, 0, 0, 0, 0, 10), id="another version"),
        pytest.param(
            HEADER.pack(b"GDEC", protocol.VERSION, 77, 0, 0, 0, 0, 10), id="an unknown message type"
        ),
        pytest.param(
            HEADER.pack(b"GDEC", protocol.VERSION, 3, 0, 0, 1, 0, 10), id="a non-zero reserved field"
        ),
    ],
)
def test_invalid_messages_raise_decoder_error(data: bytes) -> None:
    with pytest.raises(DecoderError):
        read_items(data + frame_message(0) * 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"container": "passwd: root"},
        {"container": "mov,<script>"},
        {"container": "hls"},
        {"container": ""},
        {"video_codec": "secret"},
        {"audio_codec": "h264"},
        {"video_codec": "aac"},
        {"frame_rate_hz": math.inf},
        {"frame_rate_hz": math.nan},
        {"frame_rate_hz": -1.0},
        {"duration_s": math.inf},
        {"duration_s": 1e12},
        {"duration_s": -1.0},
        {"video_start_s": math.inf},
        {"audio_start_s": -math.inf},
        {"rotation_degrees": 45},
        {"decodes_video": False},
        {"decodes_audio": False},
        {"video_codec": ""},
        {"audio_codec": ""},
    ],
)
def test_an_invalid_stream_info_is_rejected(changes: dict[str, object]) -> None:
    assert read_items(info_message() + last_frame_message(0) + end_message(0, 0))
    with pytest.raises(DecoderError, match="an invalid description"):
        read_items(
            info_message(dataclasses.replace(INFO, **changes)) + last_frame_message(0) + end_message(0, 0)
        )


def test_frames_and_audio_beyond_the_duration_limit_are_rejected() -> None:
    """The limit is 2 s: the 52nd frame begins after it."""
    with pytest.raises(DecoderError, match="beyond the limit"):
        read_items(info_message() + b"".join(frame_message(number) for number in range(60)))
    with pytest.raises(DecoderError, match="beyond the limit"):
        read_items(info_message() + b"".join(audio_message(16_000 * number, 16_000) for number in range(9)))
    assert read_items(
        info_message()
        + b"".join(frame_message(number) for number in range(51))
        + last_frame_message(51)
        + end_message(51, 0)
    )


def test_frames_are_rejected_in_an_audio_only_job() -> None:
    job = dataclasses.replace(JOB, video=False)
    info = info_message(dataclasses.replace(INFO, decodes_video=False))
    assert read_items(info + audio_message(0) + end_message(0, 10), job)
    for message in (frame_message(0), frame_message(0, [make_mouth()]), last_frame_message(0)):
        with pytest.raises(DecoderError, match="in media without video"):
            read_items(info + message, job)


def test_decoded_text_has_no_control_characters() -> None:
    assert decode_text(b"a\nrequest 7 refused: \x1b[2J\xff\0 end") == "a request 7 refused:  [2J\ufffd  end"


def test_a_decode_job_round_trips() -> None:
    job = DecodeJob(MediaLimits(12.5, 2**31, 4096 * 2304), False, True, 2**40, 99, True, 7, False)
    assert DecodeJob.unpack(job.pack()) == job


message_types = st.one_of(st.sampled_from(list(MessageType)), st.integers(0, 255))
sizes = st.one_of(
    st.integers(0, 64),
    st.sampled_from([0xFFFF, 2**31, 2**32 - 1, 8, MAX_BODY_BYTES, MAX_BODY_BYTES + 1, 32_000]),
)
arbitrary_headers = st.one_of(
    st.binary(min_size=24, max_size=24),
    st.builds(
        lambda message_type, width, height, reserved, size, number: HEADER.pack(
            protocol.MAGIC, protocol.VERSION, message_type, width, height, reserved, size, number
        ),
        message_types,
        st.one_of(st.integers(0, 2000), st.just(0xFFFF)),
        st.one_of(st.integers(0, 2000), st.just(0xFFFF)),
        st.sampled_from([0, 0, 0, 1]),
        sizes,
        st.one_of(st.integers(0, 100), st.integers(0, 2**64 - 1)),
    ),
)


@settings(max_examples=500, deadline=None)
@given(arbitrary_headers)
def test_an_accepted_header_does_not_exceed_the_body_size_limit(data: bytes) -> None:
    for parse in (parse_header, ProtocolValidator(JOB).parse_header):
        with contextlib.suppress(DecoderError):
            header = parse(data)
            assert header.size <= MAX_BODY_BYTES
            assert header.pack() == data


plausible_messages = st.one_of(
    st.just(info_message()),
    st.builds(
        frame_message,
        st.integers(0, 3),
        st.lists(
            st.builds(
                make_mouth,
                st.integers(0, 3),
                st.lists(st.integers(-1, 3), max_size=3),
                st.integers(0, 3),
                is_seen=st.booleans(),
                has_ended=st.booleans(),
            ),
            max_size=3,
        ),
        faces=st.integers(0, 5),
        is_last=st.booleans(),
    ),
    st.binary(max_size=60).map(
        lambda body: pack_message(Header(MessageType.MOUTH, size=len(body), number=1), body)
    ),
    st.builds(audio_message, st.sampled_from([0, 10, 20]), st.integers(1, 10)),
    st.builds(
        lambda number: pack_message(Header(MessageType.DATA_REQUEST, number=number)), st.integers(0, 10)
    ),
    st.builds(
        lambda number, text: pack_message(Header(MessageType.FAILED, size=len(text), number=number), text),
        st.integers(0, 5),
        st.binary(max_size=30),
    ),
    st.builds(end_message, st.integers(0, 3), st.integers(0, 30)),
    st.binary(min_size=protocol.INFO.size, max_size=protocol.INFO.size).map(
        lambda body: pack_message(Header(MessageType.INFO, size=len(body)), body)
    ),
    st.binary(max_size=40),
    arbitrary_headers,
)


@settings(max_examples=500, deadline=5000)
@given(st.lists(plausible_messages, max_size=30).map(b"".join))
def test_arbitrary_messages_cause_no_hangs_or_unexpected_errors(
    data: bytes,
) -> None:
    process = FakeDecoderProcess(data)
    client = _DecoderClient(process, make_pipe(b"media" * 20), JOB)  # type: ignore[arg-type]
    try:
        items = list(client.items())
    except (DecoderError, EOFError, InvalidMediaError, OutOfRangeError):
        pass
    else:
        assert isinstance(items[-1], EndOfStream)
    assert process.max_buffer_bytes <= MAX_BODY_BYTES
    assert process.received_bytes <= 100 + struct.calcsize("<I") * len(data)
