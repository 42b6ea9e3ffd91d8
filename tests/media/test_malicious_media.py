"""Fuzzing with damaged and forged clips: decoding succeeds or raises a documented error, without hangs or crashes."""

from __future__ import annotations

import functools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gorggle_server.errors import InvalidMediaError, OutOfRangeError
from gorggle_server.media.demuxer import decode
from gorggle_server.media.resampling import EndOfStream, resample
from gorggle_server.recognition_options import MediaLimits
from tests.media.samples import ChunkedReader, clip

LIMITS = MediaLimits(max_duration_s=600.0, max_spooled_bytes=2**20, max_frame_pixels=1280 * 720)

CLIPS = {
    "MP4": functools.partial(clip, options=(("movflags", "+faststart"),)),
    "MP4, index at the end": clip,
    "MP4, fragmented": functools.partial(clip, options=(("movflags", "+frag_keyframe+empty_moov"),)),
    "WebM": functools.partial(clip, "webm", "libvpx-vp9", "libopus"),
    "MPEG-TS": functools.partial(clip, "mpegts"),
    "MPEG-PS": functools.partial(clip, "mpeg", "mpeg2video", "mp2"),
    "AVI": functools.partial(clip, "avi", "mpeg4", "mp3"),
    "FLV": functools.partial(clip, "flv", "flv", "mp3"),
    "Ogg": functools.partial(clip, "ogg", None, "libopus"),
    "MP3": functools.partial(clip, "mp3", None, "mp3"),
}

corruptions = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), st.floats(0, 1), st.integers(1, 255)),
        st.tuples(st.just("head"), st.integers(0, 1500), st.integers(0, 255)),
        st.tuples(
            st.just("number"),
            st.floats(0, 1),
            st.sampled_from([0, 1, 0x7F, 0x7FFFFFFF, 0x80000000, 2**32 - 1]),
        ),
        st.tuples(st.just("cut"), st.floats(0, 1), st.just(0)),
        st.tuples(st.just("drop"), st.floats(0, 1), st.integers(1, 3000)),
        st.tuples(st.just("repeat"), st.floats(0, 1), st.integers(1, 3000)),
    ),
    min_size=1,
    max_size=12,
)


def corrupt(data: bytes, changes: list[tuple[str, float, int]]) -> bytes:
    corrupted = bytearray(data)
    for kind, position, value in changes:
        index = int(position) if kind == "head" else int(position * max(len(corrupted) - 1, 0))
        if index >= len(corrupted):
            continue
        if kind == "flip":
            corrupted[index] ^= value
        elif kind == "head":
            corrupted[index] = value
        elif kind == "number":
            corrupted[index : index + 4] = value.to_bytes(4)
        elif kind == "cut":
            del corrupted[index:]
        elif kind == "drop":
            del corrupted[index : index + value]
        elif kind == "repeat":
            corrupted[index:index] = corrupted[index : index + value]
    return bytes(corrupted)


def decode_or_reject(data: bytes) -> None:
    """Decode to the end, including the conversion to greyscale; fail on undocumented errors."""
    try:
        *_, last = resample(decode(ChunkedReader(data, 4096), LIMITS), LIMITS)
    except (InvalidMediaError, OutOfRangeError) as error:
        message = str(error)
    else:
        assert isinstance(last, EndOfStream)
        return
    assert len(message) > 30


@pytest.mark.parametrize("name", CLIPS)
@settings(max_examples=60, deadline=20_000, suppress_health_check=[HealthCheck.too_slow])
@given(changes=corruptions)
def test_a_corrupted_clip_is_decoded_or_rejected(name: str, changes: list[tuple[str, float, int]]) -> None:
    decode_or_reject(corrupt(CLIPS[name](), changes))


@pytest.mark.parametrize("name", CLIPS)
def test_a_truncated_clip_is_decoded_or_rejected(name: str) -> None:
    data = CLIPS[name]()
    for part in range(1, 40):
        decode_or_reject(data[: len(data) * part // 40])


@settings(max_examples=100, deadline=20_000)
@given(
    st.binary(max_size=3000),
    st.sampled_from(
        [b"", b"\x1aE\xdf\xa3", b"G", b"ID3", b"RIFF", b"OggS", b"\0\0\0\x18ftypisom", b"FLV\1\5"]
    ),
)
def test_arbitrary_bytes_are_decoded_or_rejected(data: bytes, start: bytes) -> None:
    decode_or_reject(start + data)
