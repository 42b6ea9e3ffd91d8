"""Tracks the faces of a video and yields their mouth crops, speaking probabilities and boxes per frame.

The results are small, so that vision can run in another process than recognition.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from gorggle_server.recognition_options import RecognitionOptions
from gorggle_server.vision.face_identity import FaceIdentifier
from gorggle_server.vision.face_tracker import FaceTracker
from gorggle_server.vision.frame_skipping import FrameSkipper
from gorggle_server.vision.lip_activity import VisualVoiceActivityDetector
from gorggle_server.vision.mouth_cropper import (
    MAX_ABSENCE_FRAMES,
    LowLatencyMouthCropper,
    MouthCropper,
    load_mean_face,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from gorggle_server.vision.face_detector import FaceDetector
    from gorggle_server.vision.face_tracker import TrackedFace
    from gorggle_server.vision.frame_skipping import AnalyzedFrame
    from gorggle_server.vision.landmark_model import LandmarkModelName
    from gorggle_server.vision.mouth_cropper import MouthCrop

# Face boxes are reported five times per second.
FACE_BOX_INTERVAL_FRAMES = 5
# A box that is this many frame sizes away is not a face.
MAX_NORMALIZED_OFFSET = 100.0


class NormalizedBox(NamedTuple):
    """A box relative to the frame's width and height; it may exceed the frame."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, eq=False)
class MouthUpdate:
    """New data of one tracked face's mouth with one frame.

    Attributes:
        person: number of the tracked face, from 1.
        is_seen: the face is on this frame.
        crops: of this frame or earlier ones, in order, each uint8 (96, 96).
        speaking: speaking probabilities, 0 to 1, of the next frames of the track; four frames late.
        preview: this frame's crop without look-ahead, for low latency; less stable.
        box: of the face, at intervals.
        has_ended: the track has ended at the last frame with the face.
        identity: number of the first tracked face of the same person; None while unknown. It does not change later.
    """

    person: int
    is_seen: bool
    crops: list[MouthCrop] = field(default_factory=list)
    speaking: list[float] = field(default_factory=list)
    preview: NDArray[np.uint8] | None = None
    box: NormalizedBox | None = None
    has_ended: bool = False
    identity: int | None = None


@dataclass(frozen=True, eq=False)
class FrameResult:
    """Face-tracking result of one frame.

    Attributes:
        index: the frame's number; the last result, in which all tracks end, has the number after the last frame's.
        mouths: of all tracked people; a person's first update starts the track.
        faces: number of faces on the frame.
        is_crowded: there are more faces than ``max_faces``.
        is_last: the video has ended; this result has no frame.
        elapsed_s: processing time, seconds.
    """

    index: int
    mouths: list[MouthUpdate]
    faces: int = 0
    is_crowded: bool = False
    is_last: bool = False
    elapsed_s: float = 0.0


