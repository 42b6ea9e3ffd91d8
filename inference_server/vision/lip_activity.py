"""Who speaks: how much a mouth moves, from landmarks and crops or from crops alone, and whether it moves with the sound."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from gorggle_server.vision.rolling_quantile import RollingQuantile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

# Movement is judged over this many frames around each: a third of a second holds more than a syllable. A longer window
# bridges the pauses between sentences.
WINDOW_FRAMES = 9
MIN_SEEN_FRAMES = 4

# iBUG order: three pairs of points above and below the opening, three on the lips' outer edges, the corners of the
# mouth, the two eyes. The corners are the least certain of them.
UPPER_LIP, LOWER_LIP = [50, 51, 52, 61, 62, 63], [58, 57, 56, 67, 66, 65]
MOUTH_CORNERS = (48, 54)
LEFT_EYE, RIGHT_EYE, EYE_POINTS = slice(36, 42), slice(42, 48), 6
WIDTH_WEIGHT = 0.25

# Movement at which speaking is as likely as not: of landmarks in shares of the distance between the eyes, of crops in
# shares of their contrast. Landmarks are whole pixels and tremble, crops follow every change of light: with both at
# hand it is their geometric mean that counts. Of drawn speakers, half of the frames at rest show less than 0.007 and
# 0.075, nine tenths of those in speech more than 0.012 and 0.12.
LANDMARK_MOVEMENT = 0.013
CROP_MOVEMENT = 0.145
STEEPNESS = 4.0

# What counts as movement of a face follows what is usual for it: between its rest and its speech in the last twelve
# seconds, within bounds, for a face may have done nothing but rest. Chosen on clips of the validation speakers.
MAX_HISTORY_FRAMES, MIN_HISTORY_FRAMES, THRESHOLD_INTERVAL_FRAMES = 300, 50, 5
REST_QUANTILE, SPEECH_QUANTILE, SPEECH_WEIGHT = 0.15, 0.6, 0.4
MIN_THRESHOLD, MAX_THRESHOLD = 0.7, 1.8

# Of a crop of 96 x 96 the mouth and chin, reduced until a pixel's jitter in the alignment no longer shows.
CROP_ROWS, CROP_COLUMNS = slice(28, 76), slice(16, 80)
REDUCED_CROP_SIZE = (8, 6)

MAX_LAG_FRAMES = 4
MIN_CORRELATION_FRAMES = 8


class MotionEstimator:
    """Measures how much a few numbers vary about their trend in the third of a second around each frame, as they come.

    The value of a frame is known four frames later. Frames that were skipped, and frames without numbers, get the
    variation of those around them, and 0 where too few are known.
    """

    def __init__(self) -> None:
        self._recent: deque[NDArray[np.float64] | None] = deque(maxlen=WINDOW_FRAMES)
        self._next_index: int | None = None
        self._pending = 0  # frames taken in whose value has not been given

    def push(self, frame_index: int, values: NDArray[np.float64] | None) -> list[float]:
        """Take in the numbers of a frame; give the values that are known with it.

        Args:
            frame_index: rises from call to call; where it skips, frames without numbers are filled in.
            values: (K,), or None where the frame has none.
        """
        variation: list[float] = []
        for _ in range(self._next_index or frame_index, frame_index):
            variation += self._push(None)
        self._next_index = frame_index + 1
        return variation + self._push(values)

    def flush(self) -> list[float]:
        """The values of the last frames, and a new start."""
        values: list[float] = []
        while self._pending:
            self._recent.append(None)
            values.append(self._variation())
            self._pending -= 1
        self._recent.clear()
        self._next_index = None
        return values

    def _push(self, numbers: NDArray[np.float64] | None) -> list[float]:
        self._recent.append(numbers)
        self._pending += 1
        if self._pending <= WINDOW_FRAMES // 2:
            return []
        self._pending -= 1
        return [self._variation()]

    def _variation(self) -> float:
        known = [time for time, numbers in enumerate(self._recent) if numbers is not None]
        if len(known) < MIN_SEEN_FRAMES:
            return 0.0
        times = np.array(known, np.float64)
        series = np.array([self._recent[time] for time in known])
        times -= np.add.reduce(times) / len(known)
        series -= np.add.reduce(series) / len(known)
        # A head that turns changes what lips look like, but steadily: what follows the trend is no movement of theirs.
        rest = series - np.multiply.outer(times, times @ series / (times @ times))
        # The trend takes two frames' freedom, which weighs the more the more frames in between are not known.
        within = known[-1] - known[0] + 1
        freedom = (1 - 2 / within) / (1 - 2 / len(known))
        return math.sqrt(np.vdot(rest, rest) / len(known) * freedom)


class VisualVoiceActivityDetector:
    """Judges from landmarks and mouth crops, as they come, how likely a mouth is speaking."""

    def __init__(self) -> None:
        self._landmark_meter, self._crop_meter = MotionEstimator(), MotionEstimator()
        self._threshold = AdaptiveThreshold()

    def push(
        self, frame_index: int, landmarks: NDArray[np.floating[Any]] | None, crop: NDArray[np.uint8] | None
    ) -> list[float]:
        """Take in a frame; skipped frames count as frames without a face.

        Args:
            frame_index: rises from call to call.
            landmarks: (68, 2), or None where the face is not seen.
            crop: of the same frame, uint8 (96, 96), or None where there is none.

        Returns:
            Probabilities, 0 to 1, of the frames that are known now, in order: each comes four frames late.
        """
        return self._to_probabilities(
            self._landmark_meter.push(
                frame_index, None if landmarks is None else compute_lip_shape(landmarks)
            ),
            self._crop_meter.push(frame_index, None if crop is None else compute_crop_shape(crop)),
        )

    def flush(self) -> list[float]:
        """The probabilities of the last frames."""
        return self._to_probabilities(self._landmark_meter.flush(), self._crop_meter.flush())

    def _to_probabilities(self, of_landmarks: list[float], of_crops: list[float]) -> list[float]:
        movement = [
            math.sqrt(landmarks / LANDMARK_MOVEMENT * crop / CROP_MOVEMENT)
            for landmarks, crop in zip(of_landmarks, of_crops, strict=True)
        ]
        return _to_probabilities((value / self._threshold.push(value) for value in movement), 1.0)


class AdaptiveThreshold:
    """Learns, as one face moves, where its rest ends and its speech begins: 1 for a face like any other."""

    def __init__(self) -> None:
        self._recent = RollingQuantile(MAX_HISTORY_FRAMES)
        self._pushed = 0
        self._threshold = 1.0

    def push(self, movement: float) -> float:
        """Take in the next frame's movement; give the border that it is to be compared with."""
        self._recent.push(movement)
        self._pushed += 1
        if len(self._recent) >= MIN_HISTORY_FRAMES and self._pushed % THRESHOLD_INTERVAL_FRAMES == 0:
            rest, speech = map(self._recent.quantile, (REST_QUANTILE, SPEECH_QUANTILE))
            between = rest ** (1 - SPEECH_WEIGHT) * speech**SPEECH_WEIGHT
            self._threshold = float(np.clip(between, MIN_THRESHOLD, MAX_THRESHOLD))
        return self._threshold


