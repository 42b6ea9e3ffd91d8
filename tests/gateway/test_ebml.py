"""Incremental parsing of live Matroska, and the media retained for replay."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gorggle_gateway.ebml import EbmlParser, MatroskaError
from gorggle_gateway.media_buffer import RetainedMedia
from gorggle_gateway.protocol import SessionError
from tests.gateway.recordings import decode_recording, make_recording

SIX_SECONDS = {"max_s": 6.0}


def parse(media: bytes, sizes: list[int]) -> tuple[EbmlParser, list]:
    parser, elements, at = EbmlParser(), [], 0
    for size in sizes:
        elements += parser.feed(media[at : at + size])
        at += size
    return parser, elements + parser.feed(media[at:])


@pytest.mark.parametrize("step", [1, 7, 1000, 1 << 20])
def test_parsing_does_not_depend_on_chunk_sizes(step: int) -> None:
    media = make_recording(max_s=2.0)
    parser, elements = parse(media, [step] * (len(media) // step))
    whole, expected = parse(media, [])
    assert [raw for _, raw in elements] == [raw for _, raw in expected]
    assert parser.header == whole.header
    assert media.startswith(b"".join(raw for _, raw in elements))


def test_clusters_have_start_timestamps_and_key_frame_flags() -> None:
    _, elements = parse(make_recording(**SIX_SECONDS), [])
    clusters = list({id(cluster): cluster for cluster, _ in elements if cluster is not None}.values())
    assert [round(cluster.start_s or 0) for cluster in clusters] == sorted(
        round(c.start_s or 0) for c in clusters
    )
    key_starts_s = [cluster.start_s for cluster in clusters if cluster.is_key]
    assert len(key_starts_s) >= 5
    for start_s in key_starts_s:
        assert abs(start_s - round(start_s)) < 0.05, "the recording has one key frame per second"


def test_every_cluster_of_an_audio_stream_is_a_start_point() -> None:
    _, elements = parse(make_recording(video=False, **SIX_SECONDS), [])
    key_flags = [cluster.is_key for cluster, _ in elements if cluster is not None]
    assert key_flags
    assert all(key_flags)


@pytest.mark.parametrize(
    "media",
    [
        b"<html><body>",
        b"\x00\x00\x00\x20ftypisom",
        b"\x1a\x45\xdf\xa3\xff\xff",
        b"RIFF1234WAVE",
        b"\x00" * 64,
    ],
)
def test_data_other_than_webm_is_refused(media: bytes) -> None:
    with pytest.raises(MatroskaError):
        EbmlParser().feed(media)


def test_an_oversized_element_is_refused_before_it_arrives() -> None:
    with pytest.raises(MatroskaError, match="1073741824 bytes"):
        EbmlParser().feed(b"\x1a\x45\xdf\xa3" + (1 << 30 | 1 << 56).to_bytes(8, "big"))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 2**32))
def test_damaged_data_is_parsed_or_raises_matroska_error(damage: bytes, seed: int) -> None:
    media = bytearray(make_recording(max_s=1.0)[:20_000])
    at = random.Random(seed).randrange(len(media))
    media[at : at + len(damage)] = damage
    parser = EbmlParser()
    try:
        for start in range(0, len(media), 997):
            parser.feed(bytes(media[start : start + 997]))
    except MatroskaError:
        pass


def test_unprocessed_media_is_replayed_from_a_key_frame() -> None:
    media = make_recording(**SIX_SECONDS)
    retained = RetainedMedia(max_bytes=1 << 30)
    retained.add(media)
    retained.discard_before(3.4)
    offset_s, replayed = retained.replay_from(3.4)
    assert 2.9 < offset_s <= 3.4
    timestamps_s, audio_s = decode_recording(b"".join(replayed))
    assert timestamps_s[0] == pytest.approx(offset_s, abs=0.05)
    assert timestamps_s[-1] == pytest.approx(5.96, abs=0.05)
    assert audio_s == pytest.approx(6.0 - offset_s, abs=0.1)
    assert sum(map(len, replayed)) < 0.7 * len(media), "processed media must not be retained"


def test_all_media_is_retained_until_some_is_processed() -> None:
    media = make_recording(**SIX_SECONDS)
    retained = RetainedMedia(max_bytes=1 << 30)
    sent = b"".join(retained.add(media))
    offset_s, replayed = retained.replay_from(0.0)
    assert offset_s == 0.0
    assert b"".join(replayed) == sent


def test_the_retained_media_is_bounded() -> None:
    retained = RetainedMedia(max_bytes=100_000)
    with pytest.raises(SessionError, match="cannot keep up"):
        retained.add(make_recording(**SIX_SECONDS))
