"""Resampling of a client's crops and audio to 25 fps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gorggle_server.streaming.crop_input import AudioChunk, CropResampler, MouthCropChunk, interleave


def make_numbered_crops(count: int) -> np.ndarray:
    return np.repeat(np.arange(count, dtype=np.uint8), 96 * 96).reshape(count, 96, 96)


def resample_times(times_s: list[float]) -> list[tuple[int, int]]:
    resampler, placed = CropResampler(), []
    for time_s, crop in zip(times_s, make_numbered_crops(len(times_s)), strict=True):
        placed += list(resampler.push(time_s, crop))
    placed += list(resampler.flush())
    return [(frame, int(crop[0, 0])) for frame, crop in placed]


def test_crops_at_25_fps_are_unchanged() -> None:
    assert resample_times([k / 25 for k in range(20)]) == [(k, k) for k in range(20)]


@pytest.mark.parametrize("rate_hz", [15, 24, 30, 50, 60])
def test_each_frame_gets_the_nearest_crop_at_other_frame_rates(rate_hz: int) -> None:
    placed = resample_times([k / rate_hz for k in range(rate_hz * 2)])
    assert [frame for frame, _ in placed] == list(range(len(placed)))
    assert len(placed) in (49, 50, 51)
    for frame, number in placed:
        assert abs(number / rate_hz - frame / 25) <= 0.5 / rate_hz + 1e-6


def test_a_late_face_starts_late_and_a_long_gap_is_not_filled() -> None:
    assert resample_times([2.0, 2.04, 60.0]) == [(50, 0), (51, 1), (1500, 2)]


@given(st.lists(st.floats(0, 1e6), max_size=40))
def test_frame_numbers_increase_and_gap_filling_is_bounded(times_s: list[float]) -> None:
    frames = [frame for frame, _ in resample_times(sorted(times_s))]
    assert frames == sorted(set(frames))
    assert len(frames) <= 26 * len(times_s)


def test_audio_and_crops_are_interleaved_by_time() -> None:
    crops = MouthCropChunk(3, np.zeros((100, 96, 96), np.uint8), [k / 25 for k in range(100)])
    audio = AudioChunk(np.arange(4 * 16_000, dtype=np.int16))
    pieces = list(interleave([audio, crops]))
    max_offset_s = video_s = audio_s = 0.0
    for piece in pieces:
        if isinstance(piece, MouthCropChunk):
            video_s = piece.times_s[-1]
        else:
            audio_s += len(piece.samples) / 16_000
        max_offset_s = max(max_offset_s, abs(video_s - audio_s))
    assert max_offset_s <= 1.05
    assert np.array_equal(
        np.concatenate([p.samples for p in pieces if isinstance(p, AudioChunk)]), audio.samples
    )
    assert sum(len(p.times_s) for p in pieces if isinstance(p, MouthCropChunk)) == 100