class CropVoiceActivityDetector:
    """Judges from mouth crops alone, as they come, how likely the mouth is speaking."""

    def __init__(self) -> None:
        self._meter = MotionEstimator()

    def push(self, frame_index: int, crop: NDArray[np.uint8] | None) -> list[float]:
        """Take in a crop, uint8 (96, 96), or None where there is none; skipped frames count likewise.

        Returns:
            Probabilities, 0 to 1, of the frames that are known now, in order: each comes four frames late.
        """
        numbers = None if crop is None else compute_crop_shape(crop)
        return _to_probabilities(self._meter.push(frame_index, numbers), CROP_MOVEMENT)

    def flush(self) -> list[float]:
        """The probabilities of the last frames."""
        return _to_probabilities(self._meter.flush(), CROP_MOVEMENT)


def audio_visual_correlation(
    mouth_movement: NDArray[np.floating[Any]], speech: NDArray[np.floating[Any]]
) -> float:
    """Whether a mouth moves with the sound: their correlation, at the shift of up to 4 frames that suits them best.

    Of several faces the one with the greatest agreement is the likeliest speaker.

    Args:
        mouth_movement: (T,) at 25 Hz: movement, opening or speaking probability.
        speech: (T,) at 25 Hz: level or probability of speech.

    Returns:
        -1 to 1; 0 where one of them does not change, or both are shorter than a third of a second.
    """
    length = min(len(mouth_movement), len(speech))
    if length < MIN_CORRELATION_FRAMES:
        return 0.0
    most = min(MAX_LAG_FRAMES, length - MIN_CORRELATION_FRAMES)
    moves, sounds = mouth_movement[:length], speech[:length]
    return max(
        _correlation(moves[max(0, lag) : length + min(0, lag)], sounds[max(0, -lag) : length - max(0, lag)])
        for lag in range(-most, most + 1)
    )


def compute_lip_shape(landmarks: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Opening between the lips and width of the mouth, in shares of the distance between the eyes: (2,)."""
    points = landmarks.astype(np.float64)
    eyes_apart = (np.add.reduce(points[RIGHT_EYE]) - np.add.reduce(points[LEFT_EYE])) / EYE_POINTS
    gaps = points[LOWER_LIP] - points[UPPER_LIP]
    opening = float(np.add.reduce(np.hypot(gaps[:, 0], gaps[:, 1]))) / len(UPPER_LIP)
    width = math.hypot(*(points[MOUTH_CORNERS[1]] - points[MOUTH_CORNERS[0]]))
    return np.array([opening, WIDTH_WEIGHT * width]) / max(math.hypot(*eyes_apart), 1.0)


def compute_crop_shape(crop: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The mouth in a few grey values whose mean is 0 and whose squares sum to 1: (48,)."""
    small = cv2.resize(crop[CROP_ROWS, CROP_COLUMNS], REDUCED_CROP_SIZE, interpolation=cv2.INTER_AREA)
    values = small.astype(np.float64).ravel()
    values -= np.add.reduce(values) / len(values)
    return np.asarray(values / max(math.sqrt(values @ values), 1.0))


def _to_probabilities(movement: Iterable[float], threshold: float) -> list[float]:
    """A logistic curve over the logarithm of the movement: 1/2 at ``threshold``, 0 for none."""
    return [float(value**STEEPNESS / (value**STEEPNESS + threshold**STEEPNESS)) for value in movement]


def _correlation(one: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> float:
    one, other = one - one.mean(), other - other.mean()
    spread = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / spread if spread > 1e-6 else 0.0
