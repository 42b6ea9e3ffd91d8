"""Cuts the aligned grayscale mouth crops that the model takes, frame by frame.

As in AV-HuBERT's preprocessing (paper, section A.1, and its reference implementation): landmarks are averaged over the
frame and the eleven following ones; a similarity transform maps the averaged nose and eye corners to those of the mean
face in a 256 x 256 canvas; the crop is 96 x 96 around the frame's own mouth landmarks. Warp and crop are done in one
step, so that only the pixels of the crop are computed.
"""

from __future__ import annotations

import json
import math
from collections import deque
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from gorggle_server.errors import InvalidRequestError, NoFaceError
from gorggle_server.input_format import MIN_FACE_WIDTH_PX, MOUTH_CROP_SIZE_PX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

CANVAS_PX = 256
SMOOTHING_FRAMES = 12
LANDMARKS = 68

# Landmarks (iBUG order) that do not move in speech: below the nose, and the corners of the eyes.
STABLE_POINTS = [33, 36, 39, 42, 45]
MOUTH_POINTS = slice(48, 68)

# A face that is absent for longer starts a new track when it returns; until then a streaming cropper waits for its landmarks.
MAX_ABSENCE_FRAMES = 25

# Larger frames are not kept. Their faces are, with the face's own size around them, reduced so that the landmarks span
# less than twice this. In the crop they span about 130 pixels.
MAX_KEPT_PIXELS = 1280 * 720
MIN_REDUCED_FACE_PX = 256

MEAN_FACE_FILE = Path(__file__).parents[1] / "assets" / "mean_face.json"


class MouthCrop(NamedTuple):
    """The mouth crop of one frame, uint8 (96, 96)."""

    frame_index: int
    pixels: NDArray[np.uint8]


@cache
def load_mean_face() -> NDArray[np.float64]:
    """Return the mean face's landmarks in the 256 x 256 canvas: (68, 2), read-only."""
    points = np.array(json.loads(MEAN_FACE_FILE.read_text())["points"])
    points.setflags(write=False)
    return points


def crop_mouths(
    frames: NDArray[np.uint8],
    landmarks: Sequence[NDArray[np.floating] | NDArray[np.integer] | None],
    mean_face: NDArray[np.floating],
    *,
    resize_without_face: bool = False,
) -> NDArray[np.uint8]:
    """Cut the mouth out of every frame of a clip.

    Args:
        frames: uint8 (T, H, W), grayscale, 25 fps.
        landmarks: T arrays of (68, 2), pixels, x before y; None where no face was found. Missing ones are
            interpolated between their neighbours, and held at both ends.
        mean_face: (68, 2) in a canvas of 256 x 256 pixels.
        resize_without_face: if no frame has a face, return the whole frames scaled to the crop size (as the reference
            does) instead of raising an error.

    Returns:
        uint8 (T, 96, 96).

    Raises:
        NoFaceError: no frame has a face.
        InvalidRequestError: a shape or dtype is not as above.
    """
    _validate_clip(frames, landmarks)
    if all(points is None for points in landmarks):
        if resize_without_face and len(frames):
            return np.stack(
                [cv2.resize(frame, (MOUTH_CROP_SIZE_PX, MOUTH_CROP_SIZE_PX)) for frame in frames]
            ).astype(np.uint8)
        raise NoFaceError(
            f"no face was found in {len(frames)} frames; "
            f"send a video that shows the speaker's face from the front, at least {MIN_FACE_WIDTH_PX} pixels wide"
        )
    cropper = MouthCropper(mean_face, max_gap_frames=None)
    crops = [
        crop
        for index, (frame, points) in enumerate(zip(frames, landmarks, strict=True))
        for crop in cropper.push(index, frame, points)
    ]
    crops += cropper.flush()
    return np.stack([crop.pixels for crop in crops])


