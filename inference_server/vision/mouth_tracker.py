"""Follows everybody's mouth through a video: of its pictures, all that is wanted for the words.

What comes out is small, numbers and squares of 96 x 96 pixels, so that whoever looks need not be the process that reads.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from gorggle_server.vision.face_tracker import FaceTracker
from gorggle_server.vision.frame_skipping import FrameSkipper
from gorggle_server.vision.lip_activity import VisualVoiceActivityDetector
from gorggle_server.vision.mouth_cropper import LowLatencyMouthCropper, MouthCropper, load_mean_face

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from gorggle_server.vision.face_detector import FaceDetector
    from gorggle_server.vision.face_tracker import TrackedFace
    from gorggle_server.vision.frame_skipping import AnalyzedFrame
    from gorggle_server.vision.mouth_cropper import MouthCrop

# Faces are reported five times a second: enough to draw a box that follows.
FACE_BOX_INTERVAL_FRAMES = 5
# A face that is away for longer begins a new track when it returns.
MAX_ABSENCE_FRAMES = 25
# A face lies in the frame or sticks out of it: landmarks that say that it is so many frames away are on none.
MAX_NORMALIZED_OFFSET = 100.0


class NormalizedBox(NamedTuple):
    """Where a face is, in shares of the frame's width and height; partly outside it may be."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, eq=False)
class MouthUpdate:
    """What one frame adds to what is known of one person's mouth.

    Attributes:
        person: the person's number, from 1.
        is_seen: the face is on this frame.
        crops: of this frame or earlier ones, in order, each uint8 (96, 96).
        speaking: how likely the mouth is speaking, 0 to 1, of the next frames since the track began; four frames late.
        preview: this frame's crop, cut less steadily, for what cannot wait.
        box: of the face, now and then.
        has_ended: the face is gone, or the video ends: the track has ended where the face was last seen.
    """

    person: int
    is_seen: bool
    crops: list[MouthCrop] = field(default_factory=list)
    speaking: list[float] = field(default_factory=list)
    preview: NDArray[np.uint8] | None = None
    box: NormalizedBox | None = None
    has_ended: bool = False


@dataclass(frozen=True, eq=False)
class FrameResult:
    """What was seen on one frame.

    Attributes:
        index: the frame's number. The last sight, in which all leave, has the number after the last frame's.
        mouths: of everybody who is followed; the first that is heard of a person begins a track.
        faces: how many faces are on the frame.
        is_crowded: more faces were seen than are followed.
        is_last: no frame of its own: the video has ended.
        elapsed_s: seconds that it took to see this.
    """

    index: int
    mouths: list[MouthUpdate]
    faces: int = 0
    is_crowded: bool = False
    is_last: bool = False
    elapsed_s: float = 0.0


