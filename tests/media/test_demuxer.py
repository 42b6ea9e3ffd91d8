"""Containers and codecs decoded from bytes as they come."""

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
from tests.media.samples import BURSTS_S, LIMITS, Pieces, Seen, clip, numbered_image, onsets_s

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


def infos(data: bytes, **limits: float) -> StreamInfo:
    """The first item of a clip."""
    first = next(decode(Pieces(data), MediaLimits(**limits)))
    assert isinstance(first, StreamInfo)
    return first


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_yields_the_same_frames_and_audio(name: str) -> None:
    seen = Seen(CONTAINERS[name]())
    assert len(seen.numbers) == pytest.approx(50, abs=2)
    shift = next(number for number in range(3) if seen.numbers[10] == 10 - number)
    assert seen.numbers[5:45] == list(range(5 - shift, 45 - shift))
    assert onsets_s(seen.waveform) == pytest.approx([time_s + shift / 25 for time_s in BURSTS_S], abs=0.03)
    assert max(seen.end.frames / 25, seen.end.samples / 16_000) == pytest.approx(2, abs=0.09)
    assert (seen.end.broken_packets, seen.end.truncated) == (0, False)


@pytest.mark.parametrize("chunk", [64, 1000, 65_536])
@pytest.mark.parametrize(
    "name",
    ["MP4, index at the end", "MP4, index first", "MP4, fragmented", "WebM, live", "MPEG-TS", "MPEG-PS"],
)
def test_the_size_of_the_pieces_changes_nothing(name: str, chunk: int) -> None:
    data = CONTAINERS[name]()
    whole, pieces = Seen(data), Seen(data, chunk)
    assert pieces.info == whole.info
    assert pieces.end == whole.end
    np.testing.assert_array_equal(
        np.stack([frame.pixels for frame in pieces.frames]),
        np.stack([frame.pixels for frame in whole.frames]),
    )
    np.testing.assert_array_equal(pieces.waveform, whole.waveform)


@pytest.mark.parametrize("name", ["MP4, index first", "MP4, fragmented", "WebM, live", "Matroska", "MPEG-TS"])
def test_the_first_image_comes_long_before_the_last_byte(name: str) -> None:
    build = CONTAINERS[name]
    data = build(noisy=True, duration_s=4.0)
    assert len(data) > 350_000
    reader = Pieces(data, 4096)
    for item in decode(reader, LIMITS):
        if isinstance(item, VideoFrame):
            break
    assert reader.position < 200_000


def test_the_info_tells_what_there_is() -> None:
    info = infos(CONTAINERS["MP4, index first"](rate=30))
    assert (info.container, info.video_codec, info.audio_codec) == ("mov,mp4,m4a,3gp,3g2,mj2", "h264", "aac")
    assert (info.width_px, info.height_px, info.rotation_degrees) == (320, 240, 0)
    assert info.frame_rate_hz == pytest.approx(30, rel=0.01)
    assert info.duration_s == pytest.approx(2, abs=0.05)
    assert info.has_video
    assert info.has_audio


def test_a_browsers_recording_has_no_duration() -> None:
    assert infos(CONTAINERS["WebM, live"]()).duration_s is None


@pytest.mark.parametrize(("anticlockwise", "clockwise"), [(90, 270), (180, 180), (270, 90)])
@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_images_are_turned_upright_as_the_metadata_says(
    container: str, anticlockwise: int, clockwise: int
) -> None:
    seen = Seen(clip(container, turned=anticlockwise, duration_s=0.4))
    assert seen.numbers == list(range(10))
    assert seen.frames[0].pixels.shape == (240, 320)
    assert (seen.info.width_px, seen.info.height_px) == (320, 240)
    assert seen.info.rotation_degrees == clockwise


def test_a_phones_matrix_turns_the_image_clockwise() -> None:
    """A phone held upright stores the image lying, with a matrix that says so: what is left must come on top."""
    data = bytearray(clip(duration_s=0.4, audio=None))
    start = data.index(b"tkhd") + 4 + 40
    width = 240
    data[start : start + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, width << 16, 0, 1 << 30)
    seen = Seen(bytes(data))
    assert seen.info.rotation_degrees == 90
    image = seen.frames[3].pixels
    assert image.shape == (320, 240)
    assert image[:20, 5:70].mean() < image[-20:, 5:70].mean() - 50  # the ramp rose from left to right


