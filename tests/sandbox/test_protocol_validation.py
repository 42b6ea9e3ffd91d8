"""Invalid messages of a decoder process are refused without large allocations or hangs."""

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
from tests.sandbox.helpers import piped

LIMITS = MediaLimits(max_duration_s=2.0)
ORDER = DecodeJob(LIMITS, video=True, audio=True, memory_bytes=2**30, cpu_s=60)
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


class Speech:
    """A fake process that sends given bytes and records the largest buffer."""

    def __init__(self, said: bytes) -> None:
        self._said, self.asked, self.most_room, self.taken = memoryview(said), 0, 0, 0

    def reset_timeout(self) -> None:
        pass

    def receive(self, size: int) -> bytes:
        room = bytearray(size)
        self.receive_into(memoryview(room))
        return bytes(room)

    def receive_into(self, room: memoryview) -> None:
        self.most_room = max(self.most_room, len(room))
        if len(self._said) < len(room):
            raise EOFError
        room[:], self._said = self._said[: len(room)], self._said[len(room) :]

    def send(self, data: bytes) -> None:
        self.taken += len(data)


def said(header: Header, body: bytes = b"") -> bytes:
    return header.pack() + body


def info_message(info: StreamInfo = INFO) -> bytes:
    return said(Header(MessageType.INFO, size=protocol.INFO.size), protocol.encode_info(info))


def frame(number: int, mouths: Sequence[MouthUpdate] = (), **more: Any) -> bytes:
    messages = protocol.encode_frame_result(FrameResult(number, list(mouths), **more))
    return b"".join(said(header, body) for header, body in messages)


def last(number: int, mouths: Sequence[MouthUpdate] = ()) -> bytes:
    return frame(number, mouths, is_last=True)


def mouth(person: int = 1, crops: Sequence[int] = (), judged: int = 0, **more: Any) -> MouthUpdate:
    pixels = np.arange(96 * 96, dtype=np.uint8).reshape(96, 96)
    more.setdefault("is_seen", True)
    return MouthUpdate(
        person, crops=[MouthCrop(index, pixels) for index in crops], speaking=[0.25] * judged, **more
    )


def raw_mouth(*fields: float, rest: bytes = b"", person: int = 1) -> bytes:
    """Return a mouth message with these flags, counts and box."""
    body = protocol.MOUTH.pack(*fields) + rest
    return said(Header(MessageType.MOUTH, size=len(body), number=person), body)


def audio(start: int, samples: int = 10) -> bytes:
    return said(Header(MessageType.AUDIO, size=2 * samples, number=start), bytes(2 * samples))


def end(frames: int, samples: int) -> bytes:
    body = protocol.encode_end(EndOfStream(frames, samples, 0, False))
    return said(Header(MessageType.END, size=len(body)), body)


def heard(data: bytes, order: DecodeJob = ORDER) -> list[object]:
    """Return the items in the messages of a process."""
    return list(_DecoderClient(Speech(data), piped(b"media"), order).items())  # type: ignore[arg-type]


