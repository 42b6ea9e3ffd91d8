"""Voice activity detection distinguishes speech from noise and silence."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gorggle_server.media import vad
from gorggle_server.media.vad import (
    SpeechLevelEstimator,
    levels_to_probability,
)

RATE_HZ = 16_000


def make_speech(duration_s: float, level: float = 3000, seed: int = 0) -> NDArray[np.float64]:
    """Return synthetic speech: a 120 Hz buzz through moving formants, four syllables per second."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(duration_s * RATE_HZ)) / RATE_HZ
    knots = np.arange(0, duration_s + 0.25, 0.25)
    first = np.interp(time_s, knots, rng.uniform(300, 800, len(knots)))
    second = np.interp(time_s, knots, rng.uniform(900, 2300, len(knots)))
    audio = np.zeros(len(time_s))
    for harmonic in range(1, 30):
        pitch = 120.0 * harmonic
        gain = np.exp(-(((pitch - first) / 150) ** 2)) + 0.5 * np.exp(-(((pitch - second) / 200) ** 2))
        audio += gain * np.sin(2 * np.pi * pitch * time_s)
    syllable = np.clip(np.sin(2 * np.pi * 4 * time_s), 0, None) ** 0.5
    audio *= syllable
    return audio * level / audio.std()


def make_noise(duration_s: float, level: float, seed: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, level, int(duration_s * RATE_HZ))


def to_int16(audio: NDArray[np.float64]) -> NDArray[np.int16]:
    return np.clip(audio, -32768, 32767).astype(np.int16)


def estimate_speech_levels(wav: NDArray[np.int16]) -> NDArray[np.float32]:
    estimator = SpeechLevelEstimator()
    return np.concatenate([estimator.push(wav), estimator.flush()])


def estimate_speech_probability(wav: NDArray[np.int16]) -> NDArray[np.float32]:
    return levels_to_probability(estimate_speech_levels(wav))


def get_speech_fraction(probability: NDArray[np.float32], start_s: float, end_s: float) -> float:
    """Return the fraction of half-second spans with detected speech."""
    frames = probability[round(start_s * 25) : round(end_s * 25)]
    return float(
        np.mean([frames[first : first + 12].max() > 0.5 for first in range(0, len(frames) - 11, 12)])
    )


@pytest.mark.parametrize("level", [0, 10, 300, 1000, 5000])
def test_steady_noise_of_any_level_is_not_speech(level: float) -> None:
    probability = estimate_speech_probability(to_int16(make_noise(20.0, level)))
    assert (probability > 0.5).mean() < 0.01


@pytest.mark.parametrize("noise_level", [0, 30, 300, 950])
def test_speech_is_distinguished_from_pauses_down_to_10_db_above_the_noise(noise_level: float) -> None:
    audio = np.concatenate(
        [
            np.zeros(2 * RATE_HZ),
            make_speech(4.0),
            np.zeros(2 * RATE_HZ),
            make_speech(4.0, seed=2),
            np.zeros(RATE_HZ),
        ]
    )
    probability = estimate_speech_probability(to_int16(audio + make_noise(13.0, noise_level)))
    assert len(probability) == 13 * 25
    assert get_speech_fraction(probability, 2.0, 6.0) == 1
    assert get_speech_fraction(probability, 8.0, 12.0) == 1
    for start_s, end_s in ((0.0, 1.9), (6.3, 7.9), (12.3, 13.0)):
        assert (probability[round(start_s * 25) : round(end_s * 25)] < 0.5).mean() > 0.95


def test_speech_from_the_start_is_detected() -> None:
    assert get_speech_fraction(estimate_speech_probability(to_int16(make_speech(4.0))), 0.0, 4.0) == 1


def test_new_noise_counts_as_background_after_2_5_s() -> None:
    audio = np.concatenate([make_noise(3.0, 10), make_noise(10.0, 2000)])
    probability = estimate_speech_probability(to_int16(audio))
    assert (probability[round(5.6 * 25) :] < 0.5).mean() > 0.98


@pytest.mark.parametrize("chunk", [1, 77, 640, 5000, 400_000])
def test_the_result_does_not_depend_on_the_chunk_size(chunk: int) -> None:
    audio = to_int16(np.concatenate([make_noise(1.0, 50), make_speech(2.0), make_noise(1.013, 50)]))
    audio = audio[:4000] if chunk == 1 else audio
    estimator = SpeechLevelEstimator()
    levels = [estimator.push(audio[start : start + chunk]) for start in range(0, len(audio), chunk)]
    probability = levels_to_probability(np.concatenate([*levels, estimator.flush()]))
    np.testing.assert_array_equal(probability, estimate_speech_probability(audio))


@pytest.mark.parametrize("samples", [0, 1, 639, 640, 641, 7679, 7680, 7681])
def test_a_partial_last_frame_has_a_level(samples: int) -> None:
    levels = estimate_speech_levels(np.ones(samples, np.int16))
    assert levels.shape == (-(-samples // 640),)
    assert levels.dtype == np.float32


def test_levels_are_returned_without_delay_after_12_frames() -> None:
    estimator = SpeechLevelEstimator()
    counts = [len(estimator.push(np.ones(640, np.int16))) for _ in range(20)]
    assert counts == [0] * 11 + [12] + [1] * 8


def test_memory_does_not_grow_with_the_duration() -> None:
    estimator = SpeechLevelEstimator()
    for _ in range(200):
        estimator.push(np.zeros(RATE_HZ, np.int16))
    assert len(estimator._recent_db.values) == vad.NOISE_FRAMES
    assert len(estimator._rest) == 0