def test_a_video_without_audio_and_audio_without_video_are_decoded() -> None:
    silent = Seen(clip(audio=None))
    assert silent.numbers == list(range(50))
    assert not silent.info.has_audio
    assert silent.end.samples == 0
    unseen = Seen(clip(video=None))
    assert not unseen.info.has_video
    assert unseen.end.frames == 0
    assert onsets_s(unseen.waveform) == pytest.approx(BURSTS_S, abs=0.03)


@pytest.mark.parametrize(
    ("container", "codec"),
    [("wav", "pcm_s16le"), ("ogg", "libopus"), ("mp3", "mp3"), ("flac", "flac"), ("adts", "aac")],
)
def test_audio_files_are_decoded(container: str, codec: str) -> None:
    seen = Seen(clip(container, None, codec), 777)
    assert onsets_s(seen.waveform) == pytest.approx(BURSTS_S, abs=0.06)


def test_what_is_not_asked_for_is_not_decoded() -> None:
    audio = Seen(clip(), video=False)
    assert audio.info.has_video
    assert (audio.end.frames, audio.end.samples > 30_000, audio.end.truncated) == (0, True, False)
    images = Seen(clip(), audio=False)
    assert images.info.has_audio
    assert (images.end.frames, images.end.samples) == (50, 0)


def test_an_empty_stream_is_refused() -> None:
    with pytest.raises(InvalidMediaError, match="stream is empty"):
        next(decode(Pieces(b""), LIMITS))


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
def test_bytes_that_are_not_media_are_refused_at_once(data: bytes, message: str) -> None:
    reader = Pieces(data, 1000)
    with pytest.raises(InvalidMediaError, match=message):
        next(decode(reader, LIMITS))
    assert reader.position < 150_000


def test_a_file_cut_off_before_its_index_is_refused() -> None:
    with pytest.raises(InvalidMediaError, match="index is missing or damaged"):
        next(decode(Pieces(clip()[:-3000]), LIMITS))


