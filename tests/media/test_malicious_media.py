"""Damaged and forged clips: they never hang or crash, and fail with documented errors only."""

from __future__ import annotations

import functools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gorggle_server.errors import InvalidMediaError, OutOfRangeError
from gorggle_server.media.demuxer import decode
from gorggle_server.media.resampling import EndOfStream, resample
from gorggle_server.recognition_options import MediaLimits
from tests.media.samples import Pieces, clip

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

damage = st.lists(
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


def damaged(data: bytes, changes: list[tuple[str, float, int]]) -> bytes:
    spoiled = bytearray(data)
    for kind, place, value in changes:
        at = int(place) if kind == "head" else int(place * max(len(spoiled) - 1, 0))
        if at >= len(spoiled):
            continue
        if kind == "flip":
            spoiled[at] ^= value
        elif kind == "head":
            spoiled[at] = value
        elif kind == "number":
            spoiled[at : at + 4] = value.to_bytes(4)
        elif kind == "cut":
            del spoiled[at:]
        elif kind == "drop":
            del spoiled[at : at + value]
        elif kind == "repeat":
            spoiled[at:at] = spoiled[at : at + value]
    return bytes(spoiled)


def refused_or_decoded(data: bytes) -> None:
    """Decode to the end, grey images included, for they too are FFmpeg's work; any other error is the test's."""
    try:
        *_, last = resample(decode(Pieces(data, 4096), LIMITS), LIMITS)
    except (InvalidMediaError, OutOfRangeError) as error:
        message = str(error)
    else:
        assert isinstance(last, EndOfStream)
        return
    assert len(message) > 30


@pytest.mark.parametrize("name", CLIPS)
@settings(max_examples=60, deadline=20_000, suppress_health_check=[HealthCheck.too_slow])
@given(changes=damage)
def test_a_damaged_clip_is_decoded_or_refused(name: str, changes: list[tuple[str, float, int]]) -> None:
    refused_or_decoded(damaged(CLIPS[name](), changes))


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_cut_anywhere_is_decoded_or_refused(name: str) -> None:
    data = CLIPS[name]()
    for part in range(1, 40):
        refused_or_decoded(data[: len(data) * part // 40])


@settings(max_examples=100, deadline=20_000)
@given(
    st.binary(max_size=3000),
    st.sampled_from(
        [b"", b"\x1aE\xdf\xa3", b"G", b"ID3", b"RIFF", b"OggS", b"\0\0\0\x18ftypisom", b"FLV\1\5"]
    ),
)
def test_any_bytes_are_decoded_or_refused(data: bytes, start: bytes) -> None:
    refused_or_decoded(start + data)