class MouthTracker:
    """Follows the faces of one video and cuts out their mouths, frame by frame. Not to be shared by threads.

    Args:
        detector: finds faces and landmarks.
        max_faces: how many faces are followed at once.
        skip_frames: whether the next frame may be waited for: then landmarks are found on every second one.
        previews: give crops for what cannot wait as well.
    """

    def __init__(
        self, detector: FaceDetector, *, max_faces: int = 4, skip_frames: bool = True, previews: bool = False
    ) -> None:
        self._tracker = FaceTracker(detector, max_faces=max_faces)
        self._skipper = FrameSkipper(self._tracker, skip_frames=skip_frames)
        self._previews = previews
        self._mouths: dict[int, _MouthTrack] = {}
        self._frames = 0

    def push(self, pixels: NDArray[np.uint8], index: int) -> list[FrameResult]:
        """Take in the next frame, uint8 (H, W), grey, with its number; what was seen on those that are known now."""
        self._frames = index + 1
        began = time.perf_counter()
        return self._process(began, self._skipper.push(pixels, index))

    def flush(self) -> list[FrameResult]:
        """The video ends: what was seen on a frame still held, and what is left of everybody who was followed."""
        began = time.perf_counter()
        sights = self._process(began, self._skipper.flush())
        began = time.perf_counter()
        left = [mouth.end() for mouth in self._mouths.values()]
        self._mouths.clear()
        return [*sights, FrameResult(self._frames, left, is_last=True, elapsed_s=time.perf_counter() - began)]

    def _process(self, began: float, frames: Iterable[AnalyzedFrame]) -> list[FrameResult]:
        sights = []
        for frame in frames:
            mouths = self._update_mouths(frame)
            now = time.perf_counter()
            faces, is_crowded = len(frame.faces), self._tracker.faces_dropped > 0
            sights.append(FrameResult(frame.index, mouths, faces, is_crowded, elapsed_s=now - began))
            began = now
        return sights

    def _update_mouths(self, frame: AnalyzedFrame) -> list[MouthUpdate]:
        faces = {face.track_id: face for face in frame.faces}
        for person in faces:
            if person not in self._mouths:
                self._mouths[person] = _MouthTrack(person, frame.index, glimpses=self._previews)
        news = [mouth.update(frame, faces.get(person)) for person, mouth in self._mouths.items()]
        for mouth in news:
            if mouth.has_ended:
                del self._mouths[mouth.person]
        return news


class _MouthTrack:
    """One person who is followed."""

    def __init__(self, person: int, start: int, *, glimpses: bool) -> None:
        self._person, self._glimpses = person, glimpses
        self._last_seen = self._next_box_frame = start
        self._cropper = MouthCropper(load_mean_face(), max_gap_frames=MAX_ABSENCE_FRAMES)
        self._prompt_cropper, self._activity = (
            LowLatencyMouthCropper(load_mean_face()),
            VisualVoiceActivityDetector(),
        )

    def update(self, frame: AnalyzedFrame, face: TrackedFace | None) -> MouthUpdate:
        """Take in the face on one frame, or its absence."""
        crops = self._cropper.push(frame.index, frame.pixels, None if face is None else face.landmarks)
        if face is None:
            speaking = self._activity.push(frame.index, None, None)
            if frame.index - self._last_seen > MAX_ABSENCE_FRAMES:
                return self.end(crops, speaking)
            return MouthUpdate(self._person, is_seen=False, crops=crops, speaking=speaking)
        self._last_seen = frame.index
        glimpse = None
        if face.is_interpolated:
            # Lips that are taken to be half-way show nothing of how they move.
            speaking = self._activity.push(frame.index, None, None)
        else:
            mouth = self._prompt_cropper.push(frame.pixels, face.landmarks)
            speaking = self._activity.push(frame.index, face.landmarks, mouth)
            glimpse = mouth if self._glimpses else None
        return MouthUpdate(
            self._person,
            is_seen=True,
            crops=crops,
            speaking=speaking,
            preview=glimpse,
            box=self._get_due_box(frame, face),
        )

    def end(self, crops: Iterable[MouthCrop] = (), speaking: Iterable[float] = ()) -> MouthUpdate:
        """The face is gone: what is left of it, behind what this frame brought."""
        left = [*crops, *self._cropper.flush()]
        return MouthUpdate(
            self._person,
            is_seen=False,
            crops=[crop for crop in left if crop.frame_index <= self._last_seen],
            speaking=[*speaking, *self._activity.flush()],
            has_ended=True,
        )

    def _get_due_box(self, frame: AnalyzedFrame, face: TrackedFace) -> NormalizedBox | None:
        if frame.index < self._next_box_frame:
            return None
        self._next_box_frame = frame.index + FACE_BOX_INTERVAL_FRAMES
        (height, width), box = frame.pixels.shape, face.box
        place = NormalizedBox(box.left / width, box.top / height, box.width / width, box.height / height)
        return place if all(abs(share) <= MAX_NORMALIZED_OFFSET for share in place) else None
