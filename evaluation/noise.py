"""Noise to measure and to train with: white, speech-shaped, and babble made of other speakers.

Nothing here reads a file: waveforms in, waveforms out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Int16Array = NDArray[np.int16]
FloatArray = NDArray[np.float64]

INT16_MAX = 32767
SAMPLE_RATE_HZ = 16_000

# Active speech, after ITU-T P.56: what lies less than so much below the level of the active speech itself.
ACTIVITY_MARGIN_DB = 15.9
ACTIVITY_FRAME_SAMPLES = SAMPLE_RATE_HZ // 50
# As there: a pause this short within speech belongs to it.
HANGOVER_FRAMES = 10

SPECTRUM_SAMPLES = 512


class NoiseKind(StrEnum):
    """What is heard besides the speaker."""

    WHITE = "white"
    SPEECH_SHAPED = "speech-shaped"
    BABBLE = "babble"


def generate_noise(
    kind: NoiseKind, samples: int, voices: Sequence[Int16Array], rng: np.random.Generator
) -> FloatArray:
    """Noise of any loudness.

    Args:
        kind: which noise.
        samples: S, how long.
        voices: waveforms of other speakers; babble is their sum, speech-shaped noise has the spectrum of that sum.
        rng: draws it.

    Returns:
        (S,).
    """
    if kind is NoiseKind.WHITE:
        return rng.standard_normal(samples)
    babble = np.sum([_loop_voice(other, samples, rng) for other in voices], axis=0)
    return babble if kind is NoiseKind.BABBLE else _randomize_phases(babble, rng)


def average_power_spectrum(waveforms: Iterable[Int16Array]) -> FloatArray:
    """The average power spectrum of waveforms, each equally loud: (257,) from 0 to 8 kHz.

    Windows of 32 ms, half overlapping (Welch's method); silent waveforms do not count.
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
    """Steady noise with a power spectrum as ``average_power_spectrum`` gives it: (S,), of any loudness."""
    white = np.fft.rfft(rng.standard_normal(samples))
    gains = np.sqrt(np.interp(np.linspace(0, 1, len(white)), np.linspace(0, 1, len(power)), power))
    made: FloatArray = np.fft.irfft(white * gains, samples)
    return made


def detect_speech(waveform: Int16Array) -> NDArray[np.bool_]:
    """Which samples of a waveform are speech: bool (S,).

    After ITU-T P.56: frames of 20 ms are active when they lie less than 15.9 dB below the mean level of the active
    frames, which is found by leaving out what is too quiet until nothing changes; so pauses do not lower the level,
    however long they are. Pauses within speech of up to 200 ms are active too. In steady sound everything is active,
    in silence nothing.
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
    waveform: Int16Array,
    interference: FloatArray,
    snr_db: float,
    speech: NDArray[np.bool_] | None = None,
) -> Int16Array:
    """Speech with noise at a signal-to-noise ratio; both made quieter where they would clip.

    Args:
        waveform: (S,), of the speech.
        interference: (S,), of any loudness.
        snr_db: power of the speech over that of the noise.
        speech: (S,), the samples over which both powers are measured; default: all.

    Returns:
        (S,); the waveform itself where it or the noise is silent.
    """
    clean = waveform.astype(np.float64)
    where = slice(None) if speech is None else speech
    heard_speech, heard_noise = clean[where], interference[where]
    if not len(heard_speech) or not heard_speech.any() or not heard_noise.any():
        return waveform
    speech_power, noise_power = np.mean(heard_speech**2), np.mean(heard_noise**2)
    heard = clean + interference * np.sqrt(speech_power / noise_power / 10 ** (snr_db / 10))
    heard *= min(1.0, INT16_MAX / np.abs(heard).max())
    rounded: Int16Array = np.rint(heard).astype(np.int16)
    return rounded


def _fill_short_gaps(is_active: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The same with short gaps between active frames filled."""
    places = np.flatnonzero(is_active)
    bridged = is_active.copy()
    for before, after in itertools.pairwise(places):
        if 1 < after - before <= HANGOVER_FRAMES + 1:
            bridged[before:after] = True
    return bridged


def _loop_voice(waveform: Int16Array, samples: int, rng: np.random.Generator) -> FloatArray:
    """So many samples of a waveform said over and over, from a random moment on, each voice equally loud."""
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
