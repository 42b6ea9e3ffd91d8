"""How loud the sound is over time: where it pauses, and how far speech stands out of noise."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gorggle_lambdas.media.wav_writer import SAMPLE_RATE_HZ, Samples

FRAME_S = 0.02
FRAME_SAMPLES = round(FRAME_S * SAMPLE_RATE_HZ)
# Below this the sound counts as digital silence: about -80 dB of full scale.
FLOOR_POWER = (32768 * 1e-4) ** 2
# Noise is told for stretches of this length; a shorter rest belongs to the one before.
SPAN_S = 10.0
# The loudest and the quietest tenth of a stretch: speech with noise, and noise alone in the pauses.
LOUD_PERCENTILE, QUIET_PERCENTILE = 90, 10
# What is above this is clean; what is below holds no speech that stands out.
MAX_SNR_DB, MIN_SNR_DB = 60.0, -10.0

Powers = NDArray[np.float64]


@dataclass(frozen=True)
class NoiseEstimate:
    """How far speech stands out from ``start_s`` to ``end_s``."""

    start_s: float
    end_s: float
    snr_db: float


def compute_frame_powers(samples: Samples) -> Powers:
    """Mean power of each 20 ms: (S // 320,). A rest shorter than a frame is left out."""
    frames = len(samples) // FRAME_SAMPLES
    powers = np.empty(frames)
    # Piece by piece: an hour of sound as float64 would be half a gigabyte.
    for start in range(0, frames, 3000):
        piece = samples[start * FRAME_SAMPLES : min(frames, start + 3000) * FRAME_SAMPLES]
        shaped = piece.astype(np.float64).reshape(-1, FRAME_SAMPLES)
        powers[start : start + len(shaped)] = (shaped**2).mean(axis=1)
    return powers


def estimate_noise(powers: Powers) -> list[NoiseEstimate]:
    """Estimate the signal-to-noise ratio, stretch by stretch.

    An estimate from the sound alone: the quietest frames are taken for noise, the loudest for speech with noise. It
    is too low where nobody pauses for ten seconds, and says nothing of a stretch without speech: stretches that are
    silent throughout are left out.
    """
    frames = round(SPAN_S / FRAME_S)
    bounds = [*range(0, len(powers), frames), len(powers)]
    if len(bounds) > 2 and bounds[-1] - bounds[-2] < frames / 2:
        del bounds[-2]
    found = []
    for first, last in itertools.pairwise(bounds):
        part = powers[first:last]
        if not len(part) or part.max() <= FLOOR_POWER:
            continue
        loud = max(float(np.percentile(part, LOUD_PERCENTILE)), FLOOR_POWER)
        quiet = max(float(np.percentile(part, QUIET_PERCENTILE)), FLOOR_POWER)
        speech = max(loud - quiet, quiet * 10 ** (MIN_SNR_DB / 10))
        snr_db = float(np.clip(10 * np.log10(speech / quiet), MIN_SNR_DB, MAX_SNR_DB))
        found.append(NoiseEstimate(round(first * FRAME_S, 3), round(last * FRAME_S, 3), round(snr_db, 2)))
    return found


def find_quietest_s(powers: Powers, from_s: float, to_s: float, pause_s: float = 0.3) -> float:
    """The middle of the quietest ``pause_s`` between two moments; the middle of the two where there is no sound."""
    first, last = round(from_s / FRAME_S), round(to_s / FRAME_S)
    part = powers[max(0, first) : max(0, last)]
    width = round(pause_s / FRAME_S)
    if len(part) <= width:
        return (from_s + to_s) / 2
    sums = np.convolve(part, np.ones(width), mode="valid")
    # Of equally quiet places the one nearest to the middle: windows stay of one length in silence.
    places = np.flatnonzero(sums <= sums.min() + width * FLOOR_POWER)
    middle = len(sums) / 2
    best = places[np.argmin(np.abs(places - middle))]
    return float((max(0, first) + best + width / 2) * FRAME_S)
