"""Demuxing and decoding of containers and codecs from a byte stream."""

from __future__ import annotations

import functools
import struct

import numpy as np
import pytest

from gorggle_server.errors import InvalidMediaError, OutOfRangeError
from gorggle_server.media import input_source
from gorggle_server.media.audio_resampler import AudioSamples
from gorggle_server.media.demuxer import MediaEnd, StreamInfo, decode
from gorggle_server.media.packet_decoders import VideoFrame
from gorggle_server.recognition_options import MediaLimits
from tests.media.samples import (
    BURSTS_S,
    LIMITS,
    ChunkedReader,
    DecodedClip,
    clip,
    find_onsets_s,
    numbered_image,
)

INDEX_FIRST = (("movflags", "+faststart"),)
FRAGMENTED = (("movflags", "+frag_keyframe+empty_moov+default_base_moof"),)

CONTAINERS = {
    "MP4, index at the end": functools.partial(clip),
    "MP4, index first": functools.partial(clip, options=INDEX_FIRST),
    "MP4, fragmented": functools.partial(clip, options=FRAGMENTED),
    "MP4, H.265 and ALAC": functools.partial(clip, "mov", "libx265", "alac", options=INDEX_FIRST),
    "WebM, VP9 and Opus": functools.partial(clip, "webm", "libvpx-vp9", "libopus"),
    "WebM, VP8 and Opus": functools.partial(clip, "webm", "libvpx", "libopus"),
    "WebM, live": functools.partial(clip, "webm", "libvpx-vp9", "libopus", options=(("live", "1"),)),
    "Matroska": functools.partial(clip, "matroska", "libx264", "flac"),
    "MPEG-TS": functools.partial(clip, "mpegts", "libx264", "aac"),
    "MPEG-PS": functools.partial(clip, "mpeg", "mpeg2video", "mp2"),
    "AVI": functools.partial(clip, "avi", "mpeg4", "mp3"),
    "FLV": functools.partial(clip, "flv", "flv", "mp3"),
    "ASF": functools.partial(clip, "asf", "msmpeg4", "mp3"),
}


def read_stream_info(data: bytes, **limits: float) -> StreamInfo:
    """Return the stream info, which is the first item of a decoded clip."""
    first = next(decode(ChunkedReader(data), MediaLimits(**limits)))
    assert isinstance(first, StreamInfo)
    return first


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_yields_the_same_frames_and_audio(name: str) -> None:
    decoded = DecodedClip(CONTAINERS[name]())
    assert len(decoded.numbers) == pytest.approx(50, abs=2)
    shift = next(number for number in range(3) if decoded.numbers[10] == 10 - number)
    assert decoded.numbers[5:45] == list(range(5 - shift, 45 - shift))
    assert find_onsets_s(decoded.waveform) == pytest.approx(
        [time_s + shift / 25 for time_s in BURSTS_S], abs=0.03
    )
    assert max(decoded.end.frames / 25, decoded.end.samples / 16_000) == pytest.approx(2, abs=0.09)
    assert (decoded.end.broken_packets, decoded.end.truncated) == (0, False)


@pytest.mark.parametrize("chunk", [64, 1000, 65_536])
@pytest.mark.parametrize(
    "name",
    ["MP4, index at the end", "MP4, index first", "MP4, fragmented", "WebM, live", "MPEG-TS", "MPEG-PS"],
)
def test_chunk_size_does_not_change_results(name: str, chunk: int) -> None:
    data = CONTAINERS[name]()
    expected, chunked = DecodedClip(data), DecodedClip(data, chunk)
    assert chunked.info == expected.info
    assert chunked.end == expected.end
    np.testing.assert_array_equal(
        np.stack([frame.pixels for frame in chunked.frames]),
        np.stack([frame.pixels for frame in expected.frames]),
    )
    np.testing.assert_array_equal(chunked.waveform, expected.waveform)


