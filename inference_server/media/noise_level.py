"""Noise in the audio of one utterance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FRAME_SAMPLES = 320  # 20 ms
# The loudest tenth is speech with noise, the quietest tenth noise alone.
LOUD_PERCENTILE, QUIET_PERCENTILE = 90, 10
# Power of digital silence: about -80 dB of full scale.
FLOOR_POWER = (32768 * 1e-4) ** 2
# Estimates are clipped: above is clean, below has no distinguishable speech.
MAX_SNR_DB, MIN_SNR_DB = 60.0, -10.0


def estimate_snr_db(waveform: NDArray[np.int16]) -> float:
    """Estimate the signal-to-noise ratio of an utterance, int16 (S,) at 16 kHz; clean speech has 20 dB and more.

    The pauses of noise count as its level, so babble is overrated: 8 dB at a true ratio of 0 dB. Audio shorter than a frame is
    clean. ``gorggle_lambdas.media.noise_estimation`` estimates the same for spans of a whole video.
    """
    frames = waveform[: len(waveform) // FRAME_SAMPLES * FRAME_SAMPLES].astype(np.float64)
    if not len(frames):
        return MAX_SNR_DB
    powers = np.square(frames.reshape(-1, FRAME_SAMPLES)).mean(axis=1)
    loud, quiet = np.maximum(np.percentile(powers, [LOUD_PERCENTILE, QUIET_PERCENTILE]), FLOOR_POWER)
    speech = max(loud - quiet, quiet * 10 ** (MIN_SNR_DB / 10))
    return float(np.clip(10 * np.log10(speech / quiet), MIN_SNR_DB, MAX_SNR_DB))
