"""Synthetic video of a talking head with known landmarks: a photograph that is moved and whose mouth is opened.

The photographs are in the public domain and are included in packages that the tests require: NASA's portrait of Eileen
Collins (scikit-image) and the US Navy's of Grace Hopper (matplotlib).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import cv2
import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from skimage import data

from gorggle_server.vision.face_detector import FaceDetector
from gorggle_server.vision.face_geometry import BoundingBox, estimate_box
from gorggle_server.vision.landmark_model import LandmarkModel, LandmarkModelName
from gorggle_training.clips import demo_scene

MOUTH = slice(48, 68)


@dataclass(frozen=True)
class Head:
    """A photograph, grey or RGB, and the landmarks of its face, (68, 2)."""

    photograph: NDArray[np.uint8]
    landmarks: NDArray[np.float64]

    @property
    def centre(self) -> NDArray[np.float64]:
        return self.landmarks.mean(axis=0)

    @property
    def eye_distance(self) -> float:
        return float(np.linalg.norm(self.landmarks[36:42].mean(axis=0) - self.landmarks[42:48].mean(axis=0)))

    def open_mouth(self, opening: float) -> Head:
        """Return the head with its mouth opened by a fraction of the eye distance."""
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

    def turn(self, yaw_deg: float) -> Head:
        """Return the head turned to its left, as if the photograph lay on a cylinder."""
        yaw = np.radians(yaw_deg)
        axis_x = self.landmarks[27:31, 0].mean()
        radius = 0.6 * np.ptp(self.landmarks[:17, 0])
        height, width = self.photograph.shape[:2]
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
        angles = np.arcsin(np.clip((columns - axis_x) / radius, -1, 1)) - yaw
        sources = np.where(np.abs(angles) < np.pi / 2, axis_x + radius * np.sin(angles), -1)
        image = cv2.remap(self.photograph, sources.astype(np.float32), rows, cv2.INTER_LINEAR)
        landmarks = self.landmarks.copy()
        angles = np.arcsin(np.clip((landmarks[:, 0] - axis_x) / radius, -1, 1))
        landmarks[:, 0] = axis_x + radius * np.sin(np.clip(angles + yaw, -np.pi / 2, np.pi / 2))
        return Head(image, landmarks)

    def _lip_line(self) -> tuple[float, float, float]:
        """Return the row of the lips, and the columns of the left and right mouth corners."""
        points = self.landmarks
        return float(points[[61, 62, 63, 65, 66, 67], 1].mean()), float(points[48, 0]), float(points[54, 0])


@dataclass(frozen=True)
class Pose:
    """Position and eye distance in pixels, rotation in degrees, mouth opening in eye distances."""

    x: float
    y: float
    eyes_px: float
    turn: float = 0.0
    opening: float = 0.0


@cache
def face_detector(landmark_model: LandmarkModelName = LandmarkModelName.DLIB) -> FaceDetector:
    return FaceDetector(LandmarkModel(landmark_model))


@cache
def astronaut() -> Head:
    return _create_head(data.astronaut())


@cache
def drawn_head() -> Head:
    """Return a rendered head, looking straight ahead."""
    frame = next(iter(demo_scene().frames))
    return _create_head(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))


@cache
def hopper() -> Head:
    file = Path(mpl.get_data_path(), "sample_data", "grace_hopper.jpg")
    return _create_head(cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB))


def _create_head(photograph: NDArray[np.uint8]) -> Head:
    grey = cv2.cvtColor(photograph, cv2.COLOR_RGB2GRAY)
    # dlib returns landmarks in whole pixels; enlarging the image increases their precision.
    enlarged = cv2.resize(grey, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    face = face_detector().detect(grey, 480)[0]
    box = BoundingBox(*(3 * side for side in face.box))
    landmarks = face_detector().predict_landmarks(enlarged, box).points
    return Head(photograph, (landmarks.astype(np.float64) + 0.5) / 3 - 0.5)


def paint_head(
    head: Head, pose: Pose, canvas: NDArray[np.uint8], *, cut_out: bool = False
) -> NDArray[np.float64]:
    """Draw a head on the canvas (in place) and return its landmarks.

    Args:
        cut_out: draw only the face, with soft edges, instead of the whole photograph.
    """
    opened = head.open_mouth(pose.opening)
    scale = pose.eyes_px / head.eye_distance
    matrix = cv2.getRotationMatrix2D(tuple(head.centre), pose.turn, scale)
    matrix[:, 2] += np.array([pose.x, pose.y]) - head.centre
    size = canvas.shape[1], canvas.shape[0]
    image = opened.photograph
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
    return opened.landmarks @ matrix[:, :2].T + matrix[:, 2]


def make_frame(
    head: Head, eyes_px: float, size: tuple[int, int] = (640, 480), roll_deg: float = 0.0
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return a grayscale image with a head in its middle, and its landmarks."""
    canvas = np.zeros(size[::-1], np.uint8)
    truth = paint_head(head, Pose(size[0] / 2, size[1] / 2, eyes_px, turn=-roll_deg), canvas)
    return canvas, truth


def mouth_opening(frame: int) -> float:
    """Return the mouth opening of a speaker at a frame, in eye distances: about four syllables per second."""
    return 0.14 * max(0.0, np.sin(2 * np.pi * 4.1 * frame / 25)) * (0.75 + 0.25 * np.sin(frame * 0.7))


def swaying_pose(width: int, height: int, frame: int, eyes_px: float, *, opening: float = 0.0) -> Pose:
    """Return the pose of a head that sways, nods, rotates and leans as in a video call."""
    time_s = frame / 25
    return Pose(
        x=width * (0.5 + 0.06 * np.sin(1.3 * time_s)),
        y=height * (0.5 + 0.04 * np.sin(2.1 * time_s + 1)),
        eyes_px=eyes_px * (1 + 0.08 * np.sin(0.9 * time_s)),
        turn=7 * np.sin(1.1 * time_s),
        opening=opening,
    )


def paint_picture(
    head: Head, size: tuple[int, int], face_px: float, roll_deg: float = 0.0
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return a grayscale image with a head to the left of its middle, and its landmarks."""
    frame = np.full(size[::-1], 90, np.uint8)
    eyes_px = face_px * head.eye_distance / estimate_box(head.landmarks).side
    pose = Pose(0.4 * size[0], 0.5 * size[1], eyes_px, turn=-roll_deg)
    return frame, paint_head(head, pose, frame, cut_out=True)


def encode_frames(frames: Sequence[NDArray[np.uint8]]) -> bytes:
    """Return an MPEG-TS file of grayscale frames at 25 fps."""
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "20"})
        stream.height, stream.width = frames[0].shape
        stream.pix_fmt = "yuv420p"
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