@pytest.mark.parametrize("name", ["MP4, index first", "MP4, fragmented", "WebM, live", "Matroska", "MPEG-TS"])
def test_the_first_frame_is_decoded_before_the_end_of_input(name: str) -> None:
    build = CONTAINERS[name]
    data = build(noisy=True, duration_s=4.0)
    assert len(data) > 350_000
    reader = ChunkedReader(data, 4096)
    for item in decode(reader, LIMITS):
        if isinstance(item, VideoFrame):
            break
    assert reader.position < 200_000


def test_stream_info_describes_the_media() -> None:
    info = read_stream_info(CONTAINERS["MP4, index first"](rate=30))
    assert (info.container, info.video_codec, info.audio_codec) == ("mov,mp4,m4a,3gp,3g2,mj2", "h264", "aac")
    assert (info.width_px, info.height_px, info.rotation_degrees) == (320, 240, 0)
    assert info.frame_rate_hz == pytest.approx(30, rel=0.01)
    assert info.duration_s == pytest.approx(2, abs=0.05)
    assert info.has_video
    assert info.has_audio


def test_a_live_webm_recording_has_no_duration() -> None:
    assert read_stream_info(CONTAINERS["WebM, live"]()).duration_s is None


@pytest.mark.parametrize(("anticlockwise", "clockwise"), [(90, 270), (180, 180), (270, 90)])
@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_frames_are_rotated_according_to_metadata(container: str, anticlockwise: int, clockwise: int) -> None:
    decoded = DecodedClip(clip(container, rotation=anticlockwise, duration_s=0.4))
    assert decoded.numbers == list(range(10))
    assert decoded.frames[0].pixels.shape == (240, 320)
    assert (decoded.info.width_px, decoded.info.height_px) == (320, 240)
    assert decoded.info.rotation_degrees == clockwise


def test_a_phone_display_matrix_rotates_frames_clockwise() -> None:
    """Phones store portrait video in landscape with a display matrix: the left edge becomes the top edge."""
    data = bytearray(clip(duration_s=0.4, audio=None))
    start = data.index(b"tkhd") + 4 + 40
    width = 240
    data[start : start + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, width << 16, 0, 1 << 30)
    decoded = DecodedClip(bytes(data))
    assert decoded.info.rotation_degrees == 90
    image = decoded.frames[3].pixels
    assert image.shape == (320, 240)
    # The stored ramp is brighter towards the right.
    assert image[:20, 5:70].mean() < image[-20:, 5:70].mean() - 50


def test_a_video_without_audio_and_audio_without_video_are_decoded() -> None:
    video_only = DecodedClip(clip(audio=None))
    assert video_only.numbers == list(range(50))
    assert not video_only.info.has_audio
    assert video_only.end.samples == 0
    audio_only = DecodedClip(clip(video=None))
    assert not audio_only.info.has_video
    assert audio_only.end.frames == 0
    assert find_onsets_s(audio_only.waveform) == pytest.approx(BURSTS_S, abs=0.03)


@pytest.mark.parametrize(
    ("container", "codec"),
    [("wav", "pcm_s16le"), ("ogg", "libopus"), ("mp3", "mp3"), ("flac", "flac"), ("adts", "aac")],
)
def test_audio_files_are_decoded(container: str, codec: str) -> None:
    decoded = DecodedClip(clip(container, None, codec), 777)
    assert find_onsets_s(decoded.waveform) == pytest.approx(BURSTS_S, abs=0.06)


def test_unrequested_streams_are_not_decoded() -> None:
    audio = DecodedClip(clip(), video=False)
    assert audio.info.has_video
    assert (audio.end.frames, audio.end.samples > 30_000, audio.end.truncated) == (0, True, False)
    video = DecodedClip(clip(), audio=False)
    assert video.info.has_audio
    assert (video.end.frames, video.end.samples) == (50, 0)


