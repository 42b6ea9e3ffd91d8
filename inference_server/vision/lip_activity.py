"""Visual voice activity: lip motion from landmarks and mouth crops, and its correlation with the audio."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from gorggle_server.vision.face_track import LEFT_EYE, RIGHT_EYE
from gorggle_server.vision.landmark_model import LandmarkModelName
from gorggle_server.vision.rolling_quantile import RollingQuantile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

# Motion is measured over this window around each frame: 0.36 s, more than a syllable. A longer window would bridge the
# pauses between sentences.
WINDOW_FRAMES = 9
MIN_SEEN_FRAMES = 4

# iBUG order: three point pairs on the inner lips, three on the outer lips, and the mouth corners, which are the
# least accurate.
UPPER_LIP, LOWER_LIP = [50, 51, 52, 61, 62, 63], [58, 57, 56, 67, 66, 65]
MOUTH_CORNERS = (48, 54)
WIDTH_WEIGHT = 0.25

# Motion at which the speaking probability is 0.5: of landmarks relative to the eye distance, of crops relative to their
# contrast. Landmarks jitter, crops react to changes of light, so their geometric mean is used. For synthetic speakers, the
# median at rest is 0.007 (dlib) and 0.075; 90 % of speech frames exceed 0.012 and 0.12. The mesh jitters half as much as
# dlib's whole pixels, and its lips move 0.6 to 0.85 times as far (nine speakers of GRID).
LANDMARK_MOVEMENT = {LandmarkModelName.DLIB: 0.013, LandmarkModelName.MEDIAPIPE: 0.009}
CROP_MOVEMENT = 0.145
STEEPNESS = 4.0

# The threshold adapts to each face: between its rest and speech quantiles of the last 12 s, within bounds, because a
# face may only have been at rest. Tuned on clips of the validation speakers.
MAX_HISTORY_FRAMES, MIN_HISTORY_FRAMES, THRESHOLD_INTERVAL_FRAMES = 300, 50, 5
REST_QUANTILE, SPEECH_QUANTILE, SPEECH_WEIGHT = 0.15, 0.6, 0.4
MIN_THRESHOLD, MAX_THRESHOLD = 0.7, 1.8

# Mouth and chin in the 96 x 96 crop, downscaled so that alignment jitter of one pixel does not matter.
CROP_ROWS, CROP_COLUMNS = slice(28, 76), slice(16, 80)
REDUCED_CROP_SIZE = (8, 6)

MAX_LAG_FRAMES = 4
MIN_CORRELATION_FRAMES = 8


class MotionEstimator:
    """Measures the deviation of a few values from their linear trend in a window around each frame.

    The result for a frame is available four frames later. Frames that are missing or without values get the deviation
    of their neighbours, or 0 if too few are known.
    """

    def __init__(self) -> None:
        self._recent: deque[NDArray[np.float64] | None] = deque(maxlen=WINDOW_FRAMES)
        self._next_index: int | None = None
        self._pending = 0  # frames pushed whose result has not been returned

    def push(self, frame_index: int, values: NDArray[np.float64] | None) -> list[float]:
        """Add the values of a frame; return the results that are now complete.

        Args:
            frame_index: increasing; missing frames count as frames without values.
            values: (K,), or None.
        """
        variation: list[float] = []
        for _ in range(self._next_index or frame_index, frame_index):
            variation += self._push(None)
        self._next_index = frame_index + 1
        return variation + self._push(values)

    def flush(self) -> list[float]:
        """Return the results of the last frames and reset."""
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
        # A turning head changes the appearance of the lips steadily, so the linear trend is not lip motion.
        rest = series - np.multiply.outer(times, times @ series / (times @ times))
        # The trend takes two degrees of freedom; correct for their larger weight when frames are missing.
        within = known[-1] - known[0] + 1
        freedom = (1 - 2 / within) / (1 - 2 / len(known))
        return math.sqrt(np.vdot(rest, rest) / len(known) * freedom)


class VisualVoiceActivityDetector:
    """Estimates the speaking probability of a mouth from landmarks and crops, frame by frame."""

    def __init__(self, landmark_model: LandmarkModelName = LandmarkModelName.DLIB) -> None:
        self._landmark_movement = LANDMARK_MOVEMENT[landmark_model]
        self._landmark_meter, self._crop_meter = MotionEstimator(), MotionEstimator()
        self._threshold = AdaptiveThreshold()

    def push(
        self, frame_index: int, landmarks: NDArray[np.floating[Any]] | None, crop: NDArray[np.uint8] | None
    ) -> list[float]:
        """Add a frame; missing frames count as frames without a face.

        Args:
            frame_index: increasing.
            landmarks: (68, 2), or None without a visible face.
            crop: of the same frame, uint8 (96, 96), or None.

        Returns:
            Probabilities, 0 to 1, of the frames now complete, in order; four frames of latency.
        """
        lips = None if landmarks is None else compute_lip_shape(landmarks)
        mouth = None if crop is None else compute_crop_shape(crop)
        return self._to_probabilities(
            self._landmark_meter.push(frame_index, lips), self._crop_meter.push(frame_index, mouth)
        )

    def flush(self) -> list[float]:
        """Return the probabilities of the last frames."""
        return self._to_probabilities(self._landmark_meter.flush(), self._crop_meter.flush())

    def _to_probabilities(self, of_landmarks: list[float], of_crops: list[float]) -> list[float]:
        movement = [
            math.sqrt(landmarks / self._landmark_movement * crop / CROP_MOVEMENT)
            for landmarks, crop in zip(of_landmarks, of_crops, strict=True)
        ]
        return _to_probabilities((value / self._threshold.push(value) for value in movement), 1.0)


class AdaptiveThreshold:
    """Adapts the motion threshold to one face, relative to 1 for an average face."""

    def __init__(self) -> None:
        self._recent = RollingQuantile(MAX_HISTORY_FRAMES)
        self._pushed = 0
        self._threshold = 1.0

    def push(self, movement: float) -> float:
        """Add the next frame's motion; return the threshold to compare it with."""
        self._recent.push(movement)
        self._pushed += 1
        if len(self._recent) >= MIN_HISTORY_FRAMES and self._pushed % THRESHOLD_INTERVAL_FRAMES == 0:
            rest, speech = map(self._recent.quantile, (REST_QUANTILE, SPEECH_QUANTILE))
            between = rest ** (1 - SPEECH_WEIGHT) * speech**SPEECH_WEIGHT
            self._threshold = float(np.clip(between, MIN_THRESHOLD, MAX_THRESHOLD))
        return self._threshold


