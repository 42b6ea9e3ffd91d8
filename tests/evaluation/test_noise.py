"""Speech detection, and noise mixed at a signal-to-noise ratio."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gorggle_evaluation.noise import (
    INT16_MAX,
    NoiseKind,
    average_power_spectrum,
    detect_speech,
    generate_noise,
    generate_shaped_noise,
    mix_at_snr,
)

RATE_HZ = 16_000


def tone(duration_s: float, frequency_hz: float = 300.0, amplitude: float = 3000.0) -> np.ndarray:
    times_s = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
    return np.rint(amplitude * np.sin(2 * np.pi * frequency_hz * times_s)).astype(np.int16)


def silence(duration_s: float) -> np.ndarray:
    return np.zeros(round(duration_s * RATE_HZ), np.int16)


def power(waveform: np.ndarray) -> float:
    return float(np.mean(waveform.astype(float) ** 2))


def test_long_pauses_are_not_speech() -> None:
    background = np.random.default_rng(0).normal(0, 20, RATE_HZ * 10).astype(np.int16)
    waveform = np.concatenate([background, tone(1.0), background])
    speech = detect_speech(waveform)
    assert speech.sum() / RATE_HZ == pytest.approx(1.0, abs=0.05)
    assert speech[10 * RATE_HZ + 800 : 11 * RATE_HZ - 800].all()


def test_a_short_pause_within_speech_counts_as_speech() -> None:
    waveform = np.concatenate([tone(0.5), silence(0.15), tone(0.5), silence(0.5), tone(0.5)])
    speech = detect_speech(waveform)
    assert speech[: round(1.15 * RATE_HZ)].all()
    assert not speech[round(1.2 * RATE_HZ) : round(1.6 * RATE_HZ)].any()


def test_a_stationary_signal_is_all_speech_and_silence_is_none() -> None:
    assert detect_speech(tone(1.01)).all()
    assert detect_speech(tone(1.01)).shape == tone(1.01).shape
    assert not detect_speech(silence(1)).any()
    assert detect_speech(silence(0)).shape == (0,)


def test_quiet_speech_is_detected() -> None:
    loud, quiet = tone(1.0, amplitude=8000), tone(1.0, amplitude=4000)
    assert detect_speech(np.concatenate([loud, silence(1), quiet])).sum() / RATE_HZ == pytest.approx(
        2.0, abs=0.05
    )


@settings(max_examples=40)
@given(snr_db=st.floats(-10, 20), kind=st.sampled_from(NoiseKind), seed=st.integers(0, 99))
def test_noise_has_the_requested_level_during_speech(snr_db: float, kind: NoiseKind, seed: int) -> None:
    rng = np.random.default_rng(seed)
    clean = np.concatenate([silence(0.7), tone(0.8), silence(0.5), tone(0.3), silence(0.2)])
    voices = [tone(0.9, frequency) for frequency in (170.0, 230.0, 410.0)]
    interference = generate_noise(kind, len(clean), voices, rng)
    speech = detect_speech(clean)
    mixture = mix_at_snr(clean, interference, snr_db, speech).astype(float)
    # Both signals may be attenuated: estimate their gains by projection and by least squares.
    gain = mixture @ clean / (clean.astype(float) @ clean)
    gains = np.linalg.lstsq(np.stack([clean, interference], 1).astype(float), mixture, rcond=None)[0]
    assert gains[0] == pytest.approx(gain, rel=0.5)
    measured_db = 10 * np.log10(power((gains[0] * clean)[speech]) / power((gains[1] * interference)[speech]))
    assert measured_db == pytest.approx(snr_db, abs=0.1)
    assert np.abs(mixture).max() <= INT16_MAX


def test_audio_is_unchanged_without_speech_or_noise() -> None:
    noise = np.ones(RATE_HZ)
    assert mix_at_snr(silence(1), noise, 0.0) is not None
    np.testing.assert_array_equal(mix_at_snr(silence(1), noise, 0.0), silence(1))
    np.testing.assert_array_equal(mix_at_snr(tone(1), 0 * noise, 0.0), tone(1))
    np.testing.assert_array_equal(mix_at_snr(tone(1), noise, 0.0, np.zeros(RATE_HZ, bool)), tone(1))


def test_shaped_noise_has_the_spectrum_of_the_speech() -> None:
    power_spectrum = average_power_spectrum(
        [tone(1.0, 1000.0), silence(1.0), tone(0.01, 3000.0, amplitude=9000)]
    )
    spectrum = (
        np.abs(np.fft.rfft(generate_shaped_noise(power_spectrum, RATE_HZ, np.random.default_rng(0)))) ** 2
    )
    share_near_1000_hz = spectrum[900:1100].sum() / spectrum.sum()
    # Both tones have the same weight, regardless of level and duration.
    assert share_near_1000_hz == pytest.approx(0.5, abs=0.1)
    assert spectrum[1500:2500].sum() < 0.05 * spectrum.sum()


def test_the_spectrum_of_silence_is_zero() -> None:
    assert not average_power_spectrum([]).any()
    assert not average_power_spectrum([silence(1)]).any()