class FrameRegion(NamedTuple):
    """A part of a frame.

    Attributes:
        pixels: uint8 (H, W); the frame itself if it is small.
        left: first column, in the frame.
        top: first row, in the frame.
        reduction: the whole number of frame pixels per pixel.
    """

    pixels: NDArray[np.uint8]
    left: int = 0
    top: int = 0
    reduction: int = 1

    @classmethod
    def around(cls, frame: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> FrameRegion:
        """Return the region around a face with landmarks (68, 2), large enough for its crop."""
        if frame.size <= MAX_KEPT_PIXELS:
            return cls(frame)
        first, last = np.minimum.reduce(landmarks), np.maximum.reduce(landmarks)
        span = float((last - first).max())
        (left, top), (right, bottom) = (
            np.clip(edge, 0, frame.shape[::-1]).astype(int).tolist() for edge in (first - span, last + span)
        )
        region = frame[top : max(bottom, top + 1), left : max(right, left + 1)]
        if not region.size:  # the landmarks are outside of the frame
            return cls(np.zeros((1, 1), np.uint8))
        return cls._reduce(region, left, top, max(1, int(span / MIN_REDUCED_FACE_PX)))

    @classmethod
    def whole(cls, frame: NDArray[np.uint8]) -> FrameRegion:
        """Return the whole frame, reduced if it is large."""
        if frame.size <= MAX_KEPT_PIXELS:
            return cls(frame)
        return cls._reduce(frame, 0, 0, math.ceil(math.sqrt(frame.size / MAX_KEPT_PIXELS)))

    @classmethod
    def _reduce(cls, part: NDArray[np.uint8], left: int, top: int, reduction: int) -> FrameRegion:
        reduction = min(reduction, *part.shape)
        if reduction == 1:
            return cls(part.copy(), left, top)
        height, width = (side // reduction for side in part.shape)
        whole_pixels = part[: height * reduction, : width * reduction]
        reduced = cv2.resize(whole_pixels, (width, height), interpolation=cv2.INTER_AREA)
        return cls(np.asarray(reduced, np.uint8), left, top, reduction)

    def warp(
        self, transform: NDArray[np.float64], side_px: int, border_mode: int = cv2.BORDER_CONSTANT
    ) -> NDArray[np.uint8]:
        """Return the square of this side to which ``transform`` (2, 3) maps the frame."""
        centre = (self.reduction - 1) / 2
        from_region = np.array(
            [[self.reduction, 0, self.left + centre], [0, self.reduction, self.top + centre], [0, 0, 1]]
        )
        warped = cv2.warpAffine(
            self.pixels, transform @ from_region, (side_px, side_px), borderMode=border_mode
        )
        return np.asarray(warped, np.uint8)


@dataclass(eq=False)
class _PendingFrame:
    """A frame that waits for the following ones, with its landmarks (68, 2) and its stable landmarks (5, 2)."""

    index: int
    region: FrameRegion
    landmarks: NDArray[np.float64]
    stable: NDArray[np.float64]

    @classmethod
    def create(cls, index: int, region: FrameRegion, landmarks: NDArray[np.float64]) -> _PendingFrame:
        return cls(index, region, landmarks, landmarks[STABLE_POINTS])


class MouthCropper:
    """Cuts the mouth crops of one tracked face from a sequence of frames.

    A crop needs the landmarks of the eleven following frames and, if its frame has no face, those of the next frame
    with one. Until then the frame is kept by reference; croppers of the same video share its frames (0.9 MB each at
    1280 x 720). Of a larger frame, the region around the face is kept, or without a face a reduced frame. At most
    11 + ``max_gap_frames`` frames are kept.

    Args:
        mean_face: (68, 2) in a canvas of 256 x 256 pixels.
        max_gap_frames: after this many consecutive frames without a face the last landmarks are used; frames before
            the first face yield no crop. None: no limit, for clips that are in memory anyway.
    """

    def __init__(
        self, mean_face: NDArray[np.floating], max_gap_frames: int | None = MAX_ABSENCE_FRAMES
    ) -> None:
        self._stable_target = np.asarray(mean_face, np.float64)[STABLE_POINTS]
        self._max_gap_frames = max_gap_frames
        self._pending: deque[_PendingFrame] = deque()  # with landmarks, detected or interpolated
        self._gap: deque[tuple[int, FrameRegion]] = deque()  # the latest frames, without landmarks
        self._last_landmarks: NDArray[np.float64] | None = None
        self._last_transform: NDArray[np.float64] | None = None

    def push(
        self,
        frame_index: int,
        frame: NDArray[np.uint8],
        landmarks: NDArray[np.floating] | NDArray[np.integer] | None,
    ) -> list[MouthCrop]:
        """Add the next frame; return the crops that are ready, in order.

        Args:
            frame_index: returned with the crop; increases by one per call.
            frame: uint8 (H, W), grayscale; must not change afterwards.
            landmarks: (68, 2), pixels, x before y; None without a visible face.
        """
        if landmarks is None:
            self._gap.append((frame_index, FrameRegion.whole(frame)))
            if self._max_gap_frames is not None and len(self._gap) > self._max_gap_frames:
                self._expire_oldest_gap_frame()
        else:
            points = np.asarray(landmarks, np.float64)
            self._fill_gap(self._last_landmarks, points)
            self._pending.append(_PendingFrame.create(frame_index, FrameRegion.around(frame, points), points))
            self._last_landmarks = points
        return list(self._pop_ready())

    def flush(self) -> list[MouthCrop]:
        """Return the crops of the pending frames at the end of a track, and reset.

        They use the last transform, which in a track of fewer than twelve frames is the average of all.
        """
        if self._last_landmarks is not None:
            self._fill_gap(self._last_landmarks, self._last_landmarks)
        crops = list(self._pop_ready())
        if self._pending and self._last_transform is None:
            self._last_transform = self._estimate_transform()
        crops += [self._crop(held) for held in self._pending]
        self._pending.clear()
        self._gap.clear()
        self._last_landmarks = self._last_transform = None
        return crops

    def _expire_oldest_gap_frame(self) -> None:
        """Assign the last landmarks to the oldest frame of the gap."""
        oldest = self._gap.popleft()
        if self._last_landmarks is not None:
            self._pending.append(_PendingFrame.create(*oldest, self._last_landmarks))

    def _fill_gap(self, before: NDArray[np.float64] | None, after: NDArray[np.float64]) -> None:
        before = after if before is None else before
        for position, (index, region) in enumerate(self._gap, start=1):
            between = before + (after - before) * (position / (len(self._gap) + 1))
            self._pending.append(_PendingFrame.create(index, region, between))
        self._gap.clear()

    def _pop_ready(self) -> Iterator[MouthCrop]:
        while len(self._pending) >= SMOOTHING_FRAMES:
            self._last_transform = self._estimate_transform()
            yield self._crop(self._pending.popleft())

    def _estimate_transform(self) -> NDArray[np.float64]:
        stable = [held.stable for held in islice(self._pending, SMOOTHING_FRAMES)]
        return estimate_similarity(np.add.reduce(stable) / len(stable), self._stable_target)

    def _crop(self, held: _PendingFrame) -> MouthCrop:
        assert self._last_transform is not None, "the first transform precedes the first crop"
        return MouthCrop(held.index, cut_crop(held.region, held.landmarks, self._last_transform))


class LowLatencyMouthCropper:
    """Cuts mouth crops without latency, aligned by the frame and the eleven previous ones.

    Used for visual voice activity and previews; the model takes the crops of ``MouthCropper``.
    """

    def __init__(self, mean_face: NDArray[np.floating]) -> None:
        self._stable_target = np.asarray(mean_face, np.float64)[STABLE_POINTS]
        self._stable: deque[NDArray[np.float64]] = deque(maxlen=SMOOTHING_FRAMES)

    def push(self, frame: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Return the crop, uint8 (96, 96), of a grayscale frame (H, W) with landmarks (68, 2), pixels, x before y."""
        points = np.asarray(landmarks, np.float64)
        self._stable.append(points[STABLE_POINTS])
        mean = np.add.reduce(self._stable) / len(self._stable)
        region = FrameRegion.around(frame, points)
        return cut_crop(region, points, estimate_similarity(mean, self._stable_target))


def cut_crop(
    region: FrameRegion, landmarks: NDArray[np.float64], transform: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Cut the 96 x 96 square around the mouth in the canvas that ``transform`` (2, 3) maps to."""
    mouth = np.add.reduce(landmarks[MOUTH_POINTS]) / (LANDMARKS - MOUTH_POINTS.start)
    centre = transform[:, :2] @ mouth + transform[:, 2]
    half = MOUTH_CROP_SIZE_PX // 2
    to_crop = transform.copy()
    for axis in (0, 1):
        to_crop[axis, 2] -= min(max(round(float(centre[axis])), half), CANVAS_PX - half) - half
    return region.warp(to_crop, MOUTH_CROP_SIZE_PX)


def estimate_similarity(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the least-squares similarity transform (2, 3) between points (N, 2): rotation, scale and translation.

    With points as complex numbers this is a linear regression, ``target = a * source + b``. It is called several times
    per frame on few points, so numpy's convenience functions are avoided for their overhead.
    """
    from_points, to_points = _to_complex(source), _to_complex(target)
    count = len(from_points)
    from_mean, to_mean = np.add.reduce(from_points) / count, np.add.reduce(to_points) / count
    centred = from_points - from_mean
    spread = np.vdot(centred, centred).real
    factor = np.vdot(centred, to_points - to_mean) / spread if spread > 0 else 1.0 + 0j
    shift = to_mean - factor * from_mean
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def _to_complex(points: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Return points (N, 2) as complex numbers x + iy (N,)."""
    numbers: NDArray[np.complex128] = np.ascontiguousarray(points, np.float64).view(np.complex128)[:, 0]
    return numbers


def _validate_clip(frames: NDArray[np.uint8], landmarks: Sequence[NDArray[Any] | None]) -> None:
    if frames.ndim != 3 or frames.dtype != np.uint8:
        raise InvalidRequestError(
            f"the frames are {frames.dtype} {frames.shape}; expected uint8 of shape (T, H, W)"
        )
    if len(landmarks) != len(frames):
        raise InvalidRequestError(
            f"there are {len(landmarks)} landmarks for {len(frames)} frames; expected one per frame"
        )
    shapes: set[tuple[int, ...]] = {points.shape for points in landmarks if points is not None}
    for wrong in shapes - {(LANDMARKS, 2)}:
        raise InvalidRequestError(f"landmarks have the shape {wrong}; expected (68, 2), x before y")
