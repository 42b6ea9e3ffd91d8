"""Tests of probing, clip extraction, noise estimation and window planning."""

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
from gorggle_lambdas.media.formats import SAMPLE_RATE_HZ
from gorggle_lambdas.media.noise_estimation import (
    FRAME_S,
    compute_frame_powers,
    estimate_noise,
    find_quietest_s,
)
from gorggle_lambdas.media.probe import Probe, probe
from gorggle_lambdas.media.s3_file import S3File
from gorggle_lambdas.media.wav_writer import compute_byte_range, read_waveform
from gorggle_lambdas.media.window_planning import MAX_LEAD_S, OVERLAP_S, plan_windows
from tests.clips import remux, transcode
from tests.lambdas.moto_environment import Cloud

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo.mp4"


def probe_file(path: Path, wav: Path, max_s: float = 100.0) -> Probe:
    with path.open("rb") as file:
        return probe(file, wav, max_s)


# -------------------------------------------------------------------------------------------------------------- probing


def test_a_probe_returns_the_video_properties(tmp_path: Path) -> None:
    result = probe_file(DEMO, tmp_path / "s.wav")
    assert result.duration_s == pytest.approx(19.96, abs=0.02)
    assert (result.width_px, result.height_px, result.frame_rate_hz) == (640, 480, 25.0)
    assert (result.video_codec, result.audio_codec) == ("h264", "aac")
    assert result.keyframes_s == [0.0, 10.0]


@pytest.mark.parametrize(
    ("rotation", "degrees", "size"), [(90, 90, (320, 320)), (180, 180, (320, 240)), (0, 0, (320, 240))]
)
def test_a_rotated_video_has_its_upright_size(
    tmp_path: Path, rotation: int, degrees: int, size: tuple[int, int]
) -> None:
    stored = (320, 320) if rotation == 90 else (320, 240)
    clip = transcode(DEMO, tmp_path / "t.mp4", size=stored, rotation_degrees=rotation, max_s=1)
    result = probe_file(clip, tmp_path / "s.wav")
    assert result.rotation_degrees in (degrees, (360 - degrees) % 360)
    assert (result.width_px, result.height_px) == size


def test_the_audio_is_16_khz_mono_and_as_long_as_the_video(tmp_path: Path) -> None:
    result = probe_file(DEMO, tmp_path / "s.wav")
    waveform = read_waveform(tmp_path / "s.wav")
    assert waveform.dtype == np.int16
    assert len(waveform) / SAMPLE_RATE_HZ == pytest.approx(result.audio_duration_s, abs=1e-3)
    # The first word of the clip begins at 1.0 s.
    powers = compute_frame_powers(waveform)
    first = float(np.argmax(powers > 0.05 * powers.max()) * FRAME_S)
    assert first == pytest.approx(1.05, abs=0.1)