def test_valid_messages_are_accepted() -> None:
    first = mouth(1, box=NormalizedBox(0.1, 0.2, 0.3, 0.4))
    second = mouth(1, [0, 1], 2, preview=np.full((96, 96), 7, np.uint8))
    left = mouth(1, [2], 1, is_seen=False, has_ended=True)
    items = heard(
        info_message()
        + frame(0, [first, mouth(2)], faces=2, is_crowded=True, elapsed_s=0.125)
        + audio(0)
        + frame(1, [second])
        + frame(2)
        + audio(10, 16_000)
        + last(3, [left])
        + end(3, 16_010)
    )
    assert items[0] == INFO
    assert items[-1] == EndOfStream(3, 16_010, 0, False)
    sights = [item for item in items if isinstance(item, FrameResult)]
    assert [type(item) for item in items[1:-1]] == [
        FrameResult,
        Waveform,
        FrameResult,
        FrameResult,
        Waveform,
        FrameResult,
    ]
    assert [(sight.index, sight.faces, sight.is_crowded, sight.is_last) for sight in sights] == [
        (0, 2, True, False), (1, 0, False, False), (2, 0, False, False), (3, 0, False, True),
    ]  # fmt: skip
    assert sights[0].elapsed_s == 0.125
    assert [news.person for news in sights[0].mouths] == [1, 2]
    assert sights[0].mouths[0].box == first.box
    (news,) = sights[1].mouths
    assert (news.person, news.is_seen, news.speaking, news.box) == (1, True, [0.25, 0.25], None)
    for crop, sent in zip(news.crops, second.crops, strict=True):
        assert crop.frame_index == sent.frame_index
        np.testing.assert_array_equal(crop.pixels, sent.pixels)
    assert news.preview is not None
    assert (news.preview == 7).all()
    (gone,) = sights[3].mouths
    assert (gone.is_seen, gone.has_ended, [crop.frame_index for crop in gone.crops]) == (False, True, [2])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(0), id="a image before the description"),
        pytest.param(end(0, 0), id="the end before the description"),
        pytest.param(info_message() * 2, id="two descriptions"),
        pytest.param(info_message() + frame(1), id="a image that leaves one out"),
        pytest.param(info_message() + frame(0) + frame(0), id="a image twice"),
        pytest.param(info_message() + frame(0, faces=5), id="more faces than are followed"),
        pytest.param(
            info_message() + said(Header(MessageType.FRAME, 0, 4, 8, 0), bytes(8)), id="an unknown flag"
        ),
        pytest.param(
            info_message() + said(Header(MessageType.FRAME)), id="a image that says not how long it took"
        ),
        pytest.param(info_message() + frame(0, elapsed_s=math.nan), id="a NaN processing time"),
        pytest.param(info_message() + frame(0, elapsed_s=-1.0), id="a negative processing time"),
        pytest.param(info_message() + last(0) + frame(0), id="a image after the last"),
        pytest.param(info_message() + last(0) + last(0), id="two last images"),
        pytest.param(
            info_message() + last(0, [mouth()]) + raw_mouth(1, 0, 0, 0, 0, 0, 0), id="a mouth after the last"
        ),
        pytest.param(raw_mouth(1, 0, 0, 0, 0, 0, 0), id="a mouth before the description"),
        pytest.param(info_message() + frame(0, [mouth(), mouth()]), id="a person twice"),
        pytest.param(info_message() + frame(0, [mouth(n) for n in range(1, 110)]), id="a crowd"),
        pytest.param(info_message() + frame(0, [mouth(0)]), id="person 0"),
        pytest.param(info_message() + frame(0, [mouth(2**40)]), id="a person of a great number"),
        pytest.param(info_message() + frame(0, [mouth(1, [1])]), id="a crop of a frame to come"),
        pytest.param(
            info_message() + frame(0) + frame(1, [mouth(1, [0])]), id="a crop before the person came"
        ),
        pytest.param(info_message() + frame(0, [mouth(1, [0, 0])]), id="a crop twice"),
        pytest.param(
            info_message() + frame(0, [mouth(1, [0])]) + frame(1, [mouth(1, [0])]), id="a crop again"
        ),
        pytest.param(info_message() + frame(0, [mouth(1, judged=2)]), id="judgements of frames to come"),
        pytest.param(
            info_message() + frame(0, [mouth(1, judged=1)]) + frame(1, [mouth(1, judged=2)]), id="too many"
        ),
        pytest.param(info_message() + raw_mouth(16, 0, 0, 0, 0, 0, 0), id="an unknown flag of a mouth"),
        pytest.param(info_message() + raw_mouth(1, 0, 1, 0, 0, 0, 0, rest=bytes(7)), id="half a judgement"),
        pytest.param(
            info_message() + raw_mouth(1, 0, 1, 0, 0, 0, 0, rest=struct.pack("<d", 1.5)), id="surer than sure"
        ),
        pytest.param(
            info_message() + raw_mouth(1, 0, 1, 0, 0, 0, 0, rest=struct.pack("<d", math.nan)), id="no number"
        ),
        pytest.param(
            info_message() + raw_mouth(1, 1, 0, 0, 0, 0, 0, rest=bytes(8 + 9215)), id="a pixel too few"
        ),
        pytest.param(info_message() + raw_mouth(5, 0, 0, 0, 0, 0, 0), id="a missing preview"),
        pytest.param(info_message() + raw_mouth(9, 0, 0, math.nan, 0, 0, 0), id="a face that is nowhere"),
        pytest.param(info_message() + raw_mouth(9, 0, 0, 0, 1e9, 0, 0), id="a face far away"),
        pytest.param(
            info_message() + said(Header(MessageType.MOUTH, size=5, number=1), bytes(5)),
            id="a piece of a mouth",
        ),
        pytest.param(info_message() + last(0, [mouth()])[:-32] + end(0, 0), id="a mouth without its frame"),
        pytest.param(info_message() + end(0, 0), id="an end without the last image"),
        pytest.param(info_message() + audio(5), id="audio with a gap"),
        pytest.param(info_message() + audio(0, 16_001), id="too much audio at once"),
        pytest.param(info_message() + said(Header(MessageType.AUDIO, size=3), bytes(3)), id="half a sample"),
        pytest.param(info_message() + said(Header(MessageType.AUDIO)), id="no audio in audio"),
        pytest.param(info_message() + audio(0) + last(0) + end(0, 11), id="an end with other samples"),
        pytest.param(info_message() + frame(0) + last(1) + end(2, 0), id="an end with other frames"),
        pytest.param(said(Header(MessageType.DATA_REQUEST, number=0)), id="a request for nothing"),
        pytest.param(said(Header(MessageType.DATA_REQUEST, number=2**40)), id="a request for a terabyte"),
        pytest.param(said(Header(MessageType.DATA_REQUEST, 7, 7, 0, 10)), id="a request with a width"),
        pytest.param(said(Header(MessageType.READY)), id="ready again"),
        pytest.param(said(Header(MessageType.SANDBOXED)), id="confined again"),
        pytest.param(said(Header(MessageType.FAILED, number=99)), id="an unknown failure"),
        pytest.param(
            said(Header(MessageType.FAILED, size=2001, number=1), bytes(2001)), id="a failure at length"
        ),
        pytest.param(b"\0" * 24, id="zeros"),
        pytest.param(HEADER.pack(b"GDEC", 1, 3, 0, 0, 0, 0, 10), id="another version"),
        pytest.param(HEADER.pack(b"GDEC", protocol.VERSION, 77, 0, 0, 0, 0, 10), id="an unknown kind"),
        pytest.param(
            HEADER.pack(b"GDEC", protocol.VERSION, 3, 0, 0, 1, 0, 10), id="something where nothing belongs"
        ),
    ],
)
def test_what_cannot_be_is_an_internal_error(data: bytes) -> None:
    with pytest.raises(DecoderError):
        heard(data + frame(0) * 2)


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
def test_a_description_that_no_media_has_is_refused(changes: dict[str, object]) -> None:
    assert heard(info_message() + last(0) + end(0, 0))
    with pytest.raises(DecoderError, match="an invalid description"):
        heard(info_message(dataclasses.replace(INFO, **changes)) + last(0) + end(0, 0))