def test_an_empty_stream_is_rejected() -> None:
    with pytest.raises(InvalidMediaError, match="stream is empty"):
        next(decode(ChunkedReader(b""), LIMITS))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"Dear Sir or Madam, \r\n" * 900, "found text"),
        (bytes(100_000), "begin with 00 00"),
        (np.random.default_rng(0).bytes(300_000), "cannot be opened"),
        (b"\x89PNG\r\n\x1a\n" + bytes(500), "cannot be opened"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n", "found text"),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", "found text"),
        (b"\0\0\0\x08ftyp", "cannot be opened"),
    ],
)
def test_bytes_that_are_not_media_are_rejected_early(data: bytes, message: str) -> None:
    reader = ChunkedReader(data, 1000)
    with pytest.raises(InvalidMediaError, match=message):
        next(decode(reader, LIMITS))
    assert reader.position < 150_000


def test_a_file_truncated_before_its_index_is_rejected() -> None:
    with pytest.raises(InvalidMediaError, match="index is missing or damaged"):
        next(decode(ChunkedReader(clip()[:-3000]), LIMITS))


@pytest.mark.parametrize(
    "name", ["MP4, index first", "MP4, fragmented", "Matroska", "WebM, VP9 and Opus", "AVI"]
)
def test_a_truncated_file_is_partly_decoded_and_reported(name: str) -> None:
    data = CONTAINERS[name](duration_s=4.0)
    decoded = DecodedClip(data[: len(data) * 6 // 10])
    assert 20 < len(decoded.frames) < 80
    assert decoded.numbers[5:15] == list(range(5, 15)) or decoded.numbers[5:15] == list(range(4, 14))
    declared = decoded.info.duration_s
    assert decoded.end.truncated == (declared is not None and declared > 3)


def test_decoding_continues_after_broken_packets() -> None:
    data = bytearray(clip("mpegts", codec_options=(("preset", "ultrafast"), ("g", "5"))))
    rng = np.random.default_rng(4)
    for position in rng.integers(len(data) // 3, len(data) // 2, 40):
        data[position] ^= 0xFF
    decoded = DecodedClip(bytes(data))
    assert len(decoded.frames) > 40
    assert decoded.numbers[-8:] == list(range(decoded.numbers[-1] - 7, decoded.numbers[-1] + 1))


def test_media_without_a_decodable_frame_is_rejected() -> None:
    data = bytearray(clip(audio=None, options=INDEX_FIRST))
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    with pytest.raises(
        InvalidMediaError, match=r"nothing in the mov.* could be decoded: the frame size is 320x240"
    ):
        list(decode(ChunkedReader(bytes(data)), LIMITS))


def test_an_8k_video_is_rejected_before_decoding() -> None:
    data = clip(video="libx264", audio=None, size=(7680, 4320), duration_s=0.08)
    with pytest.raises(InvalidMediaError, match=r"7680x4320, 33\.2 megapixels; the limit is 9\.4"):
        next(decode(ChunkedReader(data), LIMITS))


def test_a_frame_size_above_the_limit_in_mid_stream_is_rejected() -> None:
    small = clip("mpegts", audio=None, duration_s=1.0)
    large = clip("mpegts", audio=None, duration_s=1.0, size=(1280, 720))
    limits = MediaLimits(max_frame_pixels=800 * 600)
    with pytest.raises(InvalidMediaError, match="1280x720"):
        list(decode(ChunkedReader(small + large), limits))


def test_frames_far_above_the_size_limit_are_not_decoded() -> None:
    small = clip("mpegts", audio=None, duration_s=1.0, size=(64, 48))
    large = clip("mpegts", audio=None, duration_s=1.0, size=(1280, 720))
    items = list(decode(ChunkedReader(small + large), MediaLimits(max_frame_pixels=64 * 48)))
    assert isinstance(items[-1], MediaEnd)
    assert items[-1].broken_packets > 0
    assert {item.decoded.width for item in items if isinstance(item, VideoFrame)} == {64}


def test_media_with_a_declared_duration_above_the_limit_is_rejected() -> None:
    with pytest.raises(OutOfRangeError, match=r"lasts 2\.0 s; the limit is 1\.5 s"):
        next(decode(ChunkedReader(clip()), MediaLimits(max_duration_s=1.5)))


def test_media_longer_than_the_limit_without_a_declared_duration_is_rejected() -> None:
    limits = MediaLimits(max_duration_s=1.5)
    with pytest.raises(OutOfRangeError, match="longer than the limit"):
        DecodedClip(CONTAINERS["WebM, live"](), limits=limits)


def test_an_unsupported_codec_is_named_in_the_error() -> None:
    with pytest.raises(InvalidMediaError, match="the video codec asv1"):
        next(decode(ChunkedReader(clip("avi", "asv1", None)), LIMITS))


def test_cover_art_is_not_decoded_as_video() -> None:
    decoded = DecodedClip(_make_mp3_with_cover_art())
    assert not decoded.info.has_video
    assert decoded.end.frames == 0
    assert find_onsets_s(decoded.waveform) == pytest.approx(BURSTS_S, abs=0.06)


def _make_mp3_with_cover_art() -> bytes:
    """Return an MP3 file with an image in its ID3 tag."""
    import cv2

    image = cv2.imencode(".jpg", numbered_image(7))[1].tobytes()
    body = b"\0image/jpeg\0\x03\0" + image
    frame = b"APIC" + len(body).to_bytes(4) + b"\0\0" + body
    size = len(frame)
    tag = b"ID3\x03\0\0" + bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0)) + frame
    data = clip("mp3", None, "mp3")
    return tag + data[data.index(b"\xff\xfb") :]


def test_a_file_above_the_spooling_limit_is_rejected() -> None:
    with pytest.raises(InvalidMediaError, match=r"longer than the limit of 5000 bytes.*faststart"):
        next(decode(ChunkedReader(clip()), MediaLimits(max_spooled_bytes=5000)))


def test_endless_bytes_without_a_packet_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forged sample size would make FFmpeg buffer gigabytes."""
    monkeypatch.setattr(input_source, "MAX_BYTES_BETWEEN_PACKETS", 200_000)
    data = clip(options=INDEX_FIRST, audio=None)
    sizes = data.index(b"stsz") + 16
    forged = data[:sizes] + (100_000_000).to_bytes(4) + data[sizes + 4 :] + bytes(2_000_000)
    reader = ChunkedReader(forged)
    with pytest.raises(InvalidMediaError, match="no complete packet"):
        list(decode(reader, LIMITS))
    assert reader.position < 1_000_000


def test_a_reader_error_during_decoding_is_propagated() -> None:
    class FailingReader(ChunkedReader):
        def read(self, size: int) -> bytes:
            if self.position > 30_000:
                raise ConnectionResetError("the client is gone")
            return super().read(size)

    with pytest.raises(ConnectionResetError, match="the client is gone"):
        list(decode(FailingReader(CONTAINERS["WebM, live"](noisy=True), 1000), LIMITS))
    assert DecodedClip(clip()).end.frames == 50  # the error does not affect the next stream on this thread


def test_a_reader_error_while_opening_the_media_is_propagated() -> None:
    class FailingReader(ChunkedReader):
        def read(self, size: int) -> bytes:
            if self.position > 2000:
                raise TimeoutError("nothing came")
            return super().read(size)

    with pytest.raises(TimeoutError, match="nothing came"):
        next(decode(FailingReader(CONTAINERS["WebM, live"](), 1000), LIMITS))


def test_a_decoder_can_be_closed_at_any_time() -> None:
    items = decode(ChunkedReader(clip()), LIMITS)
    next(items)
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert DecodedClip(clip()).end.frames == 50


def test_stream_info_is_not_delayed_by_audio_before_the_first_frame() -> None:
    data = clip("matroska", audio="libopus", video_delay_s=20.0, duration_s=24.0, rate=5)
    kinds = []
    for item in decode(ChunkedReader(data, 1000), LIMITS):
        kinds.append(type(item))
        if isinstance(item, VideoFrame):
            break
    assert kinds[0] is StreamInfo
    assert kinds.count(AudioSamples) > 256
