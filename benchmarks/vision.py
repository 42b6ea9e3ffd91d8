"""Faces to mouth crops, compared with the reference: ``python -m benchmarks.vision [--seconds 10] [--out vision.json]``.

The reference is the published preparation of AV-HuBERT: dlib's detector on every frame upsampled once; its 68 landmarks;
the whole colour frame warped by scikit-image onto the mean face; the mouth cropped. Ours: ``FrameSkipper``,
``MouthCropper`` and lip activity; also without frame skipping, as for live and video-only streams. Both get the same
frames of 1280 x 720 in turn, in this process; times are CPU time of all threads, which is less affected by other programs.

The reference takes 0.2 s per frame, so it gets every seventh one: alternately frames that ours processed and skipped. With
ordinary head motion ours must agree with the reference on the mouth's position; with large motion it must not lose the
face.

The reference is not consistent with itself: the detector's box is quantized, and the landmarks depend on it. The expected
position is therefore the mean over four shifted copies of the frame; the reference's own offset from it is reported too.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import cv2
import dlib
import numpy as np
import torch
from numpy.typing import NDArray
from skimage import transform

from benchmarks import hardware
from benchmarks.synthetic_video import FRAME_RATE_HZ, SIZE_PX, Frame, add_camera_shake, clips
from gorggle_server.timebase import MOUTH_CROP_SIZE_PX
from gorggle_server.vision.face_detector import COARSE_SIDE_PX, BoundingBox, FaceDetector, find_landmark_model
from gorggle_server.vision.face_tracker import FaceTracker
from gorggle_server.vision.frame_skipping import AnalyzedFrame, FrameSkipper
from gorggle_server.vision.lip_activity import VisualVoiceActivityDetector
from gorggle_server.vision.mouth_cropper import (
    CANVAS_PX,
    LANDMARKS,
    MOUTH_POINTS,
    STABLE_POINTS,
    LowLatencyMouthCropper,
    MouthCropper,
    load_mean_face,
)

REFERENCE_INTERVAL_FRAMES = 7
WARM_UP_FRAMES = 11
# Shifts of the frame for the expected position: pixels to the right and down.
OFFSETS_PX = ((3, 0), (0, 3), (-3, 0), (0, -3))
LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)
# A face counts as lost if its mouth is further off than this, in units of the eye distance.
MAX_MOUTH_OFFSET = 0.25

OFFSET_KEY = "mouth_offset_percent"  # of the distance between the eyes

Points = NDArray[np.float64]


class ReferencePipeline:
    """Detects faces on every frame, and warps the whole colour frame."""

    def __init__(self) -> None:
        self._detector = dlib.get_frontal_face_detector()
        self._predictor = dlib.shape_predictor(str(find_landmark_model()))
        self.seconds = {"detect": 0.0, "landmarks": 0.0, "warp and crop": 0.0}
        self.frames = 0

    def reset_times(self) -> None:
        """Reset times and counts after the warm-up."""
        self.seconds, self.frames = dict.fromkeys(self.seconds, 0.0), 0

    def process(self, colour: Frame, grey: Frame) -> Points | None:
        """Process a frame and return the landmarks of the largest face."""
        self.frames += 1
        faces = self._time("detect", lambda: self._detector(grey, 1))
        if not faces:
            return None
        face = max(faces, key=lambda box: box.area())
        points = self._time("landmarks", lambda: self._landmarks(grey, face))
        self._time("warp and crop", lambda: self._crop(colour, points))
        return points

    def mean_landmarks(self, grey: Frame) -> Points | None:
        """Return the mean landmarks of the largest face over shifted copies of the frame."""
        found = [self._detect_shifted(grey, right, down) for right, down in OFFSETS_PX]
        points = [one for one in found if one is not None]
        return np.mean(points, axis=0) if len(points) == len(OFFSETS_PX) else None

    def _detect_shifted(self, grey: Frame, right: int, down: int) -> Points | None:
        moved = np.roll(grey, (down, right), axis=(0, 1))
        faces = self._detector(moved, 1)
        if not faces:
            return None
        return self._landmarks(moved, max(faces, key=lambda box: box.area())) - np.array([right, down])

    def _landmarks(self, grey: Frame, face: Any) -> Points:
        shape = self._predictor(grey, face)
        return np.array([(shape.part(i).x, shape.part(i).y) for i in range(LANDMARKS)], np.float64)

    @staticmethod
    def _crop(colour: Frame, points: Points) -> Frame:
        stable, target = points[STABLE_POINTS], np.asarray(load_mean_face())[STABLE_POINTS]
        found = transform.SimilarityTransform.from_estimate(stable, target)
        warped = transform.warp(
            colour, found.inverse, output_shape=(CANVAS_PX, CANVAS_PX), preserve_range=True
        )
        grey = cv2.cvtColor(warped.astype(np.uint8), cv2.COLOR_BGR2GRAY)
        x, y = np.rint(found(points[MOUTH_POINTS]).mean(axis=0)).astype(int)
        half = MOUTH_CROP_SIZE_PX // 2
        left, top = (
            np.clip(x - half, 0, CANVAS_PX - MOUTH_CROP_SIZE_PX),
            np.clip(y - half, 0, CANVAS_PX - MOUTH_CROP_SIZE_PX),
        )
        return grey[top : top + MOUTH_CROP_SIZE_PX, left : left + MOUTH_CROP_SIZE_PX]

    def _time(self, stage: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = work()
        self.seconds[stage] += time.process_time() - began
        return result


class TimedFaceDetector(FaceDetector):
    """The server's face detector, with times and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.reset_times()

    def reset_times(self) -> None:
        """Reset times and counts after the warm-up."""
        self.seconds = {"detect": 0.0, "landmarks": 0.0}
        self.fits, self.searched_px = 0, 0.0

    def detect(self, frame: Frame, short_side_px: int = COARSE_SIDE_PX, min_score: float = 0.0) -> Any:
        """Detect faces in the whole frame."""
        self.searched_px += frame.size * (short_side_px / min(frame.shape)) ** 2
        began = time.process_time()
        found = super().detect(frame, short_side_px, min_score)
        self.seconds["detect"] += time.process_time() - began
        return found

    def predict_landmarks(self, frame: Frame, box: BoundingBox) -> Any:
        """Fit the landmarks of one face."""
        self.fits += 1
        began = time.process_time()
        found = super().predict_landmarks(frame, box)
        self.seconds["landmarks"] += time.process_time() - began
        return found