def test_frames_and_audio_without_end_are_refused_at_the_limit() -> None:
    """The limit is 2 s: the 52nd frame begins after it."""
    with pytest.raises(DecoderError, match="beyond the limit"):
        heard(info_message() + b"".join(frame(number) for number in range(60)))
    with pytest.raises(DecoderError, match="beyond the limit"):
        heard(info_message() + b"".join(audio(16_000 * number, 16_000) for number in range(9)))
    assert heard(info_message() + b"".join(frame(number) for number in range(51)) + last(51) + end(51, 0))


def test_images_are_refused_where_only_audio_was_asked_for() -> None:
    order = dataclasses.replace(ORDER, video=False)
    info = info_message(dataclasses.replace(INFO, decodes_video=False))
    assert heard(info + audio(0) + end(0, 10), order)
    for image in (frame(0), frame(0, [mouth()]), last(0)):
        with pytest.raises(DecoderError, match="in media without video"):
            heard(info + image, order)


def test_a_text_stays_one_line() -> None:
    assert decode_text(b"a\nrequest 7 refused: \x1b[2J\xff\0 end") == "a request 7 refused:  [2J\ufffd  end"


def test_an_order_arrives_as_it_was_sent() -> None:
    order = DecodeJob(MediaLimits(12.5, 2**31, 4096 * 2304), False, True, 2**40, 99, True, 7)
    assert DecodeJob.unpack(order.pack()) == order


