"""Faces to mouth crops, beside the usual way: ``python -m benchmarks.vision [--seconds 10] [--out vision.json]``.

The usual way, as the published preparation of AV-HuBERT does it: dlib's detector on every frame, enlarged once; its 68
landmarks; the whole colour frame warped by scikit-image onto the mean face; the mouth cut out. Ours: ``FaceTracker``,
``MouthCropper`` and what judges movement. Both get the same frames of 1280 x 720 in turn, in this process;
times are the processor's, of all threads, so that other programs disturb them less.

The usual way takes a quarter of a second a frame, so it gets every tenth one. Where the head moves as heads do, ours
must put the mouth where the detector of that frame does; where it moves much, whether it stays on the face counts.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import cv2
import dlib
import numpy as np
from numpy.typing import NDArray
from skimage import transform

from inference_server.vision.activity import LipActivity
from inference_server.vision.faces import FaceFinder, landmark_model_path
from inference_server.vision.mouth import (
    CANVAS_PX,
    CROP_PX,
    LANDMARKS,
    MOUTH_POINTS,
    STABLE_POINTS,
    MouthCropper,
    PromptMouthCropper,
    mean_face,
)
from inference_server.vision.tracks import FaceTracker
from training.clips import DEMO_VOICE, demo_scene, talk_photo
from training.photographs import Photograph
from training.sentences import DEMO_SENTENCES

SIZE_PX = (1280, 720)
FRAME_RATE_HZ = 25
REFERENCE_EVERY_FRAMES = 10
WARM_UP_FRAMES = 11
LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)
# A face whose mouth is further off than this, in distances between the eyes, is not followed but lost.
LOST = 0.25

Frame = NDArray[np.uint8]
Points = NDArray[np.float64]


class Usual:
    """Detects on every frame, and warps the whole frame in colour."""

    def __init__(self) -> None:
        self._detector = dlib.get_frontal_face_detector()
        self._predictor = dlib.shape_predictor(str(landmark_model_path()))
        self.seconds = {"detect": 0.0, "landmarks": 0.0, "warp and cut": 0.0}
        self.frames = 0

    def forget_times(self) -> None:
        """What was first done belongs to the start of a program."""
        self.seconds, self.frames = dict.fromkeys(self.seconds, 0.0), 0

    def look(self, colour: Frame, grey: Frame) -> Points | None:
        """The landmarks of the largest face, and the time that all of it took."""
        self.frames += 1
        faces = self._timed("detect", lambda: self._detector(grey, 1))
        if not faces:
            return None
        face = max(faces, key=lambda box: box.area())
        points = self._timed("landmarks", lambda: self._landmarks(grey, face))
        self._timed("warp and cut", lambda: self._crop(colour, points))
        return points

    def _landmarks(self, grey: Frame, face: Any) -> Points:
        shape = self._predictor(grey, face)
        return np.array([(shape.part(i).x, shape.part(i).y) for i in range(LANDMARKS)], np.float64)

    @staticmethod
    def _crop(colour: Frame, points: Points) -> Frame:
        stable, target = points[STABLE_POINTS], np.asarray(mean_face())[STABLE_POINTS]
        found = transform.SimilarityTransform.from_estimate(stable, target)
        warped = transform.warp(
            colour, found.inverse, output_shape=(CANVAS_PX, CANVAS_PX), preserve_range=True
        )
        grey = cv2.cvtColor(warped.astype(np.uint8), cv2.COLOR_BGR2GRAY)
        x, y = np.rint(found(points[MOUTH_POINTS]).mean(axis=0)).astype(int)
        half = CROP_PX // 2
        left, top = np.clip(x - half, 0, CANVAS_PX - CROP_PX), np.clip(y - half, 0, CANVAS_PX - CROP_PX)
        return grey[top : top + CROP_PX, left : left + CROP_PX]

    def _timed(self, stage: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = work()
        self.seconds[stage] += time.process_time() - began
        return result


class Ours:
    """What the server does with a frame of one face."""

    def __init__(self) -> None:
        self._tracker = FaceTracker(FaceFinder())
        self._cropper, self._prompt = MouthCropper(mean_face()), PromptMouthCropper(mean_face())
        self._activity = LipActivity()
        self.seconds = {"follow": 0.0, "crop": 0.0, "movement": 0.0}
        self.frames = 0

    def forget_times(self) -> None:
        """What was first done belongs to the start of a program."""
        self.seconds, self.frames = dict.fromkeys(self.seconds, 0.0), 0

    def look(self, grey: Frame, index: int) -> Points | None:
        """The landmarks of the face, and the time that all of it took."""
        self.frames += 1
        began = time.process_time()
        faces = self._tracker.update(grey, index)
        landmarks = faces[0].landmarks if faces else None
        followed = time.process_time()
        self._cropper.push(index, grey, landmarks)
        cut = time.process_time()
        crop = None if landmarks is None else self._prompt.cut(grey, landmarks)
        self._activity.push(index, landmarks, crop)
        judged = time.process_time()
        for stage, seconds in zip(
            self.seconds, (followed - began, cut - followed, judged - cut), strict=True
        ):
            self.seconds[stage] += seconds
        return None if landmarks is None else landmarks.astype(np.float64)


def clips() -> dict[str, Callable[[], Iterator[Frame]]]:
    """Speakers who move their heads as one does before a camera: drawn, and two photographs whose mouths are moved."""
    made: dict[str, Callable[[], Iterator[Frame]]] = {"drawn": lambda: enlarged(demo_scene().frames)}
    for photo in Photograph:
        made[f"photograph: {photo.value}"] = lambda photo=photo: iter(
            talk_photo(photo, DEMO_SENTENCES, DEMO_VOICE, size=SIZE_PX).frames
        )
    return made


def enlarged(frames: Any) -> Iterator[Frame]:
    """Frames of 640 x 480 as frames of 1280 x 720, with bars at the sides."""
    for frame in frames:
        picture = cv2.resize(frame, (960, 720), interpolation=cv2.INTER_CUBIC)
        yield cv2.copyMakeBorder(picture, 0, 0, 160, 160, cv2.BORDER_REPLICATE)


def shaken(frames: Iterator[Frame]) -> Iterator[Frame]:
    """The same through a camera that is walked with: it sways by a tenth of the picture, turns and comes nearer."""
    for index, frame in enumerate(frames):
        time_s = index / FRAME_RATE_HZ
        matrix = cv2.getRotationMatrix2D(
            (SIZE_PX[0] / 2, SIZE_PX[1] / 2), 14 * np.sin(2.3 * time_s), 1 + 0.2 * np.sin(1.7 * time_s)
        )
        matrix[:, 2] += (0.1 * SIZE_PX[0] * np.sin(3.1 * time_s), 0.08 * SIZE_PX[1] * np.sin(4.3 * time_s))
        yield np.asarray(cv2.warpAffine(frame, matrix, SIZE_PX, borderMode=cv2.BORDER_REFLECT), np.uint8)


def measured(frames: Iterator[Frame], count: int) -> dict[str, Any]:
    """Milliseconds a frame of both ways on one clip, and how far apart their mouths are, in distances between the eyes."""
    usual, ours = Usual(), Ours()
    apart, missed = [], 0
    for index, colour in zip(range(WARM_UP_FRAMES + count), frames, strict=False):
        if index == WARM_UP_FRAMES:
            usual.forget_times()
            ours.forget_times()
        grey = cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY)
        points = ours.look(grey, index)
        if index % REFERENCE_EVERY_FRAMES:
            continue
        expected = usual.look(colour, grey)
        if expected is None:
            continue
        if points is None:
            missed += 1
            continue
        eyes = np.linalg.norm(expected[RIGHT_EYE].mean(axis=0) - expected[LEFT_EYE].mean(axis=0))
        off = points[MOUTH_POINTS].mean(axis=0) - expected[MOUTH_POINTS].mean(axis=0)
        apart.append(float(np.linalg.norm(off) / eyes))
    per_frame = {way: _per_frame_ms(found) for way, found in (("usual", usual), ("ours", ours))}
    return {
        "frames": ours.frames,
        "ms a frame": per_frame,
        "times faster": per_frame["usual"]["all"] / per_frame["ours"]["all"],
        "mouth apart, % of the eyes' distance": {
            "median": 100 * float(np.median(apart)),
            "mean": 100 * float(np.mean(apart)),
            "95 %": 100 * float(np.quantile(apart, 0.95)),
        },
        "lost": missed + sum(one > LOST for one in apart),
        "compared": len(apart) + missed,
    }


def _per_frame_ms(way: Usual | Ours) -> dict[str, float]:
    stages = {stage: 1000 * seconds / max(1, way.frames) for stage, seconds in way.seconds.items()}
    return {**stages, "all": sum(stages.values())}


def run(
    seconds: float = 10.0, names: Collection[str] = (), report: Callable[[str], None] = print
) -> dict[str, Any]:
    """Measure all clips, or those named, with ordinary and with large motion."""
    results: dict[str, Any] = {}
    count = round(seconds * FRAME_RATE_HZ)
    for name, frames in clips().items():
        if names and name not in names:
            continue
        for motion, moved in (("ordinary", frames()), ("large", shaken(frames()))):
            found = results[f"{name}, {motion} motion"] = measured(moved, count)
            apart = found["mouth apart, % of the eyes' distance"]
            report(
                f"{name + ', ' + motion + ' motion':40}  usual {found['ms a frame']['usual']['all']:6.1f} ms   "
                f"ours {found['ms a frame']['ours']['all']:5.2f} ms   {found['times faster']:5.0f} times   "
                f"mouth apart {apart['median']:.2f} % (95 %: {apart['95 %']:.2f} %)   lost {found['lost']} of {found['compared']}"
            )
    return {"size_px": SIZE_PX, "machine": platform.processor() or platform.machine(), "clips": results}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a line for each clip, and write all as JSON where that is asked for."""
    parser = argparse.ArgumentParser(description="Times vision beside the usual way.")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each clip (default: 10)")
    parser.add_argument("--clips", default="", help=f"of {', '.join(clips())} (default: all)")
    parser.add_argument("--out", type=Path, help="JSON")
    options = parser.parse_args(arguments)
    results = run(options.seconds, options.clips.split(",") if options.clips else ())
    if options.out:
        options.out.write_text(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
