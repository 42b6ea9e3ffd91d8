"""Who speaks: how much a mouth moves, from landmarks or from crops alone, and whether it moves with the sound."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

# Movement is judged over this many frames around each: half a second holds two syllables.
WINDOW_FRAMES = 13
MIN_SEEN_FRAMES = 5

# iBUG order: three pairs of points above and below the opening, three on the lips' outer edges, the corners of the
# mouth, the two eyes. The corners are the least certain of them.
UPPER_LIP, LOWER_LIP = [50, 51, 52, 61, 62, 63], [58, 57, 56, 67, 66, 65]
MOUTH_CORNERS = (48, 54)
LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)
WIDTH_WEIGHT = 0.25

# Movement of landmarks at which speaking is as likely as not, in shares of the distance between the eyes. Heads that
# sway in silence showed 0.006 to 0.012 (landmarks are whole pixels), speech 0.02 to 0.04.
LANDMARK_MOVEMENT = 0.0155
# The same for crops, in shares of their contrast: 0.06 to 0.14 in silence, 0.25 to 0.37 in speech.
CROP_MOVEMENT = 0.18
STEEPNESS = 4.0

# Of a crop of 96 x 96 the mouth and chin, reduced until a pixel's jitter in the alignment no longer shows.
CROP_ROWS, CROP_COLUMNS = slice(28, 76), slice(16, 80)
CROP_REDUCED = (8, 6)

MAX_LAG_FRAMES = 4
MIN_AGREEMENT_FRAMES = 8


class MovementMeter:
    """Measures how much a few numbers vary about their trend in the half second around each frame, as they come.

    The value of a frame is known six frames later. Frames that were skipped, and frames without numbers, get the
    variation of those around them, and 0 where too few are known.
    """

    def __init__(self) -> None:
        self._recent: deque[NDArray[np.float64] | None] = deque(maxlen=WINDOW_FRAMES)
        self._next_index: int | None = None
        self._owed = 0  # frames taken in whose value has not been given

    def push(self, frame_index: int, numbers: NDArray[np.float64] | None) -> list[float]:
        """Take in the numbers of a frame; give the values that are known with it.

        Args:
            frame_index: rises from call to call; where it skips, frames without numbers are filled in.
            numbers: (K,), or None where the frame has none.
        """
        values: list[float] = []
        for _ in range(self._next_index or frame_index, frame_index):
            values += self._push(None)
        self._next_index = frame_index + 1
        return values + self._push(numbers)

    def finish(self) -> list[float]:
        """The values of the last frames, and a new start."""
        values: list[float] = []
        while self._owed:
            self._recent.append(None)
            values.append(self._variation())
            self._owed -= 1
        self._recent.clear()
        self._next_index = None
        return values

    def _push(self, numbers: NDArray[np.float64] | None) -> list[float]:
        self._recent.append(numbers)
        self._owed += 1
        if self._owed <= WINDOW_FRAMES // 2:
            return []
        self._owed -= 1
        return [self._variation()]

    def _variation(self) -> float:
        known = [(time, numbers) for time, numbers in enumerate(self._recent) if numbers is not None]
        if len(known) < MIN_SEEN_FRAMES:
            return 0.0
        times = np.array([time for time, _ in known], np.float64)
        series = np.stack([numbers for _, numbers in known])
        times -= times.mean()
        series = series - series.mean(axis=0)
        trend = (
            times @ series / (times @ times)
        )  # a head that turns changes what lips look like, but steadily
        rest = series - np.outer(times, trend)
        return float(np.sqrt((rest**2).sum(axis=1).mean()))


class LipActivity:
    """Judges from landmarks, as they come, how likely a mouth is speaking."""

    def __init__(self) -> None:
        self._meter = MovementMeter()

    def push(self, frame_index: int, landmarks: NDArray[np.floating[Any]] | None) -> list[float]:
        """Take in a frame's landmarks (68, 2), or None where the face is not seen; skipped frames count likewise.

        Returns:
            Probabilities, 0 to 1, of the frames that are known now, in order: each comes six frames late.
        """
        numbers = None if landmarks is None else lip_shape(landmarks)
        return _probabilities(self._meter.push(frame_index, numbers), LANDMARK_MOVEMENT)

    def finish(self) -> list[float]:
        """The probabilities of the last frames."""
        return _probabilities(self._meter.finish(), LANDMARK_MOVEMENT)


class CropActivity:
    """Judges from mouth crops alone, as they come, how likely the mouth is speaking."""

    def __init__(self) -> None:
        self._meter = MovementMeter()

    def push(self, frame_index: int, crop: NDArray[np.uint8] | None) -> list[float]:
        """Take in a crop, uint8 (96, 96), or None where there is none; skipped frames count likewise.

        Returns:
            Probabilities, 0 to 1, of the frames that are known now, in order: each comes six frames late.
        """
        numbers = None if crop is None else crop_shape(crop)
        return _probabilities(self._meter.push(frame_index, numbers), CROP_MOVEMENT)

    def finish(self) -> list[float]:
        """The probabilities of the last frames."""
        return _probabilities(self._meter.finish(), CROP_MOVEMENT)


def mouth_movement(landmarks: Sequence[NDArray[np.floating[Any]] | None]) -> NDArray[np.float32]:
    """How much the lips move around each frame, in shares of the distance between the eyes: (T,)."""
    return _movement(None if points is None else lip_shape(points) for points in landmarks)


def crop_movement(crops: Iterable[NDArray[np.uint8] | None]) -> NDArray[np.float32]:
    """How much the picture of a mouth changes around each frame, in shares of its contrast: (T,)."""
    return _movement(None if crop is None else crop_shape(crop) for crop in crops)


def speaking_probability(movement: NDArray[np.float32]) -> NDArray[np.float32]:
    """How likely a mouth that moves so (``mouth_movement``) is speaking, 0 to 1: (T,)."""
    return np.array(_probabilities(movement, LANDMARK_MOVEMENT), np.float32)


def sound_agreement(mouth_movement: NDArray[np.floating[Any]], speech: NDArray[np.floating[Any]]) -> float:
    """Whether a mouth moves with the sound: their correlation, at the shift of up to 4 frames that suits them best.

    Of several faces the one with the greatest agreement is the likeliest speaker.

    Args:
        mouth_movement: (T,) at 25 Hz: movement, opening or speaking probability.
        speech: (T,) at 25 Hz: level or probability of speech.

    Returns:
        -1 to 1; 0 where one of them does not change, or both are shorter than a third of a second.
    """
    length = min(len(mouth_movement), len(speech))
    if length < MIN_AGREEMENT_FRAMES:
        return 0.0
    most = min(MAX_LAG_FRAMES, length - MIN_AGREEMENT_FRAMES)
    moves, sounds = mouth_movement[:length], speech[:length]
    return max(
        _correlation(moves[max(0, lag) : length + min(0, lag)], sounds[max(0, -lag) : length - max(0, lag)])
        for lag in range(-most, most + 1)
    )


def lip_shape(landmarks: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Opening between the lips and width of the mouth, in shares of the distance between the eyes: (2,)."""
    points = landmarks.astype(np.float64)
    eyes = float(np.linalg.norm(points[RIGHT_EYE].mean(axis=0) - points[LEFT_EYE].mean(axis=0)))
    opening = np.linalg.norm(points[LOWER_LIP] - points[UPPER_LIP], axis=1).mean()
    width = np.linalg.norm(points[MOUTH_CORNERS[1]] - points[MOUTH_CORNERS[0]])
    return np.array([opening, WIDTH_WEIGHT * width]) / max(eyes, 1.0)


def crop_shape(crop: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The mouth in a few grey values whose mean is 0 and whose squares sum to 1: (48,)."""
    small = cv2.resize(crop[CROP_ROWS, CROP_COLUMNS], CROP_REDUCED, interpolation=cv2.INTER_AREA)
    values = small.astype(np.float64).ravel()
    values -= values.mean()
    return np.asarray(values / max(float(np.linalg.norm(values)), 1.0))


def _movement(shapes: Iterable[NDArray[np.float64] | None]) -> NDArray[np.float32]:
    meter = MovementMeter()
    values = [value for index, shape in enumerate(shapes) for value in meter.push(index, shape)]
    return np.array(values + meter.finish(), np.float32)


def _probabilities(movement: Iterable[float], even_at: float) -> list[float]:
    """A logistic curve over the logarithm of the movement: 1/2 at ``even_at``, 0 for none."""
    return [float(value**STEEPNESS / (value**STEEPNESS + even_at**STEEPNESS)) for value in movement]


def _correlation(one: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> float:
    one, other = one - one.mean(), other - other.mean()
    spread = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / spread if spread > 1e-6 else 0.0
