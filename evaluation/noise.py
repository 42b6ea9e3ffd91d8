"""Noise for evaluation and training: white, speech-shaped, and babble of other speakers. Works on arrays only."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from gorggle.arrays import SAMPLE_RATE_HZ

Int16Array = NDArray[np.int16]
FloatArray = NDArray[np.float64]

INT16_MAX = 32767

# Active speech level, after ITU-T P.56: margin below the mean level of active speech.
ACTIVITY_MARGIN_DB = 15.9
ACTIVITY_FRAME_SAMPLES = SAMPLE_RATE_HZ // 50
# Pauses this short within speech count as speech, as in P.56.
HANGOVER_FRAMES = 10

SPECTRUM_SAMPLES = 512


class NoiseKind(StrEnum):
    """A kind of noise."""

    WHITE = "white"
    SPEECH_SHAPED = "speech-shaped"
    BABBLE = "babble"


def generate_noise(
    kind: NoiseKind, samples: int, voices: Sequence[Int16Array], rng: np.random.Generator
) -> FloatArray:
    """Generate noise at an arbitrary level.

    Args:
        kind: kind of noise.
        samples: S, the length.
        voices: waveforms of other speakers; babble is their sum, speech-shaped noise has its spectrum.
        rng: random generator.

    Returns:
        (S,).
    """
    if kind is NoiseKind.WHITE:
        return rng.standard_normal(samples)
    babble = np.sum([_loop_voice(voice, samples, rng) for voice in voices], axis=0)
    return babble if kind is NoiseKind.BABBLE else _randomize_phases(babble, rng)


def average_power_spectrum(waveforms: Iterable[Int16Array]) -> FloatArray:
    """Return the average power spectrum of waveforms normalized to equal power: (257,) from 0 to 8 kHz.

    Windows of 32 ms with 50 % overlap (Welch's method); silent waveforms are ignored.
    """
    total = np.zeros(SPECTRUM_SAMPLES // 2 + 1)
    window = np.hanning(SPECTRUM_SAMPLES)
    for waveform in waveforms:
        padded = np.pad(waveform.astype(np.float64), (0, max(0, SPECTRUM_SAMPLES - len(waveform))))
        pieces = np.lib.stride_tricks.sliding_window_view(padded, SPECTRUM_SAMPLES)[:: SPECTRUM_SAMPLES // 2]
        power = np.mean(np.abs(np.fft.rfft(pieces * window)) ** 2, axis=0)
        if power.sum() > 0:
            total += power / power.sum()
    return total


def generate_shaped_noise(power: FloatArray, samples: int, rng: np.random.Generator) -> FloatArray:
    """Generate stationary noise with a spectrum from ``average_power_spectrum``: (S,), at an arbitrary level."""
    white = np.fft.rfft(rng.standard_normal(samples))
    gains = np.sqrt(np.interp(np.linspace(0, 1, len(white)), np.linspace(0, 1, len(power)), power))
    made: FloatArray = np.fft.irfft(white * gains, samples)
    return made


def detect_speech(waveform: Int16Array) -> NDArray[np.bool_]:
    """Mark the samples that are active speech: bool (S,).

    After ITU-T P.56: frames of 20 ms are active if they are less than 15.9 dB below the mean level of the active frames,
    found by iteration, so pauses do not lower the level. Pauses of up to 200 ms within speech count as active. A
    stationary signal is all active, silence is not.
    """
    frames = -(-len(waveform) // ACTIVITY_FRAME_SAMPLES)
    padded = np.pad(waveform.astype(np.float64), (0, frames * ACTIVITY_FRAME_SAMPLES - len(waveform)))
    power = np.mean(padded.reshape(frames, ACTIVITY_FRAME_SAMPLES) ** 2, axis=1)
    is_active = power > 0
    while is_active.any():
        louder = power > power[is_active].mean() / 10 ** (ACTIVITY_MARGIN_DB / 10)
        if (louder == is_active).all():
            break
        is_active &= louder
    return np.repeat(_fill_short_gaps(is_active), ACTIVITY_FRAME_SAMPLES)[: len(waveform)]


def mix_at_snr(
    waveform: Int16Array, interference: FloatArray, snr_db: float, speech: NDArray[np.bool_] | None = None
) -> Int16Array:
    """Mix speech and noise at a signal-to-noise ratio; both are attenuated if the sum would clip.

    Args:
        waveform: (S,), speech.
        interference: (S,), at an arbitrary level.
        snr_db: ratio of speech power to noise power.
        speech: (S,), samples over which both powers are measured; default: all.

    Returns:
        (S,); the waveform itself if it or the noise is silent.
    """
    clean = waveform.astype(np.float64)
    where = slice(None) if speech is None else speech
    measured_speech, measured_noise = clean[where], interference[where]
    if not len(measured_speech) or not measured_speech.any() or not measured_noise.any():
        return waveform
    speech_power, noise_power = np.mean(measured_speech**2), np.mean(measured_noise**2)
    mixture = clean + interference * np.sqrt(speech_power / noise_power / 10 ** (snr_db / 10))
    mixture *= min(1.0, INT16_MAX / np.abs(mixture).max())
    rounded: Int16Array = np.rint(mixture).astype(np.int16)
    return rounded


def _fill_short_gaps(is_active: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask with short gaps between active frames filled."""
    indices = np.flatnonzero(is_active)
    filled = is_active.copy()
    for before, after in itertools.pairwise(indices):
        if 1 < after - before <= HANGOVER_FRAMES + 1:
            filled[before:after] = True
    return filled


def _loop_voice(waveform: Int16Array, samples: int, rng: np.random.Generator) -> FloatArray:
    """Repeat a waveform from a random position up to the given length, at unit power."""
    start = int(rng.integers(len(waveform)))
    repeated = np.resize(np.roll(waveform, -start), samples).astype(np.float64)
    loudness = float(np.sqrt(np.mean(repeated**2)))
    alike: FloatArray = repeated / (loudness + 1)
    return alike


def _randomize_phases(waveform: FloatArray, rng: np.random.Generator) -> FloatArray:
    shuffled = np.abs(np.fft.rfft(waveform))
    shuffled = shuffled * np.exp(2j * np.pi * rng.random(len(shuffled)))
    shaped_noise: FloatArray = np.fft.irfft(shuffled, len(waveform))
    return shaped_noise