kinds = st.one_of(st.sampled_from(list(MessageType)), st.integers(0, 255))
sizes = st.one_of(
    st.integers(0, 64),
    st.sampled_from([0xFFFF, 2**31, 2**32 - 1, 8, MAX_BODY_BYTES, MAX_BODY_BYTES + 1, 32_000]),
)
hostile_headers = st.one_of(
    st.binary(min_size=24, max_size=24),
    st.builds(
        lambda kind, width, height, nothing, size, number: HEADER.pack(
            protocol.MAGIC, protocol.VERSION, kind, width, height, nothing, size, number
        ),
        kinds,
        st.one_of(st.integers(0, 2000), st.just(0xFFFF)),
        st.one_of(st.integers(0, 2000), st.just(0xFFFF)),
        st.sampled_from([0, 0, 0, 1]),
        sizes,
        st.one_of(st.integers(0, 100), st.integers(0, 2**64 - 1)),
    ),
)


@settings(max_examples=500, deadline=None)
@given(hostile_headers)
def test_a_header_that_is_believed_never_announces_more_than_the_limit(data: bytes) -> None:
    for check in (parse_header, ProtocolValidator(ORDER).parse_header):
        with contextlib.suppress(DecoderError):
            header = check(data)
            assert header.size <= MAX_BODY_BYTES
            assert header.pack() == data


plausible = st.one_of(
    st.just(info_message()),
    st.builds(
        frame,
        st.integers(0, 3),
        st.lists(
            st.builds(
                mouth,
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
    st.binary(max_size=60).map(lambda body: said(Header(MessageType.MOUTH, size=len(body), number=1), body)),
    st.builds(audio, st.sampled_from([0, 10, 20]), st.integers(1, 10)),
    st.builds(lambda number: said(Header(MessageType.DATA_REQUEST, number=number)), st.integers(0, 10)),
    st.builds(
        lambda number, text: said(Header(MessageType.FAILED, size=len(text), number=number), text),
        st.integers(0, 5),
        st.binary(max_size=30),
    ),
    st.builds(end, st.integers(0, 3), st.integers(0, 30)),
    st.binary(min_size=protocol.INFO.size, max_size=protocol.INFO.size).map(
        lambda body: said(Header(MessageType.INFO, size=len(body)), body)
    ),
    st.binary(max_size=40),
    hostile_headers,
)


@settings(max_examples=500, deadline=5000)
@given(st.lists(plausible, max_size=30).map(b"".join))
def test_a_hostile_process_neither_makes_the_server_allocate_nor_hang_nor_raise_anything_else(
    data: bytes,
) -> None:
    speech = Speech(data)
    conversation = _DecoderClient(speech, piped(b"media" * 20), ORDER)  # type: ignore[arg-type]
    try:
        items = list(conversation.items())
    except (DecoderError, EOFError, InvalidMediaError, OutOfRangeError):
        pass
    else:
        assert isinstance(items[-1], EndOfStream)
    assert speech.most_room <= MAX_BODY_BYTES
    assert speech.taken <= 100 + struct.calcsize("<I") * len(data)