class CropVoiceActivityDetector:
    """Estimates the speaking probability of a mouth from crops only, frame by frame."""

    def __init__(self) -> None:
        self._meter = MotionEstimator()

    def push(self, frame_index: int, crop: NDArray[np.uint8] | None) -> list[float]:
        """Add a crop, uint8 (96, 96), or None; missing frames count as None.

        Returns:
            As ``VisualVoiceActivityDetector.push``.
        """
        numbers = None if crop is None else compute_crop_shape(crop)
        return _to_probabilities(self._meter.push(frame_index, numbers), CROP_MOVEMENT)

    def flush(self) -> list[float]:
        """Return the probabilities of the last frames."""
        return _to_probabilities(self._meter.flush(), CROP_MOVEMENT)


def audio_visual_correlation(
    mouth_movement: NDArray[np.floating[Any]], speech: NDArray[np.floating[Any]]
) -> float:
    """Return the maximum correlation of mouth motion and speech over lags of up to 4 frames.

    The face with the highest correlation is the most likely speaker.

    Args:
        mouth_movement: (T,) at 25 Hz: motion, opening or speaking probability.
        speech: (T,) at 25 Hz: level or probability of speech.

    Returns:
        -1 to 1; 0 if one of them is constant or there are fewer than 8 frames.
    """
    length = min(len(mouth_movement), len(speech))
    if length < MIN_CORRELATION_FRAMES:
        return 0.0
    max_lag = min(MAX_LAG_FRAMES, length - MIN_CORRELATION_FRAMES)
    motion, speech = mouth_movement[:length], speech[:length]
    return max(
        _correlation(motion[max(0, lag) : length + min(0, lag)], speech[max(0, -lag) : length - max(0, lag)])
        for lag in range(-max_lag, max_lag + 1)
    )


def compute_lip_shape(landmarks: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the lip opening and mouth width relative to the eye distance, (2,)."""
    points = landmarks.astype(np.float64)
    eyes_apart = (np.add.reduce(points[RIGHT_EYE]) - np.add.reduce(points[LEFT_EYE])) / 6
    gaps = points[LOWER_LIP] - points[UPPER_LIP]
    opening = float(np.add.reduce(np.hypot(gaps[:, 0], gaps[:, 1]))) / len(UPPER_LIP)
    width = math.hypot(*(points[MOUTH_CORNERS[1]] - points[MOUTH_CORNERS[0]]))
    return np.array([opening, WIDTH_WEIGHT * width]) / max(math.hypot(*eyes_apart), 1.0)


def compute_crop_shape(crop: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the downscaled mouth region, normalised to mean 0 and norm 1, (48,)."""
    small = cv2.resize(crop[CROP_ROWS, CROP_COLUMNS], REDUCED_CROP_SIZE, interpolation=cv2.INTER_AREA)
    values = small.astype(np.float64).ravel()
    values -= np.add.reduce(values) / len(values)
    return np.asarray(values / max(math.sqrt(values @ values), 1.0))


def _to_probabilities(movement: Iterable[float], threshold: float) -> list[float]:
    """Map motion to probabilities by a logistic curve of its logarithm: 0.5 at the threshold, 0 without motion."""
    return [float(value**STEEPNESS / (value**STEEPNESS + threshold**STEEPNESS)) for value in movement]


def _correlation(one: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> float:
    one, other = one - one.mean(), other - other.mean()
    spread = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / spread if spread > 1e-6 else 0.0
