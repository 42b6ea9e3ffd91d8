"""Video of a talking head whose every landmark is known: a photograph that is moved, and whose mouth opens.

The photographs are in the public domain and come inside packages that the tests need anyway: NASA's portrait of Eileen
Collins (scikit-image) and the US Navy's of Grace Hopper (matplotlib).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from skimage import data

from gorggle_server.vision.face_detector import FaceDetector

MOUTH = slice(48, 68)


@dataclass(frozen=True)
class Head:
    """A photograph, grey or RGB, and its face's landmarks (68, 2)."""

    photograph: NDArray[np.uint8]
    landmarks: NDArray[np.float64]

    @property
    def centre(self) -> NDArray[np.float64]:
        return self.landmarks.mean(axis=0)

    @property
    def eye_distance(self) -> float:
        return float(np.linalg.norm(self.landmarks[36:42].mean(axis=0) - self.landmarks[42:48].mean(axis=0)))

    def speaking(self, opening: float) -> Head:
        """The same with the mouth opened by a share of the distance between the eyes: what is below moves down."""
        if opening <= 0:
            return self
        reach = opening * self.eye_distance
        lip_line, left, right = self._lip_line()
        height, width = self.photograph.shape[:2]
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
        across = np.clip((columns - left) / (right - left), 0, 1)
        drop = (
            reach * np.sin(np.pi * across) * np.clip(1 - (rows - lip_line) / (2.5 * self.eye_distance), 0, 1)
        )
        below = rows > lip_line
        image = cv2.remap(
            self.photograph, columns, np.where(below, rows - drop, rows).astype(np.float32), cv2.INTER_LINEAR
        )
        image[below & (rows - lip_line < drop)] = 20
        landmarks = self.landmarks.copy()
        lower = [55, 56, 57, 58, 59, 65, 66, 67]
        share = np.clip((landmarks[lower, 0] - left) / (right - left), 0, 1)
        landmarks[lower, 1] += reach * np.sin(np.pi * share)
        return Head(image, landmarks)

    def _lip_line(self) -> tuple[float, float, float]:
        points = self.landmarks
        return float(points[[61, 62, 63, 65, 66, 67], 1].mean()), float(points[48, 0]), float(points[54, 0])


@dataclass(frozen=True)
class Pose:
    """Where a head is in the frame: eye distance and place in pixels, turn in degrees, mouth in eye distances."""

    x: float
    y: float
    eyes_px: float
    turn: float = 0.0
    opening: float = 0.0


@cache
def finder() -> FaceDetector:
    return FaceDetector()


@cache
def astronaut() -> Head:
    return _head(data.astronaut())


@cache
def hopper() -> Head:
    file = Path(mpl.get_data_path(), "sample_data", "grace_hopper.jpg")
    return _head(cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB))


def _head(photograph: NDArray[np.uint8]) -> Head:
    grey = cv2.cvtColor(photograph, cv2.COLOR_RGB2GRAY)
    enlarged = cv2.resize(grey, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)  # landmarks are whole pixels
    face = finder().detect(grey, 480)[0]
    landmarks = finder().predict_landmarks(enlarged, type(face.box)(*(3 * side for side in face.box)))
    return Head(photograph, (landmarks.astype(np.float64) + 0.5) / 3 - 0.5)


def painted(
    head: Head, pose: Pose, canvas: NDArray[np.uint8], *, cut_out: bool = False
) -> NDArray[np.float64]:
    """Put a head into the canvas (in place); return where its landmarks are.

    Args:
        cut_out: the face alone, with soft edges, instead of the whole photograph.
    """
    speaking = head.speaking(pose.opening)
    scale = pose.eyes_px / head.eye_distance
    matrix = cv2.getRotationMatrix2D(tuple(head.centre), pose.turn, scale)
    matrix[:, 2] += np.array([pose.x, pose.y]) - head.centre
    size = canvas.shape[1], canvas.shape[0]
    image = speaking.photograph
    if canvas.ndim == 2 and image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    moved = cv2.warpAffine(image, matrix, size, flags=interpolation, borderMode=cv2.BORDER_REPLICATE)
    if cut_out:
        mask = np.zeros(image.shape[:2], np.float32)
        reach = round(2.6 * head.eye_distance)
        cv2.ellipse(
            mask,
            tuple(np.rint(head.centre).astype(int).tolist()),
            (reach, round(1.3 * reach)),
            0,
            0,
            360,
            1,
            -1,
        )
        mask = cv2.warpAffine(cv2.GaussianBlur(mask, (0, 0), 5), matrix, size)
        mask = mask if canvas.ndim == 2 else mask[..., None]
        canvas[:] = np.rint(moved * mask + canvas * (1 - mask)).astype(np.uint8)
    else:
        canvas[:] = moved
    return speaking.landmarks @ matrix[:, :2].T + matrix[:, 2]


def syllables(frame: int) -> float:
    """How far a speaking mouth is open at a frame, in eye distances: some four syllables a second."""
    return 0.14 * max(0.0, np.sin(2 * np.pi * 4.1 * frame / 25)) * (0.75 + 0.25 * np.sin(frame * 0.7))


def swaying(width: int, height: int, frame: int, eyes_px: float, *, opening: float = 0.0) -> Pose:
    """A head that sways, nods, turns and leans as one does in a video call."""
    time_s = frame / 25
    return Pose(
        x=width * (0.5 + 0.06 * np.sin(1.3 * time_s)),
        y=height * (0.5 + 0.04 * np.sin(2.1 * time_s + 1)),
        eyes_px=eyes_px * (1 + 0.08 * np.sin(0.9 * time_s)),
        turn=7 * np.sin(1.1 * time_s),
        opening=opening,
    )
