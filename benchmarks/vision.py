"""Faces to mouth crops, compared with the reference: ``python -m benchmarks.vision [--seconds 10] [--out vision.json]``.

The reference is the published preparation of AV-HuBERT: dlib's detector on every frame upsampled once; its 68 landmarks;
the whole colour frame warped by scikit-image onto the mean face; the mouth cropped. Ours: ``FrameSkipper``,
``MouthCropper`` and lip activity; also without frame skipping, as for live and video-only streams. Both get the same
frames of 1280 x 720 in turn, in this process; times are CPU time of all threads, which is less affected by other programs.

The reference takes 0.2 s per frame, so it gets every seventh one: alternately frames that ours processed and skipped. With
ordinary head motion ours must agree with the reference on the mouth's position; with large motion it must not lose the
face. The reference loses small heads that roll by up to 45 degrees: there, the share of the frames with a face counts.

The reference is not consistent with itself: the detector's box is quantized, and the landmarks depend on it. The expected
position is therefore the mean over four shifted copies of the frame; the reference's own offset from it is reported too.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import cv2
import dlib
import numpy as np
import torch
from numpy.typing import NDArray
from skimage import transform

from benchmarks import hardware
from benchmarks.command import make_parser
from benchmarks.synthetic_video import SIZE_PX, Frame, add_camera_shake, clips, roll_small_head
from gorggle_server.input_format import FRAME_RATE_HZ, MOUTH_CROP_SIZE_PX
from gorggle_server.vision.face_detector import (
    COARSE_SIDE_PX,
    MIN_SCORE,
    NEAR_SIDE_PX,
    FaceDetector,
)
from gorggle_server.vision.face_geometry import BoundingBox
from gorggle_server.vision.face_identity import FaceIdentifier
from gorggle_server.vision.face_tracker import FaceTracker
from gorggle_server.vision.frame_skipping import AnalyzedFrame, FrameSkipper
from gorggle_server.vision.landmark_model import find_dlib_model
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


class TimedPipeline:
    """Times of one way of processing, as CPU time of all threads."""

    def __init__(self) -> None:
        self.times = hardware.StageTimes(time.process_time)
        self.reset_times()

    def reset_times(self) -> None:
        """Reset times and counts after the warm-up."""
        self.times.seconds.clear()
        self.frames = self.fits = 0
        self.searched_px = 0.0

    def per_frame_ms(self) -> dict[str, float]:
        """Return milliseconds per frame by stage; ``rest`` is tracking without detection and landmarks."""
        seconds = dict(self.times.seconds)
        if "following" in seconds:
            seconds["rest"] = (
                seconds.pop("following") - seconds.get("detect", 0) - seconds.get("landmarks", 0)
            )
        stages = {stage: 1000 * taken / max(1, self.frames) for stage, taken in seconds.items()}
        return {**stages, "all": sum(stages.values())}


class ReferencePipeline(TimedPipeline):
    """Detects faces on every frame, and warps the whole colour frame."""

    def __init__(self) -> None:
        super().__init__()
        self._detector = dlib.get_frontal_face_detector()
        self._predictor = dlib.shape_predictor(str(find_dlib_model()))

    def process(self, colour: Frame, grey: Frame) -> Points | None:
        """Process a frame and return the landmarks of the largest face."""
        self.frames += 1
        face = self.times.measure("detect", lambda: self._detect(grey))
        if face is None:
            return None
        points = self.times.measure("landmarks", lambda: self._landmarks(grey, face))
        self.times.measure("warp and crop", lambda: self._crop(colour, points))
        return points

    def mean_landmarks(self, grey: Frame) -> Points | None:
        """Return the mean landmarks of the largest face over shifted copies of the frame."""
        points = []
        for right, down in OFFSETS_PX:
            moved = np.roll(grey, (down, right), axis=(0, 1))
            face = self._detect(moved)
            if face is None:
                return None
            points.append(self._landmarks(moved, face) - np.array([right, down]))
        return np.mean(points, axis=0)

    def _detect(self, grey: Frame) -> Any:
        return max(self._detector(grey, 1), key=lambda box: box.area(), default=None)

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
        middle = np.rint(found(points[MOUTH_POINTS]).mean(axis=0)).astype(int)
        left, top = np.clip(middle - MOUTH_CROP_SIZE_PX // 2, 0, CANVAS_PX - MOUTH_CROP_SIZE_PX)
        return grey[top : top + MOUTH_CROP_SIZE_PX, left : left + MOUTH_CROP_SIZE_PX]


class TimedFaceDetector(FaceDetector):
    """The server's face detector, with times and counts."""

    def __init__(self, pipeline: TimedPipeline) -> None:
        super().__init__()
        self._pipeline = pipeline

    def detect(
        self,
        frame: Frame,
        long_side_px: int = COARSE_SIDE_PX,
        min_score: float = MIN_SCORE,
        roll_deg: float = 0.0,
    ) -> Any:
        """Detect faces in the whole frame."""
        self._pipeline.searched_px += frame.size * min(1.0, long_side_px / max(frame.shape)) ** 2
        detect = functools.partial(super().detect, frame, long_side_px, min_score, roll_deg)
        return self._pipeline.times.measure("detect", detect)

    def detect_near(
        self, frame: Frame, box: BoundingBox, min_score: float = MIN_SCORE, roll_deg: float = 0.0
    ) -> Any:
        """Detect a known face."""
        self._pipeline.searched_px += NEAR_SIDE_PX**2
        detect = functools.partial(super().detect_near, frame, box, min_score, roll_deg)
        return self._pipeline.times.measure("detect", detect)

    def predict_landmarks(self, frame: Frame, box: BoundingBox, roll_deg: float = 0.0) -> Any:
        """Fit the landmarks of one face."""
        self._pipeline.fits += 1
        return self._pipeline.times.measure(
            "landmarks", functools.partial(super().predict_landmarks, frame, box, roll_deg)
        )