class ServerPipeline:
    """The server's processing of one face; ``waits`` enables frame skipping, as for files with audio."""

    def __init__(self, *, waits: bool = True) -> None:
        self.detector = TimedFaceDetector()
        self._strides = FrameSkipper(FaceTracker(self.detector), skip_frames=waits)
        self._cropper, self._prompt = MouthCropper(load_mean_face()), LowLatencyMouthCropper(load_mean_face())
        self._activity = VisualVoiceActivityDetector()
        self.points: dict[int, Points | None] = {}
        self._seconds = {"following": 0.0, "crop": 0.0, "lip activity": 0.0}
        self.frames = 0

    @property
    def seconds(self) -> dict[str, float]:
        """Return seconds by stage; ``rest`` is tracking without detection and landmarks."""
        found = self.detector.seconds
        rest = self._seconds["following"] - sum(found.values())
        return {
            **found,
            "rest": rest,
            "crop": self._seconds["crop"],
            "lip activity": self._seconds["lip activity"],
        }

    def reset_times(self) -> None:
        """Reset times and counts after the warm-up."""
        self._seconds, self.frames = dict.fromkeys(self._seconds, 0.0), 0
        self.detector.reset_times()

    def process(self, grey: Frame, index: int) -> None:
        """Process a frame; landmarks are stored in ``points``."""
        self.frames += 1
        began = time.process_time()
        seen = self._strides.push(grey, index)
        self._seconds["following"] += time.process_time() - began
        for frame in seen:
            self._process_frame(frame)

    def _process_frame(self, frame: AnalyzedFrame) -> None:
        face = frame.faces[0] if frame.faces else None
        landmarks = None if face is None else face.landmarks
        began = time.process_time()
        self._cropper.push(frame.index, frame.pixels, landmarks)
        cut = time.process_time()
        if face is None or face.is_interpolated:
            self._activity.push(frame.index, None, None)
        else:
            crop = self._prompt.push(frame.pixels, face.landmarks)
            self._activity.push(frame.index, face.landmarks, crop)
        self._seconds["crop"] += cut - began
        self._seconds["lip activity"] += time.process_time() - cut
        self.points[frame.index] = None if landmarks is None else landmarks.astype(np.float64)


