"""Audio level over time: pauses for window cuts, and the signal-to-noise ratio."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from gorggle_fusion.types import NoiseSpan
from gorggle_lambdas.media.formats import SAMPLE_RATE_HZ
from gorggle_lambdas.media.wav_writer import Samples

FRAME_S = 0.02
FRAME_SAMPLES = round(FRAME_S * SAMPLE_RATE_HZ)
# Power of digital silence: about -80 dB of full scale.
FLOOR_POWER = (32768 * 1e-4) ** 2
# Noise is estimated per span of this length; a shorter rest is added to the previous span.
SPAN_S = 10.0
# The loudest tenth of a span is speech with noise, the quietest tenth noise alone.
LOUD_PERCENTILE, QUIET_PERCENTILE = 90, 10
# Estimates are clipped: above is clean, below has no distinguishable speech.
MAX_SNR_DB, MIN_SNR_DB = 60.0, -10.0

Powers = NDArray[np.float64]


def compute_frame_powers(samples: Samples) -> Powers:
    """Return the mean power of each 20 ms frame: (S // 320,). An incomplete frame is dropped."""
    frames = len(samples) // FRAME_SAMPLES
    powers = np.empty(frames)
    # In chunks: an hour of audio as float64 would take half a gigabyte.
    for start in range(0, frames, 3000):
        chunk = samples[start * FRAME_SAMPLES : min(frames, start + 3000) * FRAME_SAMPLES]
        shaped = chunk.astype(np.float64).reshape(-1, FRAME_SAMPLES)
        powers[start : start + len(shaped)] = (shaped**2).mean(axis=1)
    return powers


def estimate_noise(powers: Powers) -> list[NoiseSpan]:
    """Estimate the signal-to-noise ratio of each span.

    The quietest frames are taken as noise, the loudest as speech with noise. The estimate is too low without a pause in ten
    seconds, and meaningless without speech. Silent spans are omitted.
    """
    frames = round(SPAN_S / FRAME_S)
    bounds = [*range(0, len(powers), frames), len(powers)]
    if len(bounds) > 2 and bounds[-1] - bounds[-2] < frames / 2:
        del bounds[-2]
    estimates = []
    for first, last in itertools.pairwise(bounds):
        part = powers[first:last]
        if not len(part) or part.max() <= FLOOR_POWER:
            continue
        loud = max(float(np.percentile(part, LOUD_PERCENTILE)), FLOOR_POWER)
        quiet = max(float(np.percentile(part, QUIET_PERCENTILE)), FLOOR_POWER)
        speech = max(loud - quiet, quiet * 10 ** (MIN_SNR_DB / 10))
        snr_db = float(np.clip(10 * np.log10(speech / quiet), MIN_SNR_DB, MAX_SNR_DB))
        estimates.append(NoiseSpan(round(first * FRAME_S, 3), round(last * FRAME_S, 3), round(snr_db, 2)))
    return estimates


def find_quietest_s(powers: Powers, from_s: float, to_s: float, pause_s: float = 0.3) -> float:
    """Return the middle of the quietest ``pause_s`` between two times; their midpoint without audio."""
    first, last = round(from_s / FRAME_S), round(to_s / FRAME_S)
    part = powers[max(0, first) : max(0, last)]
    width = round(pause_s / FRAME_S)
    if len(part) <= width:
        return (from_s + to_s) / 2
    sums = np.convolve(part, np.ones(width), mode="valid")
    # Among equally quiet positions take the one nearest to the middle, which keeps window lengths even in silence.
    candidates = np.flatnonzero(sums <= sums.min() + width * FLOOR_POWER)
    middle = len(sums) / 2
    best = candidates[np.argmin(np.abs(candidates - middle))]
    return float((max(0, first) + best + width / 2) * FRAME_S)
