"""Video as the functions take it: looked into, cut, its sound measured, its windows planned."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import av
import boto3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gorggle_lambdas.common.errors import InvalidMediaError, ObjectNotFoundError
from gorggle_lambdas.media import s3_file
from gorggle_lambdas.media.clip_extraction import extract_clip
from gorggle_lambdas.media.noise_estimation import (
    FRAME_S,
    compute_frame_powers,
    estimate_noise,
    find_quietest_s,
)
from gorggle_lambdas.media.probe import Probe, probe
from gorggle_lambdas.media.s3_file import S3File
from gorggle_lambdas.media.wav_writer import SAMPLE_RATE_HZ, compute_byte_range, read_waveform
from gorggle_lambdas.media.window_planning import MAX_LEAD_S, OVERLAP_S, plan_windows
from tests.clips import remux, transcode
from tests.lambdas.moto_environment import Cloud

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo.mp4"


def probed(path: Path, wav: Path, most_s: float = 100.0) -> Probe:
    with path.open("rb") as file:
        return probe(file, wav, most_s)


# -------------------------------------------------------------------------------------------------------------- probing


def test_a_video_tells_what_it_holds(tmp_path: Path) -> None:
    found = probed(DEMO, tmp_path / "s.wav")
    assert found.duration_s == pytest.approx(19.96, abs=0.02)
    assert (found.width_px, found.height_px, found.frame_rate_hz) == (640, 480, 25.0)
    assert (found.video_codec, found.audio_codec) == ("h264", "aac")
    assert found.keyframes_s == [0.0, 10.0]


@pytest.mark.parametrize(
    ("turned", "degrees", "size"), [(90, 90, (320, 320)), (180, 180, (320, 240)), (0, 0, (320, 240))]
)
def test_a_turned_video_tells_its_upright_size(
    tmp_path: Path, turned: int, degrees: int, size: tuple[int, int]
) -> None:
    stored = (320, 320) if turned == 90 else (320, 240)
    clip = transcode(DEMO, tmp_path / "t.mp4", size=stored, rotation_degrees=turned, max_s=1)
    found = probed(clip, tmp_path / "s.wav")
    assert found.rotation_degrees in (degrees, (360 - degrees) % 360)
    assert (found.width_px, found.height_px) == size


def test_the_sound_is_16_khz_mono_and_as_long_as_the_video(tmp_path: Path) -> None:
    found = probed(DEMO, tmp_path / "s.wav")
    waveform = read_waveform(tmp_path / "s.wav")
    assert waveform.dtype == np.int16
    assert len(waveform) / SAMPLE_RATE_HZ == pytest.approx(found.audio_duration_s, abs=1e-3)
    # The first word of the clip begins at 1.0 s.
    powers = compute_frame_powers(waveform)
    first = float(np.argmax(powers > 0.05 * powers.max()) * FRAME_S)
    assert first == pytest.approx(1.05, abs=0.1)


def test_sound_that_begins_late_is_put_where_it_is_heard(tmp_path: Path) -> None:
    clip = tmp_path / "late.mkv"
    with av.open(str(DEMO)) as source, av.open(str(clip), "w") as made:
        streams = {stream.index: made.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == "audio":
                packet.pts += round(2 / packet.time_base)
                packet.dts += round(2 / packet.time_base)
            packet.stream = streams[packet.stream.index]
            made.mux(packet)
    probed(clip, tmp_path / "s.wav")
    powers = compute_frame_powers(read_waveform(tmp_path / "s.wav"))
    first = float(np.argmax(powers > 0.05 * powers.max()) * FRAME_S)
    assert first == pytest.approx(3.05, abs=0.1)


def test_a_video_without_sound_has_none(tmp_path: Path) -> None:
    found = probed(transcode(DEMO, tmp_path / "v.mp4", audio_codec=None, max_s=1), tmp_path / "s.wav")
    assert found.audio_codec == ""
    assert not (tmp_path / "s.wav").exists()


def test_sound_without_a_video_has_no_size(tmp_path: Path) -> None:
    clip = transcode(
        DEMO, tmp_path / "a.wav", container="wav", video_codec=None, audio_codec="pcm_s16le", max_s=2
    )
    found = probed(clip, tmp_path / "s.wav")
    assert (found.video_codec, found.width_px, found.keyframes_s) == ("", 0, [])
    assert found.duration_s == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("content", [b"", b"no video", b"\0" * 10_000, DEMO.read_bytes()[:4000]])
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidMediaError):
        probe(io.BytesIO(content), tmp_path / "s.wav", 100)


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n"
    with pytest.raises(InvalidMediaError):
        probe(io.BytesIO(playlist), tmp_path / "s.wav", 100)


def test_a_video_beyond_the_limit_is_refused_with_both_lengths(tmp_path: Path) -> None:
    with pytest.raises(InvalidMediaError, match="lasts 20 s; the limit is 5 s"):
        probed(DEMO, tmp_path / "s.wav", most_s=5)


# ----------------------------------------------------------------------------------------------------- files in S3


def test_an_object_is_read_in_pieces_as_they_are_needed(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_file, "BLOCK_BYTES", 1000)
    content = np.random.default_rng(1).bytes(10_500)
    version = cloud.put("uploads/x", content)
    cloud.put("uploads/x", b"a later version")
    file = S3File(boto3.client("s3"), cloud.stack["bucket:uploads"], "uploads/x", version)
    assert file.size_bytes == 10_500
    file.seek(-600, io.SEEK_END)
    assert b"".join(iter(lambda: file.read(250), b"")) == content[-600:]
    assert file.bytes_fetched == 1500
    file.seek(0)
    assert b"".join(iter(lambda: file.read(4096), b"")) == content


def test_an_object_that_is_gone_is_named(cloud: Cloud) -> None:
    with pytest.raises(ObjectNotFoundError, match="uploads/gone is gone"):
        S3File(boto3.client("s3"), cloud.stack["bucket:uploads"], "uploads/gone")


def test_an_object_that_goes_while_it_is_read_is_told(cloud: Cloud, tmp_path: Path) -> None:
    cloud.put("uploads/x", DEMO.read_bytes())
    file = S3File(boto3.client("s3"), cloud.stack["bucket:uploads"], "uploads/x")
    version = cloud.client("s3").list_object_versions(Bucket=cloud.stack["bucket:uploads"])["Versions"][0][
        "VersionId"
    ]
    cloud.client("s3").delete_object(Bucket=cloud.stack["bucket:uploads"], Key="uploads/x", VersionId=version)
    with pytest.raises(ObjectNotFoundError):
        probe(file, tmp_path / "s.wav", 100)


# -------------------------------------------------------------------------------------------------------------- cutting


def frames_of(chunks: Any) -> tuple[list[float], list[Any], list[float]]:
    content = b"".join(chunks)
    with av.open(io.BytesIO(content)) as container:
        pictures = [
            (float(frame.time), frame.to_ndarray(format="gray")) for frame in container.decode(video=0)
        ]
    with av.open(io.BytesIO(content)) as container:
        has_sound = bool(container.streams.audio)
        heard = [float(frame.time) for frame in container.decode(audio=0)] if has_sound else []
    return [time for time, _ in pictures], [picture for _, picture in pictures], heard


def test_a_window_is_the_same_pictures_from_the_key_frame_before_it(tmp_path: Path) -> None:
    with av.open(str(DEMO)) as container:
        whole = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    with DEMO.open("rb") as file:
        piece = extract_clip(file, 12.0, 15.0, video=True, audio=True)
        times, pictures, heard = frames_of(piece.chunks)
    assert piece.start_s == 10.0
    assert times[0] == 0.0
    assert times[-1] == pytest.approx(5.0, abs=0.2)
    for index in (0, 30, 100):
        assert np.array_equal(pictures[index], whole[250 + index])
    assert heard[0] == pytest.approx(0.0, abs=0.03)
    assert heard[-1] == pytest.approx(5.0, abs=0.05)


def test_a_window_for_the_lips_alone_has_no_sound() -> None:
    with DEMO.open("rb") as file:
        _, pictures, heard = frames_of(extract_clip(file, 0.0, 2.0, video=True, audio=False).chunks)
    assert len(pictures) >= 50
    assert heard == []


@pytest.mark.parametrize("container", ["mpegts", "matroska", "mp4", "flv"])
def test_windows_of_other_containers_begin_where_they_say(tmp_path: Path, container: str) -> None:
    clip = remux(DEMO, tmp_path / "c", container)
    with clip.open("rb") as file:
        piece = extract_clip(file, 11.0, 13.0, video=True, audio=True)
        times, pictures, _ = frames_of(piece.chunks)
    with av.open(str(DEMO)) as opened:
        whole = [frame.to_ndarray(format="gray") for frame in opened.decode(video=0)]
    # Both carry the sound's priming: their pictures begin some milliseconds late.
    first = int(piece.start_s * 25)
    assert first in (0, 250)
    assert piece.start_s == pytest.approx(first / 25, abs=0.03)
    assert np.array_equal(pictures[0], whole[first])
    assert len(pictures) == pytest.approx((13.0 - piece.start_s) * 25, abs=6)
    assert times[-1] - times[0] == pytest.approx(13.0 - piece.start_s, abs=0.25)


def test_a_window_behind_the_end_is_refused() -> None:
    with DEMO.open("rb") as file, pytest.raises(InvalidMediaError, match="holds nothing"):
        extract_clip(file, 30.0, 40.0, video=False, audio=False)


# --------------------------------------------------------------------------------------------------- sound and windows


def tone(seconds: float, level: float) -> np.ndarray:
    samples = np.arange(round(seconds * SAMPLE_RATE_HZ))
    return (level * np.sin(samples * 2 * np.pi * 220 / SAMPLE_RATE_HZ)).astype(np.int16)


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_noise_is_measured_against_speech_with_pauses(snr_db: float) -> None:
    generator = np.random.default_rng(3)
    speech = np.concatenate([tone(0.7, 8000), np.zeros(round(0.3 * SAMPLE_RATE_HZ), np.int16)] * 20)
    level = 8000 / np.sqrt(2) / 10 ** (snr_db / 20)
    mixed = np.clip(speech + generator.normal(0, level, len(speech)), -32768, 32767).astype(np.int16)
    for stretch in estimate_noise(compute_frame_powers(mixed)):
        assert stretch.snr_db == pytest.approx(snr_db, abs=2.0)


def test_silence_says_nothing_of_noise_and_stretches_follow_each_other() -> None:
    assert estimate_noise(compute_frame_powers(np.zeros(SAMPLE_RATE_HZ * 30, np.int16))) == []
    found = estimate_noise(compute_frame_powers(tone(24, 3000)))
    assert [(one.start_s, one.end_s) for one in found] == [(0.0, 10.0), (10.0, 24.0)]
    assert estimate_noise(compute_frame_powers(np.zeros(3, np.int16))) == []


def test_a_cut_falls_into_the_pause() -> None:
    sound = np.concatenate([tone(10, 5000), tone(0.6, 0), tone(10, 5000)])
    assert find_quietest_s(compute_frame_powers(sound), 5, 15) == pytest.approx(10.3, abs=0.2)
    assert find_quietest_s(compute_frame_powers(sound[:100]), 5, 15) == 10


def middle(from_s: float, to_s: float) -> float:
    return (from_s + to_s) / 2


@settings(deadline=None)
@given(st.floats(0.1, 20_000), st.floats(5, 600), st.floats(0.5, 60))
def test_windows_cover_the_video_and_overlap(duration_s: float, window_s: float, every_s: float) -> None:
    keyframes = list(np.arange(0, duration_s, every_s))
    windows = plan_windows(duration_s, window_s, middle, keyframes)
    assert windows[0].start_s == 0
    assert windows[-1].end_s == pytest.approx(duration_s, abs=1e-3)
    for one, following in itertools.pairwise(windows):
        assert one.end_s - following.start_s >= OVERLAP_S - 0.002
        assert following.start_s > one.start_s
    assert [window.index for window in windows] == list(range(len(windows)))


def test_a_short_video_is_one_window() -> None:
    assert len(plan_windows(80, 60, middle, [0.0])) == 1


def test_a_two_hour_video_has_windows_of_about_the_wished_length() -> None:
    windows = plan_windows(7200, 60, middle, [float(second) for second in range(0, 7200, 10)])
    assert len(windows) == 120
    assert all(50 <= window.end_s - window.start_s <= 80 for window in windows)


def test_where_no_picture_stands_for_itself_there_is_no_cut() -> None:
    assert len(plan_windows(7200, 60, middle, [0.0])) == 1
    sparse = plan_windows(600, 60, middle, [0.0, 300.0])
    assert all(window.start_s == 0 or 0 <= window.start_s - 300 <= MAX_LEAD_S for window in sparse)


def test_a_byte_range_takes_whole_samples() -> None:
    assert compute_byte_range(0, 1) == "bytes=44-32043"
    assert compute_byte_range(1.5, 1.5) == "bytes=48044-48044"
