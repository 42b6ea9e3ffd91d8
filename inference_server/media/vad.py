"""Voice activity detection: the level of speech above the background noise, and its probability, per video frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gorggle_server.input_format import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from gorggle_server.waveform import validate_waveform

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Edges of the frequency bands of speech.
SPEECH_BAND_EDGES_HZ = (150, 300, 500, 800, 1200, 1800, 2600, 4000)
_BAND_EDGES = np.array(SPEECH_BAND_EDGES_HZ) * SAMPLES_PER_FRAME // SAMPLE_RATE_HZ
_BAND_WIDTHS = np.diff(_BAND_EDGES)
_BAND_WINDOW = np.hanning(SAMPLES_PER_FRAME)

# The level is averaged over the loudest bands, because a speech sound does not fill all bands.
LOUDEST_BANDS = 3

# Power is averaged over this many frames, which halves the variance of noise at 40 ms of latency.
SMOOTHING_FRAMES = 3

# The noise in a band is its minimum over the last 2.4 s: even fast speech leaves every band empty in that time.
# New steady noise is recognised after as long.
NOISE_FRAMES = 60

# The first frames are evaluated together, so that noise from the start is not taken for speech.
WARMUP_FRAMES = 12

MIN_LEVEL_DB = 20.0  # relative to an int16 amplitude of 1; below is dither
MAX_LEVEL_DB = 30.0

# White noise exceeds 5.6 dB in 0.1 % of frames.
SPEECH_LEVEL_DB, SPEECH_SLOPE_DB = 6.5, 0.8


class SpeechLevelEstimator:
    """Measures the level of audio above its steady background noise, frame by frame.

    Steady noise of any level counts as background after at most 2.4 s; music and other voices count as speech.
    """

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.int16)
        self._powers = _BandHistory(SMOOTHING_FRAMES)
        self._recent_db = _BandHistory(NOISE_FRAMES)
        self._first_db: list[NDArray[np.float64]] | None = []

    def push(self, samples: NDArray[np.int16]) -> NDArray[np.float32]:
        """Add samples; return the level of each completed frame of 640 samples.

        Returns:
            dB above the background, 0 to 30. The first 12 frames are returned together.

        Raises:
            InvalidRequestError: the samples are not one-dimensional int16.
        """
        validate_waveform(samples)
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME
        self._rest = samples[whole:]
        return self._levels(samples[:whole], is_end=False)

    def flush(self) -> NDArray[np.float32]:
        """Return the levels of the remaining samples, zero-padded to a frame."""
        rest = np.pad(self._rest, (0, -len(self._rest) % SAMPLES_PER_FRAME))
        self._rest = rest[:0]
        return self._levels(rest, is_end=True)

    def _levels(self, samples: NDArray[np.int16], *, is_end: bool) -> NDArray[np.float32]:
        bands_db = [self._smoothed_db(power) for power in _compute_band_powers(samples)]
        if self._first_db is not None:
            self._first_db += bands_db
            if len(self._first_db) < WARMUP_FRAMES and not is_end:
                return np.zeros(0, np.float32)
            bands_db, self._first_db = self._first_db, None
            for frame_db in bands_db[:WARMUP_FRAMES]:
                self._recent_db.push(frame_db)
        return np.array([self._level(frame_db) for frame_db in bands_db], np.float32)

    def _smoothed_db(self, power: NDArray[np.float64]) -> NDArray[np.float64]:
        self._powers.push(power)
        mean = np.add.reduce(self._powers.values) / len(self._powers.values)
        smoothed_db: NDArray[np.float64] = np.maximum(10 * np.log10(mean + 1e-9), MIN_LEVEL_DB)
        return smoothed_db

    def _level(self, bands_db: NDArray[np.float64]) -> float:
        self._recent_db.push(bands_db)
        above_noise = bands_db - np.minimum.reduce(self._recent_db.values)
        loudest: list[float] = sorted(above_noise.tolist())[-LOUDEST_BANDS:]
        return sum(min(level_db, MAX_LEVEL_DB) for level_db in loudest) / LOUDEST_BANDS


class _BandHistory:
    """A ring buffer of the latest frames, each with one value per speech band."""

    def __init__(self, capacity: int) -> None:
        self._frames = np.empty((capacity, len(SPEECH_BAND_EDGES_HZ) - 1))
        self._pushed = 0

    @property
    def values(self) -> NDArray[np.float64]:
        """The buffered frames as a view (frames, bands), in no particular order."""
        return self._frames[: self._pushed]

    def push(self, bands: NDArray[np.float64]) -> None:
        """Add a frame, replacing the oldest."""
        self._frames[self._pushed % len(self._frames)] = bands
        self._pushed += 1


def levels_to_probability(levels_db: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map levels to speech probabilities, 0 to 1."""
    odds_against: NDArray[np.float32] = np.exp((SPEECH_LEVEL_DB - levels_db) / SPEECH_SLOPE_DB)
    return (1 / (1 + odds_against)).astype(np.float32)


def _compute_band_powers(samples: NDArray[np.int16]) -> NDArray[np.float64]:
    """Return the mean power in each speech band, relative to an int16 amplitude of 1: (T, 7)."""
    frames = samples.reshape(-1, SAMPLES_PER_FRAME) * _BAND_WINDOW
    power = np.abs(np.fft.rfft(frames)) ** 2 / SAMPLES_PER_FRAME
    bands: NDArray[np.float64] = np.add.reduceat(power, _BAND_EDGES, axis=1)[:, :-1] / _BAND_WIDTHS
    return bands
