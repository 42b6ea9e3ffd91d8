"""Videos of 1280 x 720 with moving heads, for the vision benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gorggle_server.input_format import FRAME_RATE_HZ
from gorggle_training.clips import DEMO_VOICE, demo_scene, photo_scene
from gorggle_training.photo_animation import Photograph
from gorggle_training.sentences import DEMO_SENTENCES

SIZE_PX = (1280, 720)

Frame = NDArray[np.uint8]


def clips() -> dict[str, Callable[[], Iterator[Frame]]]:
    """Return talking speakers with natural head movement: one drawn, two animated photographs."""
    made: dict[str, Callable[[], Iterator[Frame]]] = {"drawn": lambda: enlarge(demo_scene().frames)}
    for photo in Photograph:
        made[f"photograph: {photo.value}"] = lambda photo=photo: iter(
            photo_scene(photo, DEMO_SENTENCES, DEMO_VOICE, size=SIZE_PX).frames
        )
    return made


def enlarge(frames: Any) -> Iterator[Frame]:
    """Scale frames of 640 x 480 to 1280 x 720, padded at the sides."""
    for frame in frames:
        image = cv2.resize(frame, (960, 720), interpolation=cv2.INTER_CUBIC)
        yield cv2.copyMakeBorder(image, 0, 0, 160, 160, cv2.BORDER_REPLICATE)


def roll_small_head(frames: Iterator[Frame]) -> Iterator[Frame]:
    """Show the frames at a third of their size, rolling by up to 45 degrees to either side."""
    for index, frame in enumerate(frames):
        roll_deg = 45 * np.sin(1.5 * index / FRAME_RATE_HZ)
        matrix = cv2.getRotationMatrix2D((SIZE_PX[0] / 2, SIZE_PX[1] / 2), roll_deg, 1 / 3)
        yield np.asarray(cv2.warpAffine(frame, matrix, SIZE_PX, borderValue=(90, 90, 90)), np.uint8)


def add_camera_shake(frames: Iterator[Frame]) -> Iterator[Frame]:
    """Simulate a hand-held camera: translation by a tenth of the frame, rotation and zoom."""
    for index, frame in enumerate(frames):
        time_s = index / FRAME_RATE_HZ
        matrix = cv2.getRotationMatrix2D(
            (SIZE_PX[0] / 2, SIZE_PX[1] / 2), 14 * np.sin(2.3 * time_s), 1 + 0.2 * np.sin(1.7 * time_s)
        )
        matrix[:, 2] += (0.1 * SIZE_PX[0] * np.sin(3.1 * time_s), 0.08 * SIZE_PX[1] * np.sin(4.3 * time_s))
        yield np.asarray(cv2.warpAffine(frame, matrix, SIZE_PX, borderMode=cv2.BORDER_REFLECT), np.uint8)
