"""Noise to train and measure with: white, speech-shaped, and babble made of other speakers."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

INT16_MAX = 32767


class NoiseKind(StrEnum):
    """What is heard besides the speaker."""

    WHITE = "white"
    SPEECH_SHAPED = "speech-shaped"
    BABBLE = "babble"


def noise(
    kind: NoiseKind, samples: int, others: Sequence[NDArray[np.int16]], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Noise of any loudness.

    Args:
        kind: which noise.
        samples: S, how long.
        others: waveforms of other speakers; babble is their sum, speech-shaped noise has the spectrum of that sum.
        rng: draws it.

    Returns:
        (S,).
    """
    if kind is NoiseKind.WHITE:
        return rng.standard_normal(samples)
    babble = np.sum([_looped(other, samples, rng) for other in others], axis=0)
    return babble if kind is NoiseKind.BABBLE else _phase_shuffled(babble, rng)


def mixed(waveform: NDArray[np.int16], interference: NDArray[np.float64], snr_db: float) -> NDArray[np.int16]:
    """Speech with noise at a signal-to-noise ratio over the whole utterance; made quieter where it would clip."""
    speech = waveform.astype(np.float64)
    speech_power, noise_power = np.mean(speech**2), np.mean(interference**2)
    if speech_power == 0 or noise_power == 0:
        return waveform
    heard = speech + interference * np.sqrt(speech_power / noise_power / 10 ** (snr_db / 10))
    heard *= min(1.0, INT16_MAX / np.abs(heard).max())
    rounded: NDArray[np.int16] = np.rint(heard).astype(np.int16)
    return rounded


def _looped(waveform: NDArray[np.int16], samples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """So many samples of a waveform said over and over, from a random moment on, each voice equally loud."""
    start = int(rng.integers(len(waveform)))
    repeated = np.resize(np.roll(waveform, -start), samples).astype(np.float64)
    loudness = float(np.sqrt(np.mean(repeated**2)))
    alike: NDArray[np.float64] = repeated / (loudness + 1)
    return alike


def _phase_shuffled(waveform: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    spectrum = np.fft.rfft(waveform)
    shuffled = np.abs(spectrum) * np.exp(2j * np.pi * rng.random(len(spectrum)))
    shaped: NDArray[np.float64] = np.fft.irfft(shuffled, len(waveform))
    return shaped
