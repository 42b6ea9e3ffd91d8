"""What the model and the endpointing hear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gorggle_server.errors import InvalidRequestError
from gorggle_server.media import audio
from gorggle_server.media.audio import (
    SpeechLevelEstimator,
    VoiceActivityDetector,
    audio_features,
    estimate_speech_levels,
    estimate_speech_probability,
    log_mel_spectrogram,
    stack_frames,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "avhubert" / "preprocessing.npz"
RATE_HZ = 16_000


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray]:
    return dict(np.load(GOLDEN))


def test_features_are_the_references(golden) -> None:
    features = audio_features(golden["wav"])
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, golden["layer_norm"], atol=1e-3)


def test_each_step_is_the_references(golden) -> None:
    energies = log_mel_spectrogram(golden["wav"])
    np.testing.assert_allclose(energies, golden["logfbank"], atol=1e-3)
    np.testing.assert_allclose(stack_frames(energies), golden["stacked"], atol=1e-3)


@pytest.mark.parametrize(
    ("samples", "frames"),
    [(0, 0), (1, 1), (399, 1), (400, 1), (640, 1), (881, 2), (16_000, 25), (16_240, 25), (16_241, 26)],
)
def test_sound_of_any_length_has_a_feature_frame_for_each_forty_milliseconds(
    samples: int, frames: int
) -> None:
    features = audio_features(np.ones(samples, np.int16))
    assert features.shape == (frames, 104)
    assert np.isfinite(features).all()


def test_digital_silence_has_finite_features() -> None:
    features = audio_features(np.zeros(RATE_HZ, np.int16))
    assert np.isfinite(features).all()


def test_features_do_not_depend_on_how_much_is_worked_on_at_once(
    golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = audio_features(golden["wav"])
    monkeypatch.setattr(audio, "CHUNK_WINDOWS", 7)
    np.testing.assert_array_equal(audio_features(golden["wav"]), whole)


@pytest.mark.parametrize(
    "wav", [np.zeros(100, np.float32), np.zeros((2, 100), np.int16), np.zeros(100, np.int32), [0, 1]]
)
@pytest.mark.parametrize("function", [audio_features, estimate_speech_probability])
def test_what_is_no_waveform_is_refused(function, wav) -> None:
    with pytest.raises(InvalidRequestError, match="expected int16 of shape"):
        function(wav)


def babble(duration_s: float, level: float = 3000, seed: int = 0) -> NDArray[np.float64]:
    """Something like speech: a buzz of 120 Hz through wandering formants, four syllables a second."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(duration_s * RATE_HZ)) / RATE_HZ
    knots = np.arange(0, duration_s + 0.25, 0.25)
    first = np.interp(time_s, knots, rng.uniform(300, 800, len(knots)))
    second = np.interp(time_s, knots, rng.uniform(900, 2300, len(knots)))
    sound = np.zeros(len(time_s))
    for harmonic in range(1, 30):
        pitch = 120.0 * harmonic
        gain = np.exp(-(((pitch - first) / 150) ** 2)) + 0.5 * np.exp(-(((pitch - second) / 200) ** 2))
        sound += gain * np.sin(2 * np.pi * pitch * time_s)
    syllable = np.clip(np.sin(2 * np.pi * 4 * time_s), 0, None) ** 0.5
    sound *= syllable
    return sound * level / sound.std()


def noise(duration_s: float, level: float, seed: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, level, int(duration_s * RATE_HZ))


def int16(sound: NDArray[np.float64]) -> NDArray[np.int16]:
    return np.clip(sound, -32768, 32767).astype(np.int16)


def share_of_speech(probability: NDArray[np.float32], start_s: float, end_s: float) -> float:
    """The share of half-second stretches in which speech was heard."""
    frames = probability[round(start_s * 25) : round(end_s * 25)]
    return float(
        np.mean([frames[first : first + 12].max() > 0.5 for first in range(0, len(frames) - 11, 12)])
    )


@pytest.mark.parametrize("level", [0, 10, 300, 1000, 5000])
def test_steady_noise_is_not_speech_however_loud(level: float) -> None:
    probability = estimate_speech_probability(int16(noise(20.0, level)))
    assert (probability > 0.5).mean() < 0.01


@pytest.mark.parametrize("noise_level", [0, 30, 300, 950])
def test_speech_is_told_from_pauses_down_to_ten_decibels_above_the_noise(noise_level: float) -> None:
    sound = np.concatenate(
        [np.zeros(2 * RATE_HZ), babble(4.0), np.zeros(2 * RATE_HZ), babble(4.0, seed=2), np.zeros(RATE_HZ)]
    )
    probability = estimate_speech_probability(int16(sound + noise(13.0, noise_level)))
    assert len(probability) == 13 * 25
    assert share_of_speech(probability, 2.0, 6.0) == 1
    assert share_of_speech(probability, 8.0, 12.0) == 1
    for start_s, end_s in ((0.0, 1.9), (6.3, 7.9), (12.3, 13.0)):
        assert (probability[round(start_s * 25) : round(end_s * 25)] < 0.5).mean() > 0.95


def test_speech_from_the_first_moment_is_heard() -> None:
    assert share_of_speech(estimate_speech_probability(int16(babble(4.0))), 0.0, 4.0) == 1


def test_a_noise_that_begins_is_background_after_two_and_a_half_seconds() -> None:
    sound = np.concatenate([noise(3.0, 10), noise(10.0, 2000)])
    probability = estimate_speech_probability(int16(sound))
    assert (probability[round(5.6 * 25) :] < 0.5).mean() > 0.98


@pytest.mark.parametrize("piece", [1, 77, 640, 5000, 400_000])
def test_sound_that_comes_in_pieces_is_judged_alike(piece: int) -> None:
    sound = int16(np.concatenate([noise(1.0, 50), babble(2.0), noise(1.013, 50)]))
    sound = sound[:4000] if piece == 1 else sound
    detector = VoiceActivityDetector()
    found = [detector.push(sound[start : start + piece]) for start in range(0, len(sound), piece)]
    found.append(detector.flush())
    np.testing.assert_array_equal(np.concatenate(found), estimate_speech_probability(sound))


@pytest.mark.parametrize("samples", [0, 1, 639, 640, 641, 7679, 7680, 7681])
def test_every_begun_frame_is_judged(samples: int) -> None:
    levels = estimate_speech_levels(np.ones(samples, np.int16))
    assert levels.shape == (-(-samples // 640),)
    assert levels.dtype == np.float32


def test_after_the_first_half_second_judgements_come_at_once() -> None:
    meter = SpeechLevelEstimator()
    given = [len(meter.push(np.ones(640, np.int16))) for _ in range(20)]
    assert given == [0] * 11 + [12] + [1] * 8


def test_hours_of_sound_take_the_memory_of_minutes() -> None:
    meter = SpeechLevelEstimator()
    for _ in range(200):
        meter.push(np.zeros(RATE_HZ, np.int16))
    assert len(meter._recent_db.values) == audio.NOISE_FRAMES
    assert len(meter._rest) == 0