class ServerPipeline(TimedPipeline):
    """The server's processing of one face; ``waits`` enables frame skipping, as for files with audio."""

    def __init__(self, *, waits: bool = True) -> None:
        super().__init__()
        tracker = FaceTracker(TimedFaceDetector(self), identifier=FaceIdentifier())
        self._strides = FrameSkipper(tracker, skip_frames=waits)
        self._cropper, self._prompt = MouthCropper(load_mean_face()), LowLatencyMouthCropper(load_mean_face())
        self._activity = VisualVoiceActivityDetector()
        self.points: dict[int, Points | None] = {}

    def process(self, grey: Frame, index: int) -> None:
        """Process a frame; landmarks are stored in ``points``."""
        self.frames += 1
        for frame in self.times.measure("following", lambda: self._strides.push(grey, index)):
            face = frame.faces[0] if frame.faces else None
            landmarks = None if face is None else face.landmarks
            self.times.measure(
                "crop", functools.partial(self._cropper.push, frame.index, frame.pixels, landmarks)
            )
            self.times.measure("lip activity", functools.partial(self._measure_lip_activity, frame, face))
            self.points[frame.index] = None if landmarks is None else landmarks.astype(np.float64)

    def _measure_lip_activity(self, frame: AnalyzedFrame, face: Any) -> None:
        if face is None or face.is_interpolated:
            self._activity.push(frame.index, None, None)
        else:
            crop = self._prompt.push(frame.pixels, face.landmarks)
            self._activity.push(frame.index, face.landmarks, crop)


def measure_clip(frames: Callable[[], Iterator[Frame]], count: int) -> dict[str, Any]:
    """Measure ms per frame of both pipelines on one clip, and the offset between their mouth positions.

    The live pipeline runs afterwards on the same stored frames, so that it does not profit from warm caches. (Rendering
    the clip twice would not give identical frames.)
    """
    greys: list[Frame] = []
    usual, ours, live = ReferencePipeline(), ServerPipeline(), ServerPipeline(waits=False)
    expected: dict[int, Points] = {}
    at_once: dict[int, Points | None] = {}
    for index, colour in zip(range(WARM_UP_FRAMES + count), frames(), strict=False):
        grey = np.asarray(cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY), np.uint8)
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
    ways = {"reference": usual, "ours": ours, "ours_live": live}
    per_frame = {name: way.per_frame_ms() for name, way in ways.items()}
    return {
        "frames": ours.frames,
        "with_face_percent": {
            name: 100 * sum(points is not None for points in found.values()) / len(found)
            for name, found in (("reference", at_once), ("ours", ours.points), ("ours_live", live.points))
        },
        "ms_per_frame": per_frame,
        "landmark_fits_per_frame": ours.fits / ours.frames,
        "searched_px_per_frame": ours.searched_px / ours.frames,
        "speedup": per_frame["reference"]["all"] / per_frame["ours"]["all"],
        "speedup_live": per_frame["reference"]["all"] / per_frame["ours_live"]["all"],
        **compare_mouths(ours.points, expected),
        "live": compare_mouths(live.points, expected),
        "reference": compare_mouths(at_once, expected),
    }


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


def measure_clips(seconds: float, names: Collection[str]) -> dict[str, Any]:
    """Measure the named clips, all if there are none, with ordinary and large motion."""
    results: dict[str, Any] = {}
    count = round(seconds * FRAME_RATE_HZ)
    for name, frames in clips().items():
        if names and name not in names:
            continue
        for motion, moved in (
            ("ordinary", frames),
            ("large", lambda frames=frames: add_camera_shake(frames())),
            ("small and rolled", lambda frames=frames: roll_small_head(frames())),
        ):
            found = results[f"{name}, {motion} motion"] = measure_clip(moved, count)
            apart = found[OFFSET_KEY]
            print(
                f"{name + ', ' + motion + ' motion':40}  reference {found['ms_per_frame']['reference']['all']:6.1f} ms   "
                f"ours {found['ms_per_frame']['ours']['all']:5.2f} ms   speedup {found['speedup']:5.0f}   "
                f"live {found['ms_per_frame']['ours_live']['all']:5.2f} ms   "
                f"mouth offset {apart['median']:.2f} % (95 %: {apart['p95']:.2f} %; reference "
                f"{found['reference'][OFFSET_KEY]['median']:.2f} %)   lost {found['lost']} of {found['compared']}   "
                f"with a face: reference {found['with_face_percent']['reference']:.0f} %, ours "
                f"{found['with_face_percent']['ours']:.0f} %"
            )
    torch.set_num_threads(1)
    return {"size_px": SIZE_PX, "machine": hardware.describe_machine(1), "clips": results}


def main() -> None:
    """Run the benchmark, print a line per clip, and optionally write JSON."""
    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="duration per clip (default: 10)")
    parser.add_argument("--clips", default="", help=f"clips to run (default: {', '.join(clips())})")
    options = parser.parse_args()
    results = measure_clips(options.seconds, options.clips.split(",") if options.clips else ())
    if options.out:
        options.out.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
