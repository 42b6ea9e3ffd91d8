"""What the model and the endpointing hear: stacked log mel energies, and how far speech stands above the noise."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from gorggle_server.errors import InvalidRequestError
from gorggle_server.timebase import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The filterbank of python_speech_features' ``logfbank`` with its defaults: AV-HuBERT was trained on it.
WINDOW_SAMPLES = 400
STEP_SAMPLES = 160
FFT_SAMPLES = 512
MEL_BANDS = 26
PRE_EMPHASIS = 0.97
STACKED_FRAMES = 4
FEATURES = MEL_BANDS * STACKED_FRAMES
LAYER_NORM_EPSILON = 1e-5

# Windows worked on at once, so that an hour of sound needs no more memory than a minute.
CHUNK_WINDOWS = 6000


def audio_features(wav: NDArray[np.int16]) -> NDArray[np.float32]:
    """What the model hears of a waveform: log mel energies at 100 Hz, four stacked, each frame layer-normalised.

    Args:
        wav: int16 (S,), 16 kHz mono.

    Returns:
        (T, 104) at 25 Hz, one frame begun every 640 samples of what a window of 25 ms reaches; (0, 104) for none.

    Raises:
        InvalidRequestError: not one-dimensional int16.

    Source: AV-HuBERT's preparation; python_speech_features 0.6 for the filterbank.
    """
    return layer_norm(stack_frames(log_mel_spectrogram(wav)))


def log_mel_spectrogram(wav: NDArray[np.int16]) -> NDArray[np.float32]:
    """Natural logarithm of 26 mel band energies: (windows, 26) at 100 Hz, the last window zero-padded."""
    validate_waveform(wav)
    if not len(wav):
        return np.zeros((0, MEL_BANDS), np.float32)
    windows = 1 + max(0, -(-(len(wav) - WINDOW_SAMPLES) // STEP_SAMPLES))
    pieces = range(0, windows, CHUNK_WINDOWS)
    return np.concatenate(
        [_compute_mel_energies(wav, first, min(first + CHUNK_WINDOWS, windows)) for first in pieces]
    )


def stack_frames(energies: NDArray[np.float32]) -> NDArray[np.float32]:
    """Four consecutive windows side by side, zeros after the last: (windows, 26) -> (T, 104)."""
    padding = -len(energies) % STACKED_FRAMES
    return np.pad(energies, ((0, padding), (0, 0))).reshape(-1, energies.shape[1] * STACKED_FRAMES)


def layer_norm(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each frame to mean 0 and variance 1 over its numbers."""
    centred = features - features.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.mean(centred**2, axis=1, keepdims=True) + LAYER_NORM_EPSILON)
    normed: NDArray[np.float32] = (centred / deviation).astype(np.float32)
    return normed