def test_late_audio_is_aligned_with_the_video(tmp_path: Path) -> None:
    clip = tmp_path / "late.mkv"
    with av.open(str(DEMO)) as source, av.open(str(clip), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == "audio":
                packet.pts += round(2 / packet.time_base)
                packet.dts += round(2 / packet.time_base)
            packet.stream = streams[packet.stream.index]
            output.mux(packet)
    probe_file(clip, tmp_path / "s.wav")
    powers = compute_frame_powers(read_waveform(tmp_path / "s.wav"))
    first = float(np.argmax(powers > 0.05 * powers.max()) * FRAME_S)
    assert first == pytest.approx(3.05, abs=0.1)


def test_a_video_without_audio_has_none(tmp_path: Path) -> None:
    result = probe_file(transcode(DEMO, tmp_path / "v.mp4", audio_codec=None, max_s=1), tmp_path / "s.wav")
    assert result.audio_codec == ""
    assert not (tmp_path / "s.wav").exists()


def test_audio_without_a_video_has_no_size(tmp_path: Path) -> None:
    clip = transcode(
        DEMO, tmp_path / "a.wav", container="wav", video_codec=None, audio_codec="pcm_s16le", max_s=2
    )
    result = probe_file(clip, tmp_path / "s.wav")
    assert (result.video_codec, result.width_px, result.keyframes_s) == ("", 0, [])
    assert result.duration_s == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("content", [b"", b"no video", b"\0" * 10_000, DEMO.read_bytes()[:4000]])
def test_a_file_that_is_not_a_video_is_rejected(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidMediaError):
        probe(io.BytesIO(content), tmp_path / "s.wav", 100)


def test_a_playlist_cannot_open_other_files(tmp_path: Path) -> None:
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n"
    with pytest.raises(InvalidMediaError):
        probe(io.BytesIO(playlist), tmp_path / "s.wav", 100)


def test_a_video_over_the_limit_is_rejected_with_both_durations(tmp_path: Path) -> None:
    with pytest.raises(InvalidMediaError, match="lasts 20 s; the limit is 5 s"):
        probe_file(DEMO, tmp_path / "s.wav", max_s=5)


# ----------------------------------------------------------------------------------------------------- files in S3


def test_an_object_is_read_in_blocks_on_demand(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_missing_object_raises(cloud: Cloud) -> None:
    with pytest.raises(ObjectNotFoundError, match="uploads/gone does not exist"):
        S3File(boto3.client("s3"), cloud.stack["bucket:uploads"], "uploads/gone")


def test_an_object_deleted_during_reading_raises(cloud: Cloud, tmp_path: Path) -> None:
    cloud.put("uploads/x", DEMO.read_bytes())
    file = S3File(boto3.client("s3"), cloud.stack["bucket:uploads"], "uploads/x")
    version = cloud.client("s3").list_object_versions(Bucket=cloud.stack["bucket:uploads"])["Versions"][0][
        "VersionId"
    ]
    cloud.client("s3").delete_object(Bucket=cloud.stack["bucket:uploads"], Key="uploads/x", VersionId=version)
    with pytest.raises(ObjectNotFoundError):
        probe(file, tmp_path / "s.wav", 100)


# ---------------------------------------------------------------------------------------------------- clip extraction


def decode_clip(chunks: Any) -> tuple[list[float], list[Any], list[float]]:
    content = b"".join(chunks)
    with av.open(io.BytesIO(content)) as container:
        frames = [(float(frame.time), frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]
    with av.open(io.BytesIO(content)) as container:
        has_audio = bool(container.streams.audio)
        audio_times = [float(frame.time) for frame in container.decode(audio=0)] if has_audio else []
    return [time for time, _ in frames], [pixels for _, pixels in frames], audio_times


def test_a_clip_has_the_same_frames_from_the_preceding_key_frame(tmp_path: Path) -> None:
    with av.open(str(DEMO)) as container:
        expected_frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    with DEMO.open("rb") as file:
        clip = extract_clip(file, 12.0, 15.0, video=True, audio=True)
        times, frames, audio_times = decode_clip(clip.chunks)
    assert clip.start_s == 10.0
    assert times[0] == 0.0
    assert times[-1] == pytest.approx(5.0, abs=0.2)
    for index in (0, 30, 100):
        assert np.array_equal(frames[index], expected_frames[250 + index])
    assert audio_times[0] == pytest.approx(0.0, abs=0.03)
    assert audio_times[-1] == pytest.approx(5.0, abs=0.05)


def test_a_video_only_clip_has_no_audio() -> None:
    with DEMO.open("rb") as file:
        _, frames, audio_times = decode_clip(extract_clip(file, 0.0, 2.0, video=True, audio=False).chunks)
    assert len(frames) >= 50
    assert audio_times == []


@pytest.mark.parametrize("container", ["mpegts", "matroska", "mp4", "flv"])
def test_clips_of_other_containers_have_correct_start_times(tmp_path: Path, container: str) -> None:
    clip = remux(DEMO, tmp_path / "c", container)
    with clip.open("rb") as file:
        clip = extract_clip(file, 11.0, 13.0, video=True, audio=True)
        times, frames, _ = decode_clip(clip.chunks)
    with av.open(str(DEMO)) as opened:
        expected_frames = [frame.to_ndarray(format="gray") for frame in opened.decode(video=0)]
    # Some containers include the AAC priming samples, so their video starts some milliseconds late.
    first = int(clip.start_s * 25)
    assert first in (0, 250)
    assert clip.start_s == pytest.approx(first / 25, abs=0.03)
    assert np.array_equal(frames[0], expected_frames[first])
    assert len(frames) == pytest.approx((13.0 - clip.start_s) * 25, abs=6)
    assert times[-1] - times[0] == pytest.approx(13.0 - clip.start_s, abs=0.25)


def test_a_window_after_the_end_is_rejected() -> None:
    with DEMO.open("rb") as file, pytest.raises(InvalidMediaError, match="has no data"):
        extract_clip(file, 30.0, 40.0, video=False, audio=False)


# --------------------------------------------------------------------------------------------------- audio and windows


def tone(seconds: float, level: float) -> np.ndarray:
    samples = np.arange(round(seconds * SAMPLE_RATE_HZ))
    return (level * np.sin(samples * 2 * np.pi * 220 / SAMPLE_RATE_HZ)).astype(np.int16)


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_noise_is_measured_against_speech_with_pauses(snr_db: float) -> None:
    generator = np.random.default_rng(3)
    speech = np.concatenate([tone(0.7, 8000), np.zeros(round(0.3 * SAMPLE_RATE_HZ), np.int16)] * 20)
    level = 8000 / np.sqrt(2) / 10 ** (snr_db / 20)
    mixed = np.clip(speech + generator.normal(0, level, len(speech)), -32768, 32767).astype(np.int16)
    for span in estimate_noise(compute_frame_powers(mixed)):
        assert span.snr_db == pytest.approx(snr_db, abs=2.0)


def test_silence_has_no_noise_estimate_and_spans_are_consecutive() -> None:
    assert estimate_noise(compute_frame_powers(np.zeros(SAMPLE_RATE_HZ * 30, np.int16))) == []
    result = estimate_noise(compute_frame_powers(tone(24, 3000)))
    assert [(window.start_s, window.end_s) for window in result] == [(0.0, 10.0), (10.0, 24.0)]
    assert estimate_noise(compute_frame_powers(np.zeros(3, np.int16))) == []


def test_the_quietest_time_is_in_a_pause() -> None:
    audio = np.concatenate([tone(10, 5000), tone(0.6, 0), tone(10, 5000)])
    assert find_quietest_s(compute_frame_powers(audio), 5, 15) == pytest.approx(10.3, abs=0.2)
    assert find_quietest_s(compute_frame_powers(audio[:100]), 5, 15) == 10


def middle(from_s: float, to_s: float) -> float:
    return (from_s + to_s) / 2


@settings(deadline=None)
@given(st.floats(0.1, 20_000), st.floats(5, 600), st.floats(0.5, 60))
def test_windows_cover_the_video_and_overlap(
    duration_s: float, window_s: float, keyframe_interval_s: float
) -> None:
    keyframes = list(np.arange(0, duration_s, keyframe_interval_s))
    windows = plan_windows(duration_s, window_s, middle, keyframes)
    assert windows[0].start_s == 0
    assert windows[-1].end_s == pytest.approx(duration_s, abs=1e-3)
    for window, following in itertools.pairwise(windows):
        assert window.end_s - following.start_s >= OVERLAP_S - 0.002
        assert following.start_s > window.start_s
    assert [window.index for window in windows] == list(range(len(windows)))


def test_a_short_video_is_one_window() -> None:
    assert len(plan_windows(80, 60, middle, [0.0])) == 1


def test_a_two_hour_video_has_windows_of_the_target_duration() -> None:
    windows = plan_windows(7200, 60, middle, [float(second) for second in range(0, 7200, 10)])
    assert len(windows) == 120
    assert all(50 <= window.end_s - window.start_s <= 80 for window in windows)


def test_windows_start_only_at_nearby_key_frames() -> None:
    assert len(plan_windows(7200, 60, middle, [0.0])) == 1
    sparse = plan_windows(600, 60, middle, [0.0, 300.0])
    assert all(window.start_s == 0 or 0 <= window.start_s - 300 <= MAX_LEAD_S for window in sparse)


def test_a_byte_range_covers_whole_samples() -> None:
    assert compute_byte_range(0, 1) == "bytes=44-32043"
    assert compute_byte_range(1.5, 1.5) == "bytes=48044-48044"
