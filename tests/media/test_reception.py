"""What a decoder process says is believed only where it can be true, and never makes the server allocate much or hang."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_server.errors import InvalidMediaError, OutOfRangeError
from inference_server.media import wire
from inference_server.media.container import MediaLimits, StreamInfo
from inference_server.media.isolation import _Conversation
from inference_server.media.reception import Reception, checked_header
from inference_server.media.timeline import TimelineEnd
from inference_server.media.wire import HEADER, MAX_BODY_BYTES, DecoderError, Header, Kind, Order, text_of
from tests.media.decoders import piped

LIMITS = MediaLimits(max_duration_s=2.0)
ORDER = Order(LIMITS, pictures=True, sound=True, memory_bytes=2**30, cpu_s=60)
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
    gives_pictures=True,
    gives_sound=True,
)


class Speech:
    """A process that says what it is given, and remembers how much room was made for it at most."""

    def __init__(self, said: bytes) -> None:
        self._said, self.asked, self.most_room, self.taken = memoryview(said), 0, 0, 0

    def restart_clock(self) -> None:
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
    return header.packed() + body


def info_message(info: StreamInfo = INFO) -> bytes:
    return said(Header(Kind.INFO, size=wire.INFO.size), wire.info_body(info))


def frame(number: int, width: int = 4, height: int = 3) -> bytes:
    size = width * height
    return said(Header(Kind.FRAME, width, height, size, number), bytes(size))


def sound(start: int, samples: int = 10) -> bytes:
    return said(Header(Kind.SOUND, size=2 * samples, number=start), bytes(2 * samples))


def end(frames: int, samples: int) -> bytes:
    body = wire.end_body(TimelineEnd(frames, samples, 0, False, 0))
    return said(Header(Kind.END, size=len(body)), body)


def heard(data: bytes, order: Order = ORDER) -> list[object]:
    """The items in what a process says."""
    return list(_Conversation(Speech(data), piped(b"media"), order).items())  # type: ignore[arg-type]


def test_what_is_as_it_should_be_is_believed() -> None:
    same = said(Header(Kind.SAME_FRAME, number=1))
    items = heard(info_message() + frame(0) + sound(0) + same + frame(2) + sound(10, 16_000) + end(3, 16_010))
    assert items[0] == INFO
    assert items[-1] == TimelineEnd(3, 16_010, 0, False, 0)
    assert [type(item).__name__ for item in items[1:-1]] == [
        *("GreyFrame", "Waveform", "GreyFrame", "GreyFrame", "Waveform")
    ]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(0), id="a picture before the description"),
        pytest.param(end(0, 0), id="the end before the description"),
        pytest.param(info_message() * 2, id="two descriptions"),
        pytest.param(info_message() + frame(1), id="a picture that leaves one out"),
        pytest.param(info_message() + frame(0) + frame(0), id="a picture twice"),
        pytest.param(info_message() + frame(0) + frame(1, 5, 3), id="a picture of another size"),
        pytest.param(info_message() + frame(0, 1281, 1), id="a picture too wide"),
        pytest.param(info_message() + said(Header(Kind.FRAME, 0, 0, 0, 0)), id="a picture without pixels"),
        pytest.param(info_message() + said(Header(Kind.FRAME, 4, 3, 11, 0), bytes(11)), id="a pixel too few"),
        pytest.param(info_message() + said(Header(Kind.SAME_FRAME)), id="the same as nothing"),
        pytest.param(info_message() + sound(5), id="sound with a gap"),
        pytest.param(info_message() + sound(0, 16_001), id="too much sound at once"),
        pytest.param(info_message() + said(Header(Kind.SOUND, size=3), bytes(3)), id="half a sample"),
        pytest.param(info_message() + said(Header(Kind.SOUND)), id="no sound in sound"),
        pytest.param(info_message() + sound(0) + end(0, 11), id="an end with other samples"),
        pytest.param(info_message() + frame(0) + end(2, 0), id="an end with other frames"),
        pytest.param(said(Header(Kind.NEED, number=0)), id="a request for nothing"),
        pytest.param(said(Header(Kind.NEED, number=2**40)), id="a request for a terabyte"),
        pytest.param(said(Header(Kind.NEED, 7, 7, 0, 10)), id="a request with a width"),
        pytest.param(said(Header(Kind.READY)), id="ready again"),
        pytest.param(said(Header(Kind.CONFINED)), id="confined again"),
        pytest.param(said(Header(Kind.FAILED, number=99)), id="an unknown failure"),
        pytest.param(said(Header(Kind.FAILED, size=2001, number=1), bytes(2001)), id="a failure at length"),
        pytest.param(b"\0" * 24, id="zeros"),
        pytest.param(HEADER.pack(b"GDEC", 2, 3, 0, 0, 0, 0, 10), id="another version"),
        pytest.param(HEADER.pack(b"GDEC", 1, 77, 0, 0, 0, 0, 10), id="an unknown kind"),
        pytest.param(HEADER.pack(b"GDEC", 1, 3, 0, 0, 1, 0, 10), id="something where nothing belongs"),
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
        {"gives_pictures": False},
        {"gives_sound": False},
        {"video_codec": ""},
        {"audio_codec": ""},
    ],
)
def test_a_description_that_no_media_has_is_refused(changes: dict[str, object]) -> None:
    assert heard(info_message() + end(0, 0))
    with pytest.raises(DecoderError, match="a description that no media has"):
        heard(info_message(dataclasses.replace(INFO, **changes)) + end(0, 0))


def test_frames_and_sound_without_end_are_refused_at_the_limit() -> None:
    """Two seconds are allowed: the 52nd frame begins beyond them."""
    with pytest.raises(DecoderError, match="beyond the limit"):
        heard(info_message() + b"".join(frame(number) for number in range(60)))
    with pytest.raises(DecoderError, match="beyond the limit"):
        heard(info_message() + b"".join(sound(16_000 * number, 16_000) for number in range(9)))
    assert heard(info_message() + b"".join(frame(number) for number in range(51)) + end(51, 0))


def test_pictures_are_refused_where_only_sound_was_asked_for() -> None:
    order = dataclasses.replace(ORDER, pictures=False)
    info = info_message(dataclasses.replace(INFO, gives_pictures=False))
    assert heard(info + sound(0) + end(0, 10), order)
    with pytest.raises(DecoderError, match="a picture where there are none"):
        heard(info + frame(0), order)


def test_a_text_stays_one_line() -> None:
    assert text_of(b"a\nrequest 7 refused: \x1b[2J\xff\0 end") == "a request 7 refused:  [2J\ufffd  end"


def test_an_order_arrives_as_it_was_sent() -> None:
    order = Order(MediaLimits(12.5, 2**31, 4096 * 2304), False, True, 2**40, 99)
    assert Order.unpacked(order.packed()) == order


kinds = st.one_of(st.sampled_from(list(Kind)), st.integers(0, 255))
sizes = st.one_of(st.integers(0, 64), st.sampled_from([0xFFFF, 2**31, 2**32 - 1, 1280 * 1280, 32_000]))
hostile_headers = st.one_of(
    st.binary(min_size=24, max_size=24),
    st.builds(
        lambda kind, width, height, nothing, size, number: HEADER.pack(
            wire.MAGIC, wire.VERSION, kind, width, height, nothing, size, number
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
    for check in (checked_header, Reception(ORDER).header):
        with contextlib.suppress(DecoderError):
            header = check(data)
            assert header.size <= MAX_BODY_BYTES
            assert header.packed() == data


plausible = st.one_of(
    st.just(info_message()),
    st.builds(frame, st.integers(0, 3), st.integers(1, 5), st.integers(1, 5)),
    st.builds(sound, st.sampled_from([0, 10, 20]), st.integers(1, 10)),
    st.builds(lambda number: said(Header(Kind.SAME_FRAME, number=number)), st.integers(0, 3)),
    st.builds(lambda number: said(Header(Kind.NEED, number=number)), st.integers(0, 10)),
    st.builds(
        lambda number, text: said(Header(Kind.FAILED, size=len(text), number=number), text),
        st.integers(0, 5),
        st.binary(max_size=30),
    ),
    st.builds(end, st.integers(0, 3), st.integers(0, 30)),
    st.binary(min_size=wire.INFO.size, max_size=wire.INFO.size).map(
        lambda body: said(Header(Kind.INFO, size=len(body)), body)
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
    conversation = _Conversation(speech, piped(b"media" * 20), ORDER)  # type: ignore[arg-type]
    try:
        items = list(conversation.items())
    except (DecoderError, EOFError, InvalidMediaError, OutOfRangeError):
        pass
    else:
        assert isinstance(items[-1], TimelineEnd)
    assert speech.most_room <= MAX_BODY_BYTES
    assert speech.taken <= 100 + struct.calcsize("<I") * len(data)