def measure_clip(frames: Callable[[], Iterator[Frame]], count: int) -> dict[str, Any]:
    """Measure ms per frame of both pipelines on one clip, and the offset between their mouth positions.

    The live pipeline runs afterwards on the same stored frames, so that it does not profit from warm caches. (Rendering
    the clip twice would not give identical frames.)
    """
    greys: list[Frame] = []
    usual, ours, live = ReferencePipeline(), ServerPipeline(), ServerPipeline(waits=False)
    expected: dict[int, Points] = {}
    at_once: dict[int, Points | None] = {}
    for index, colour, grey in _with_grey(frames(), count):
        if index == WARM_UP_FRAMES:
            usual.reset_times()
            ours.reset_times()
        ours.process(grey, index)
        greys.append(grey)
        if index % REFERENCE_INTERVAL_FRAMES == 0:
            at_once[index] = usual.process(colour, grey)
            if (points := usual.mean_landmarks(grey)) is not None:
                expected[index] = points
    for index, grey in enumerate(greys):
        if index == WARM_UP_FRAMES:
            live.reset_times()
        live.process(grey, index)
    ways: dict[str, ReferencePipeline | ServerPipeline] = {
        "reference": usual,
        "ours": ours,
        "ours_live": live,
    }
    per_frame = {name: _per_frame_ms(way) for name, way in ways.items()}
    return {
        "frames": ours.frames,
        "ms_per_frame": per_frame,
        "landmark_fits_per_frame": ours.detector.fits / ours.frames,
        "searched_px_per_frame": ours.detector.searched_px / ours.frames,
        "speedup": per_frame["reference"]["all"] / per_frame["ours"]["all"],
        "speedup_live": per_frame["reference"]["all"] / per_frame["ours_live"]["all"],
        **compare_mouths(ours.points, expected),
        "live": compare_mouths(live.points, expected),
        "reference": compare_mouths(at_once, expected),
    }


def _with_grey(frames: Iterator[Frame], count: int) -> Iterator[tuple[int, Frame, Frame]]:
    for index, colour in zip(range(WARM_UP_FRAMES + count), frames, strict=False):
        yield index, colour, np.asarray(cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY), np.uint8)


def compare_mouths(found: dict[int, Points | None], expected: dict[int, Points]) -> dict[str, Any]:
    """Summarize the offsets between two mouth positions, in per cent of the eye distance."""
    apart = [
        off for index in expected if (off := mouth_offset(found.get(index), expected[index])) is not None
    ]
    return {
        OFFSET_KEY: {
            "median": 100 * float(np.median(apart)),
            "mean": 100 * float(np.mean(apart)),
            "p95": 100 * float(np.quantile(apart, 0.95)),
        },
        "lost": len(expected) - len(apart) + sum(one > MAX_MOUTH_OFFSET for one in apart),
        "compared": len(expected),
    }


def mouth_offset(points: Points | None, expected: Points) -> float | None:
    """Return the distance of the mouth's centre from the expected one, in eye distances; None without a face."""
    if points is None:
        return None
    eyes = np.linalg.norm(expected[RIGHT_EYE].mean(axis=0) - expected[LEFT_EYE].mean(axis=0))
    return float(np.linalg.norm((points - expected)[MOUTH_POINTS].mean(axis=0)) / eyes)


def _per_frame_ms(way: ReferencePipeline | ServerPipeline) -> dict[str, float]:
    stages = {stage: 1000 * seconds / max(1, way.frames) for stage, seconds in way.seconds.items()}
    return {**stages, "all": sum(stages.values())}


def measure_clips(
    seconds: float = 10.0, names: Collection[str] = (), report: Callable[[str], None] = print
) -> dict[str, Any]:
    """Measure the named clips (default: all) with ordinary and large motion."""
    results: dict[str, Any] = {}
    count = round(seconds * FRAME_RATE_HZ)
    for name, frames in clips().items():
        if names and name not in names:
            continue
        for motion, moved in (
            ("ordinary", frames),
            ("large", lambda frames=frames: add_camera_shake(frames())),
        ):
            found = results[f"{name}, {motion} motion"] = measure_clip(moved, count)
            apart = found[OFFSET_KEY]
            report(
                f"{name + ', ' + motion + ' motion':40}  reference {found['ms_per_frame']['reference']['all']:6.1f} ms   "
                f"ours {found['ms_per_frame']['ours']['all']:5.2f} ms   speedup {found['speedup']:5.0f}   "
                f"live {found['ms_per_frame']['ours_live']['all']:5.2f} ms   "
                f"mouth offset {apart['median']:.2f} % (95 %: {apart['p95']:.2f} %; reference "
                f"{found['reference'][OFFSET_KEY]['median']:.2f} %)   lost {found['lost']} of {found['compared']}"
            )
    torch.set_num_threads(1)
    return {"size_px": SIZE_PX, "machine": hardware.describe_machine(1), "clips": results}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark, print a line per clip, and optionally write JSON."""
    parser = argparse.ArgumentParser(description="Vision compared with the reference pipeline.")
    parser.add_argument("--seconds", type=float, default=10.0, help="duration per clip (default: 10)")
    parser.add_argument("--clips", default="", help=f"clips to run (default: {', '.join(clips())})")
    parser.add_argument("--out", type=Path, help="JSON")
    options = parser.parse_args(arguments)
    results = measure_clips(options.seconds, options.clips.split(",") if options.clips else ())
    if options.out:
        options.out.write_text(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