def _compute_mel_energies(wav: NDArray[np.int16], first: int, end: int) -> NDArray[np.float32]:
    """The mel energies of windows ``first`` up to ``end``."""
    start, stop = first * STEP_SAMPLES, (end - 1) * STEP_SAMPLES + WINDOW_SAMPLES
    # Pre-emphasis takes the sample before: the very first one has none, and stays as it is.
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
    """Triangles on the mel scale from 0 to 8 kHz, their corners on whole FFT bins: (26, 257)."""
    mels = np.linspace(0.0, 2595 * np.log10(1 + SAMPLE_RATE_HZ / 2 / 700), MEL_BANDS + 2)
    corners = np.floor((FFT_SAMPLES + 1) * 700 * (10 ** (mels / 2595) - 1) / SAMPLE_RATE_HZ)
    bins = np.arange(FFT_SAMPLES // 2 + 1)
    left, centre, right = (corners[shift : shift + MEL_BANDS, None] for shift in range(3))
    with np.errstate(divide="ignore", invalid="ignore"):
        rising = np.where((bins >= left) & (bins < centre), (bins - left) / (centre - left), 0.0)
        falling = np.where((bins >= centre) & (bins < right), (right - bins) / (right - centre), 0.0)
    return rising + falling


# Speech shows between these frequencies; hum lies below, hiss above.
SPEECH_BAND_EDGES_HZ = (150, 300, 500, 800, 1200, 1800, 2600, 4000)
_BAND_EDGES = np.array(SPEECH_BAND_EDGES_HZ) * SAMPLES_PER_FRAME // SAMPLE_RATE_HZ
_BAND_WIDTHS = np.diff(_BAND_EDGES)
_BAND_WINDOW = np.hanning(SAMPLES_PER_FRAME)

# A sound of speech fills some of the bands, never all.
LOUDEST_BANDS = 3

# Power is averaged over so many frames: that halves the chance variation of noise, at 40 ms of delay.
SMOOTHING_FRAMES = 3

# The noise in a band is its weakest moment of the last 2.4 s: even fast talkers leave each band empty that often.
# A new steady noise is known for one as soon.
NOISE_FRAMES = 60

# The first frames are judged together, so that noise which was there from the start is not taken for speech.
WARMUP_FRAMES = 12

MIN_LEVEL_DB = 20.0  # of one unit of int16: below lies dither
MAX_LEVEL_DB = 30.0

# White noise reaches 5.6 dB in one frame of a thousand.
SPEECH_LEVEL_DB, SPEECH_SLOPE_DB = 6.5, 0.8

CHUNK_SAMPLES = 60 * SAMPLE_RATE_HZ


class SpeechLevelEstimator:
    """Measures how far sound stands above its steady background, frame by frame as it comes."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.int16)
        self._powers = _BandHistory(SMOOTHING_FRAMES)
        self._recent_db = _BandHistory(NOISE_FRAMES)
        self._first_db: list[NDArray[np.float64]] | None = []

    def push(self, samples: NDArray[np.int16]) -> NDArray[np.float32]:
        """Take in sound; give the level of each frame of 640 samples that it completes.

        Returns:
            dB above the background, 0 to 30. The first 12 frames come together with the twelfth.

        Raises:
            InvalidRequestError: not one-dimensional int16.
        """
        validate_waveform(samples)
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME
        self._rest = samples[whole:]
        return self._levels(samples[:whole], is_end=False)

    def flush(self) -> NDArray[np.float32]:
        """The levels of what is left, the last frame padded with silence."""
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
    """The latest frames' numbers, one for each speech band, in no order."""

    def __init__(self, most: int) -> None:
        self._frames = np.empty((most, len(SPEECH_BAND_EDGES_HZ) - 1))
        self._pushed = 0

    @property
    def values(self) -> NDArray[np.float64]:
        """(frames, bands): a view."""
        return self._frames[: self._pushed]

    def push(self, bands: NDArray[np.float64]) -> None:
        """Take in the next frame in place of the oldest."""
        self._frames[self._pushed % len(self._frames)] = bands
        self._pushed += 1


class VoiceActivityDetector:
    """Judges sound that grows: ``estimate_speech_probability`` piece by piece, with the same numbers."""

    def __init__(self) -> None:
        self._meter = SpeechLevelEstimator()

    def push(self, samples: NDArray[np.int16]) -> NDArray[np.float32]:
        """Take in sound; give the probability of speech in each frame of 640 samples that it completes.

        The first 12 frames come together with the twelfth.

        Raises:
            InvalidRequestError: not one-dimensional int16.
        """
        return levels_to_probability(self._meter.push(samples))

    def flush(self) -> NDArray[np.float32]:
        """The probabilities of what is left, the last frame padded with silence."""
        return levels_to_probability(self._meter.flush())


def estimate_speech_levels(wav: NDArray[np.int16]) -> NDArray[np.float32]:
    """Level of speech above the background in dB, 0 to 30: (T,) at 25 Hz, T the number of begun frames."""
    validate_waveform(wav)
    meter = SpeechLevelEstimator()
    pieces = [meter.push(wav[first : first + CHUNK_SAMPLES]) for first in range(0, len(wav), CHUNK_SAMPLES)]
    return np.concatenate([*pieces, meter.flush()])


def levels_to_probability(levels_db: NDArray[np.float32]) -> NDArray[np.float32]:
    """How likely sound of such a level is speech, 0 to 1."""
    odds_against: NDArray[np.float32] = np.exp((SPEECH_LEVEL_DB - levels_db) / SPEECH_SLOPE_DB)
    return (1 / (1 + odds_against)).astype(np.float32)


def estimate_speech_probability(wav: NDArray[np.int16]) -> NDArray[np.float32]:
    """How likely someone speaks, 0 to 1: (T,) at 25 Hz. For sound that grows use ``VoiceActivityDetector``.

    Steady noise of any loudness counts as background after at most 2.4 s; music and other voices count as speech.

    Raises:
        InvalidRequestError: not one-dimensional int16.
    """
    return levels_to_probability(estimate_speech_levels(wav))


def _compute_band_powers(samples: NDArray[np.int16]) -> NDArray[np.float64]:
    """Mean power in each speech band, one unit of int16 squared: (T, 7)."""
    frames = samples.reshape(-1, SAMPLES_PER_FRAME) * _BAND_WINDOW
    power = np.abs(np.fft.rfft(frames)) ** 2 / SAMPLES_PER_FRAME
    bands: NDArray[np.float64] = np.add.reduceat(power, _BAND_EDGES, axis=1)[:, :-1] / _BAND_WIDTHS
    return bands


def validate_waveform(wav: NDArray[np.int16]) -> None:
    """Raise InvalidRequestError unless the samples are one-dimensional int16."""
    if not isinstance(wav, np.ndarray) or wav.ndim != 1 or wav.dtype != np.int16:
        found = f"{wav.dtype} {wav.shape}" if isinstance(wav, np.ndarray) else type(wav).__name__
        raise InvalidRequestError(f"the waveform is {found}; expected int16 of shape (S,), mono at 16 kHz")