@pytest.mark.parametrize(
    "name", ["MP4, index first", "MP4, fragmented", "Matroska", "WebM, VP9 and Opus", "AVI"]
)
def test_a_file_cut_off_in_the_middle_is_decoded_so_far_and_called_truncated(name: str) -> None:
    data = CONTAINERS[name](duration_s=4.0)
    seen = Seen(data[: len(data) * 6 // 10])
    assert 20 < len(seen.frames) < 80
    assert seen.numbers[5:15] == list(range(5, 15)) or seen.numbers[5:15] == list(range(4, 14))
    declared = seen.info.duration_s
    assert seen.end.truncated == (declared is not None and declared > 3)


def test_broken_packets_are_counted_and_survived() -> None:
    data = bytearray(clip("mpegts", codec_options=(("preset", "ultrafast"), ("g", "5"))))
    rng = np.random.default_rng(4)
    for position in rng.integers(len(data) // 3, len(data) // 2, 40):
        data[position] ^= 0xFF
    seen = Seen(bytes(data))
    assert len(seen.frames) > 40
    assert seen.numbers[-8:] == list(range(seen.numbers[-1] - 7, seen.numbers[-1] + 1))


def test_images_that_all_are_broken_are_refused() -> None:
    data = bytearray(clip(audio=None, options=INDEX_FIRST))
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    with pytest.raises(
        InvalidMediaError, match=r"nothing in the mov.* could be decoded: the frame size is 320x240"
    ):
        list(decode(Pieces(bytes(data)), LIMITS))


def test_an_8k_video_is_refused_with_its_size_before_a_image_is_decoded() -> None:
    data = clip(video="libx264", audio=None, size=(7680, 4320), duration_s=0.08)
    with pytest.raises(InvalidMediaError, match=r"7680x4320, 33\.2 megapixels; the limit is 9\.4"):
        next(decode(Pieces(data), LIMITS))


def test_images_that_grow_in_mid_stream_are_refused() -> None:
    small = clip("mpegts", audio=None, duration_s=1.0)
    large = clip("mpegts", audio=None, duration_s=1.0, size=(1280, 720))
    limits = MediaLimits(max_frame_pixels=800 * 600)
    with pytest.raises(InvalidMediaError, match="1280x720"):
        list(decode(Pieces(small + large), limits))


def test_a_image_far_beyond_the_limit_is_not_even_decoded_in_mid_stream() -> None:
    small = clip("mpegts", audio=None, duration_s=1.0, size=(64, 48))
    large = clip("mpegts", audio=None, duration_s=1.0, size=(1280, 720))
    items = list(decode(Pieces(small + large), MediaLimits(max_frame_pixels=64 * 48)))
    assert isinstance(items[-1], MediaEnd)
    assert items[-1].broken_packets > 0
    assert {item.decoded.width for item in items if isinstance(item, VideoFrame)} == {64}


def test_media_that_declares_to_be_too_long_is_refused() -> None:
    with pytest.raises(OutOfRangeError, match=r"lasts 2\.0 s; the limit is 1\.5 s"):
        next(decode(Pieces(clip()), MediaLimits(max_duration_s=1.5)))


def test_media_beyond_the_limit_without_a_declared_duration_is_refused() -> None:
    limits = MediaLimits(max_duration_s=1.5)
    with pytest.raises(OutOfRangeError, match="longer than the limit"):
        Seen(CONTAINERS["WebM, live"](), limits=limits)


def test_a_codec_that_is_not_allowed_is_named() -> None:
    with pytest.raises(InvalidMediaError, match="the video codec asv1"):
        next(decode(Pieces(clip("avi", "asv1", None)), LIMITS))


def test_cover_art_is_not_decoded_as_video() -> None:
    seen = Seen(_with_cover_art())
    assert not seen.info.has_video
    assert seen.end.frames == 0
    assert onsets_s(seen.waveform) == pytest.approx(BURSTS_S, abs=0.06)


def _with_cover_art() -> bytes:
    """An MP3 file with a image in its ID3 tag."""
    import cv2

    image = cv2.imencode(".jpg", numbered_image(7))[1].tobytes()
    body = b"\0image/jpeg\0\x03\0" + image
    frame = b"APIC" + len(body).to_bytes(4) + b"\0\0" + body
    size = len(frame)
    tag = b"ID3\x03\0\0" + bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0)) + frame
    data = clip("mp3", None, "mp3")
    return tag + data[data.index(b"\xff\xfb") :]


def test_a_file_too_long_to_be_spooled_is_refused() -> None:
    with pytest.raises(InvalidMediaError, match=r"longer than the limit of 5000 bytes.*faststart"):
        next(decode(Pieces(clip()), MediaLimits(max_spooled_bytes=5000)))


def test_bytes_without_end_and_without_a_packet_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forged sample size would make FFmpeg gather gigabytes."""
    monkeypatch.setattr(input_source, "MAX_BYTES_BETWEEN_PACKETS", 200_000)
    data = clip(options=INDEX_FIRST, audio=None)
    sizes = data.index(b"stsz") + 16
    forged = data[:sizes] + (100_000_000).to_bytes(4) + data[sizes + 4 :] + bytes(2_000_000)
    reader = Pieces(forged)
    with pytest.raises(InvalidMediaError, match="no complete packet"):
        list(decode(reader, LIMITS))
    assert reader.position < 1_000_000


def test_an_error_of_the_reader_comes_out_as_it_is() -> None:
    class Vanishing(Pieces):
        def read(self, size: int) -> bytes:
            if self.position > 30_000:
                raise ConnectionResetError("the client is gone")
            return super().read(size)

    with pytest.raises(ConnectionResetError, match="the client is gone"):
        list(decode(Vanishing(CONTAINERS["WebM, live"](noisy=True), 1000), LIMITS))
    assert Seen(clip()).end.frames == 50  # and it does not linger for the next stream on this thread


def test_an_error_of_the_reader_while_the_media_is_opened_comes_out_as_it_is() -> None:
    class Failing(Pieces):
        def read(self, size: int) -> bytes:
            if self.position > 2000:
                raise TimeoutError("nothing came")
            return super().read(size)

    with pytest.raises(TimeoutError, match="nothing came"):
        next(decode(Failing(CONTAINERS["WebM, live"](), 1000), LIMITS))


def test_a_consumer_may_stop_at_any_time() -> None:
    items = decode(Pieces(clip()), LIMITS)
    next(items)
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert Seen(clip()).end.frames == 50


def test_audio_before_the_first_image_does_not_hold_back_the_info_for_ever() -> None:
    data = clip("matroska", audio="libopus", video_delay_s=20.0, duration_s=24.0, rate=5)
    kinds = []
    for item in decode(Pieces(data, 1000), LIMITS):
        kinds.append(type(item))
        if isinstance(item, VideoFrame):
            break
    assert kinds[0] is StreamInfo
    assert kinds.count(AudioSamples) > 256