class MouthTracker:
    """Tracks the faces of one video and cuts their mouth crops, frame by frame. Not thread-safe.

    Args:
        detector: detects faces and landmarks.
        max_faces: maximum number of tracked faces.
        skip_frames: fit landmarks on every second frame only, at one frame of latency.
        previews: also return preview crops.
        face_identity: recognize people whose earlier track has ended.
    """

    def __init__(
        self,
        detector: FaceDetector,
        *,
        max_faces: int = RecognitionOptions.max_speakers,
        skip_frames: bool = True,
        previews: bool = False,
        face_identity: bool = True,
    ) -> None:
        self._landmark_model = detector.landmark_model
        identifier = FaceIdentifier() if face_identity else None
        self._tracker = FaceTracker(detector, max_faces=max_faces, identifier=identifier)
        self._skipper = FrameSkipper(self._tracker, skip_frames=skip_frames)
        self._previews = previews
        self._mouths: dict[int, _MouthTrack] = {}
        self._frames = 0

    def push(self, pixels: NDArray[np.uint8], index: int) -> list[FrameResult]:
        """Process the next frame, uint8 (H, W) grayscale; return the results that are now complete."""
        self._frames = index + 1
        began = time.perf_counter()
        return self._process(began, self._skipper.push(pixels, index))

    def flush(self) -> list[FrameResult]:
        """Return the result of a pending frame, and the last result, in which all tracks end."""
        began = time.perf_counter()
        results = self._process(began, self._skipper.flush())
        began = time.perf_counter()
        left = [mouth.end() for mouth in self._mouths.values()]
        self._mouths.clear()
        return [
            *results,
            FrameResult(self._frames, left, is_last=True, elapsed_s=time.perf_counter() - began),
        ]

    def _process(self, began: float, frames: Iterable[AnalyzedFrame]) -> list[FrameResult]:
        results = []
        for frame in frames:
            mouths = self._update_mouths(frame)
            now = time.perf_counter()
            faces, is_crowded = len(frame.faces), self._tracker.faces_dropped > 0
            results.append(FrameResult(frame.index, mouths, faces, is_crowded, elapsed_s=now - began))
            began = now
        return results

    def _update_mouths(self, frame: AnalyzedFrame) -> list[MouthUpdate]:
        faces = {face.track_id: face for face in frame.faces}
        for person in faces:
            if person not in self._mouths:
                self._mouths[person] = _MouthTrack(
                    person, frame.index, self._landmark_model, previews=self._previews
                )
        news = [mouth.update(frame, faces.get(person)) for person, mouth in self._mouths.items()]
        for mouth in news:
            if mouth.has_ended:
                del self._mouths[mouth.person]
        return news


class _MouthTrack:
    """The mouth of one tracked face."""

    def __init__(self, person: int, start: int, landmark_model: LandmarkModelName, *, previews: bool) -> None:
        self._person, self._previews = person, previews
        self._identity: int | None = None
        self._last_seen = self._next_box_frame = start
        self._cropper = MouthCropper(load_mean_face())
        self._prompt_cropper = LowLatencyMouthCropper(load_mean_face())
        self._activity = VisualVoiceActivityDetector(landmark_model)

    def update(self, frame: AnalyzedFrame, face: TrackedFace | None) -> MouthUpdate:
        """Process a frame with the face, or without it."""
        crops = self._cropper.push(frame.index, frame.pixels, None if face is None else face.landmarks)
        if face is None:
            speaking = self._activity.push(frame.index, None, None)
            if frame.index - self._last_seen > MAX_ABSENCE_FRAMES:
                return self.end(crops, speaking)
            return MouthUpdate(
                self._person, is_seen=False, crops=crops, speaking=speaking, identity=self._identity
            )
        self._last_seen, self._identity = frame.index, face.identity
        preview = None
        if face.is_interpolated:
            # Interpolated landmarks have no information on lip motion.
            speaking = self._activity.push(frame.index, None, None)
        else:
            mouth = self._prompt_cropper.push(frame.pixels, face.landmarks)
            speaking = self._activity.push(frame.index, face.landmarks, mouth)
            preview = mouth if self._previews else None
        return MouthUpdate(
            self._person,
            is_seen=True,
            crops=crops,
            speaking=speaking,
            preview=preview,
            box=self._get_due_box(frame, face),
            identity=self._identity,
        )

    def end(self, crops: Iterable[MouthCrop] = (), speaking: Iterable[float] = ()) -> MouthUpdate:
        """End the track; return its remaining data after that of the current frame."""
        left = [*crops, *self._cropper.flush()]
        return MouthUpdate(
            self._person,
            is_seen=False,
            crops=[crop for crop in left if crop.frame_index <= self._last_seen],
            speaking=[*speaking, *self._activity.flush()],
            has_ended=True,
            identity=self._identity,
        )

    def _get_due_box(self, frame: AnalyzedFrame, face: TrackedFace) -> NormalizedBox | None:
        if frame.index < self._next_box_frame:
            return None
        self._next_box_frame = frame.index + FACE_BOX_INTERVAL_FRAMES
        (height, width), box = frame.pixels.shape, face.box
        place = NormalizedBox(box.left / width, box.top / height, box.width / width, box.height / height)
        return place if all(abs(share) <= MAX_NORMALIZED_OFFSET for share in place) else None
