"""Pictures of small, rolled and turned faces: two photographs in the public domain and a rendered speaker.

``skimage.data.camera`` (CC0) shows a man in profile, 60 pixels wide.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from gorggle_server.input_format import MIN_FACE_WIDTH_PX
from gorggle_server.media.demuxer import decode
from gorggle_server.media.resampling import GrayFrame, resample
from gorggle_server.recognition_options import MediaLimits
from gorggle_server.vision.face_detector import FaceDetector
from gorggle_server.vision.face_tracker import FaceTracker, TrackedFace
from gorggle_server.vision.landmark_model import LandmarkModelName
from tests.vision.synthetic_video import (
    MOUTH,
    Head,
    astronaut,
    drawn_head,
    hopper,
    paint_picture,
)

VGA, FULL_HD, UHD = (640, 480), (1920, 1080), (3840, 2160)
# Of the mouth of a turned face, in face widths; the truth are dlib's landmarks of the frontal photograph, turned.
MAX_TURNED_OFFSET = {LandmarkModelName.DLIB: 0.05, LandmarkModelName.MEDIAPIPE: 0.06}
# On a rendered face that is turned, the fits of MediaPipe's mesh differ by 4 to 12 %.
MAX_TURNED_RENDERED_OFFSET = {LandmarkModelName.DLIB: 0.05, LandmarkModelName.MEDIAPIPE: 0.15}


def find_only_face(detector: FaceDetector, frame: NDArray[np.uint8]) -> TrackedFace:
    (face,) = FaceTracker(detector).update(frame, 0)
    return face


@pytest.mark.parametrize(
    ("head", "size", "face_px", "roll_deg", "yaw_deg"),
    [
        (astronaut, FULL_HD, MIN_FACE_WIDTH_PX, 0, 0),
        (hopper, FULL_HD, MIN_FACE_WIDTH_PX, 0, 0),
        (drawn_head, FULL_HD, MIN_FACE_WIDTH_PX, 0, 0),
        (astronaut, UHD, MIN_FACE_WIDTH_PX, 0, 0),
        (drawn_head, UHD, MIN_FACE_WIDTH_PX, 0, 0),
        (astronaut, VGA, 120, 45, 0),
        (hopper, VGA, 120, -45, 0),
        (drawn_head, VGA, 120, 45, 0),
        (hopper, VGA, 60, 30, 0),
        (astronaut, FULL_HD, MIN_FACE_WIDTH_PX, -45, 0),
        (astronaut, VGA, 120, 0, 45),
        (hopper, VGA, 120, 0, -45),
        (drawn_head, VGA, 120, 0, 45),
        (astronaut, VGA, 120, 30, -25),
    ],
)
def test_a_small_rolled_or_turned_face_is_found_with_its_mouth(
    landmark_model: LandmarkModelName,
    detector: FaceDetector,
    head: Callable[[], Head],
    size: tuple[int, int],
    face_px: float,
    roll_deg: float,
    yaw_deg: float,
) -> None:
    frame, truth = paint_picture(head().turn(yaw_deg) if yaw_deg else head(), size, face_px, roll_deg)
    face = find_only_face(detector, frame)
    offset = np.linalg.norm((face.landmarks - truth)[MOUTH].mean(axis=0))
    turned_offset = MAX_TURNED_RENDERED_OFFSET if head is drawn_head else MAX_TURNED_OFFSET
    assert offset < (turned_offset[landmark_model] if yaw_deg else 0.03) * face_px


@pytest.mark.parametrize("face_px", [600, 1500])
def test_a_large_face_is_found_on_the_first_frame(detector: FaceDetector, face_px: float) -> None:
    frame, truth = paint_picture(drawn_head(), UHD, face_px)
    face = find_only_face(detector, frame)
    assert np.linalg.norm((face.landmarks - truth)[MOUTH].mean(axis=0)) < 0.03 * face_px


def test_a_photographed_man_in_profile_is_found(detector: FaceDetector) -> None:
    face = find_only_face(detector, data.camera())
    assert 50 < face.box.side < 90
    assert np.hypot(face.box.centre[0] - 240, face.box.centre[1] - 165) < 20


@pytest.mark.skipif(
    "GORGGLE_REAL_DATA" not in os.environ, reason="GORGGLE_REAL_DATA does not name a folder of real clips"
)
def test_real_speakers_are_tracked_on_every_frame(detector: FaceDetector) -> None:
    folders = sorted(Path(os.environ["GORGGLE_REAL_DATA"], "grid", "validation").iterdir())
    assert folders
    for folder in folders:
        with min(folder.glob("*.mkv")).open("rb") as file:
            tracker, limits = FaceTracker(detector), MediaLimits()
            for item in resample(decode(file, limits, audio=False), limits):
                if isinstance(item, GrayFrame):
                    assert [face.track_id for face in tracker.update(item.pixels, item.index)] == [1], folder
