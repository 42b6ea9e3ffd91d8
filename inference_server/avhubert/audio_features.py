"""AV-HuBERT's audio features: stacked and normalised log-mel filterbank energies."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from gorggle_server.input_format import SAMPLE_RATE_HZ
from gorggle_server.waveform import validate_waveform

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Defaults of ``logfbank`` in python_speech_features, which AV-HuBERT was trained with.
WINDOW_SAMPLES = 400
STEP_SAMPLES = 160
FFT_SAMPLES = 512
MEL_BANDS = 26
PRE_EMPHASIS = 0.97
STACKED_FRAMES = 4
LAYER_NORM_EPSILON = 1e-5

# Windows processed at a time, so that memory does not grow with the length of the audio.
CHUNK_WINDOWS = 6000


def audio_features(wav: NDArray[np.int16]) -> NDArray[np.float32]:
    """Compute the model's audio features: log-mel energies at 100 Hz, stacked by 4 and layer-normalised per frame.

    Args:
        wav: int16 (S,), 16 kHz mono.

    Returns:
        (T, 104) at 25 Hz, where the last frame may be partial; (0, 104) for an empty waveform.

    Raises:
        InvalidRequestError: the waveform is not one-dimensional int16.

    Source: AV-HuBERT's preprocessing; python_speech_features 0.6.
    """
    return layer_norm(stack_frames(log_mel_spectrogram(wav)))


def log_mel_spectrogram(wav: NDArray[np.int16]) -> NDArray[np.float32]:
    """Return the natural logarithm of 26 mel-band energies: (windows, 26) at 100 Hz, the last window zero-padded."""
    validate_waveform(wav)
    if not len(wav):
        return np.zeros((0, MEL_BANDS), np.float32)
    windows = 1 + max(0, -(-(len(wav) - WINDOW_SAMPLES) // STEP_SAMPLES))
    pieces = range(0, windows, CHUNK_WINDOWS)
    return np.concatenate(
        [_compute_mel_energies(wav, first, min(first + CHUNK_WINDOWS, windows)) for first in pieces]
    )


def stack_frames(energies: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stack four consecutive windows, zero-padded at the end: (windows, 26) -> (T, 104)."""
    padding = -len(energies) % STACKED_FRAMES
    return np.pad(energies, ((0, padding), (0, 0))).reshape(-1, energies.shape[1] * STACKED_FRAMES)


def layer_norm(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normalise each frame to mean 0 and variance 1."""
    centred = features - features.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.mean(centred**2, axis=1, keepdims=True) + LAYER_NORM_EPSILON)
    normed: NDArray[np.float32] = (centred / deviation).astype(np.float32)
    return normed


def _compute_mel_energies(wav: NDArray[np.int16], first: int, end: int) -> NDArray[np.float32]:
    """Return the log-mel energies of windows ``first`` to ``end``, exclusive."""
    start, stop = first * STEP_SAMPLES, (end - 1) * STEP_SAMPLES + WINDOW_SAMPLES
    # Pre-emphasis needs the previous sample; the first sample of the waveform is left unchanged.
    samples = wav[max(start - 1, 0) : stop].astype(np.float64)
    before = samples[:-1] if start else np.concatenate([[0.0], samples[:-1]])
    emphasised = samples[-len(before) :] - PRE_EMPHASIS * before
    emphasised = np.pad(emphasised, (0, stop - start - len(emphasised)))
    windows = np.lib.stride_tricks.sliding_window_view(emphasised, WINDOW_SAMPLES)[::STEP_SAMPLES]
    power = np.abs(np.fft.rfft(windows, FFT_SAMPLES)) ** 2 / FFT_SAMPLES
    energies = power @ _mel_filters().T
    logarithms: NDArray[np.float64] = np.log(np.where(energies == 0, np.finfo(np.float64).eps, energies))
    return logarithms.astype(np.float32)


@cache
def _mel_filters() -> NDArray[np.float64]:
    """Return triangular filters on the mel scale from 0 to 8 kHz, with corners rounded to FFT bins: (26, 257)."""
    mels = np.linspace(0.0, 2595 * np.log10(1 + SAMPLE_RATE_HZ / 2 / 700), MEL_BANDS + 2)
    corners = np.floor((FFT_SAMPLES + 1) * 700 * (10 ** (mels / 2595) - 1) / SAMPLE_RATE_HZ)
    bins = np.arange(FFT_SAMPLES // 2 + 1)
    left, centre, right = (corners[shift : shift + MEL_BANDS, None] for shift in range(3))
    with np.errstate(divide="ignore", invalid="ignore"):
        rising = np.where((bins >= left) & (bins < centre), (bins - left) / (centre - left), 0.0)
        falling = np.where((bins >= centre) & (bins < right), (right - bins) / (right - centre), 0.0)
    return rising + falling
