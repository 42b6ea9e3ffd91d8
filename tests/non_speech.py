"""Sounds that are loud and are not speech, int16 at 16 kHz."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 16_000
DURATION_S = 5


def make_drums() -> NDArray[np.int16]:
    time_s, rng = _time_s(), np.random.default_rng(0)
    drum = 0.5 * np.sin(2 * np.pi * 60 * time_s) * np.exp(-20 * np.mod(2 * time_s, 1))
    cymbal = 0.2 * (rng.random(len(time_s)) - 0.5) * np.exp(-30 * np.mod(4 * time_s, 1))
    return _to_int16(drum + cymbal)


def make_tune() -> NDArray[np.int16]:
    """Return plucked notes with harmonics, of random pitch and length."""
    rng, audio, start = np.random.default_rng(1), np.zeros(DURATION_S * RATE_HZ), 0
    while start < len(audio):
        length = min(int(RATE_HZ * rng.choice([0.2, 0.3, 0.4, 0.6])), len(audio) - start)
        pitch_hz, time_s = (
            220 * 2 ** (rng.choice([0, 2, 4, 5, 7, 9, 11, 12]) / 12),
            np.arange(length) / RATE_HZ,
        )
        note = sum(np.sin(2 * np.pi * pitch_hz * number * time_s) / number for number in range(1, 6))
        audio[start : start + length] += 0.15 * note * np.exp(-3 * time_s)
        start += length
    return _to_int16(audio)


def make_tones() -> NDArray[np.int16]:
    time_s = _time_s()
    return _to_int16(0.3 * np.sin(2 * np.pi * 440 * time_s) * (np.mod(time_s, 1.2) < 0.7))


def make_pink_noise() -> NDArray[np.int16]:
    """Return bursts of noise whose power falls with the frequency."""
    count = DURATION_S * RATE_HZ
    spectrum = np.fft.rfft(np.random.default_rng(2).standard_normal(count))
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(1, np.arange(len(spectrum)))), count)
    return _to_int16(0.5 * noise / np.abs(noise).max() * (np.mod(_time_s(), 1.5) < 0.9))


def make_silence() -> NDArray[np.int16]:
    return np.zeros(DURATION_S * RATE_HZ, np.int16)


NON_SPEECH = {
    "drums": make_drums,
    "tune": make_tune,
    "tones": make_tones,
    "pink noise": make_pink_noise,
    "silence": make_silence,
}


def _time_s() -> NDArray[np.float64]:
    return np.arange(DURATION_S * RATE_HZ) / RATE_HZ


def _to_int16(audio: NDArray[np.float64]) -> NDArray[np.int16]:
    return (np.clip(audio, -1, 1) * 32767).astype(np.int16)
