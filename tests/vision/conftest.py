"""The detector with each landmark model."""

from __future__ import annotations

import pytest

from gorggle_server.vision.face_detector import FaceDetector
from gorggle_server.vision.landmark_model import LandmarkModelName
from tests.vision.synthetic_video import face_detector


@pytest.fixture(params=list(LandmarkModelName))
def landmark_model(request: pytest.FixtureRequest) -> LandmarkModelName:
    name: LandmarkModelName = request.param
    return name


@pytest.fixture
def detector(landmark_model: LandmarkModelName) -> FaceDetector:
    return face_detector(landmark_model)
