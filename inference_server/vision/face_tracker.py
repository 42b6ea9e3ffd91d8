"""Tracks faces from frame to frame: each person keeps one id and has landmarks on every frame.

Landmarks are fitted on every frame, starting from the last box and roll, and the detector runs at intervals: to find
new faces, and to verify tracked ones, because landmark models return landmarks even without a face. ``frame_skipping``
halves the cost if one frame of latency is acceptable.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from gorggle_server.recognition_options import RecognitionOptions
from gorggle_server.vision.face_detector import DetectedFace, FaceDetector
from gorggle_server.vision.face_geometry import BoundingBox, estimate_pose
from gorggle_server.vision.face_search import CONFIDENT_SCORE, SAME_FACE_IOU, FaceSearch
from gorggle_server.vision.face_track import (
    MIN_PRESENCE,
    REFINE_ROLL_DEG,
    REFINE_SHIFT,
    SAME_PERSON_CORRELATION,
    FaceObservation,
    Track,
    extract_patch,
)
from gorggle_server.vision.scene_change import SceneChangeDetector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from gorggle_server.vision.face_identity import FaceIdentifier

# YuNet's score, 0 to 1, that suffices for verifying a tracked face.
TRACKED_SCORE = 0.4

# Only this many of the largest candidates are examined after a detection, to bound the time that a crowd takes.
MAX_CANDIDATES = 16

# Frames between coarse detections with and without tracked faces, and between searches, which find small faces too.
# YuNet finds faces of up to about 300 pixels, so a search is fine and coarse.
DETECTION_INTERVAL_FRAMES, IDLE_INTERVAL_FRAMES, SEARCH_INTERVAL_FRAMES = 10, 5, 50

# A new face is fitted from several boxes, and the fit with the smallest median distance to the others is used.
FIT_BOX_SCALES = (0.85, 1.0, 1.15)

# At every detection the landmarks are compared with YuNet's points. If they differ by more than this share of the box, the
# face is fitted again; if the fits differ by more than the second share twice in a row, the new one replaces the old one,
# which was not on the face.
MAX_POINT_DISTANCE = 0.08
MAX_FIT_DISTANCE = 0.05
MISMATCHED_FITS_TO_REPLACE = 2

# A face that was not verified is searched every few frames and dropped after several misses. A person who returns to
# the same position within 2 s keeps the id.
RECHECK_FRAMES = 3
MAX_MISSES = 3
MAX_LOST_FRAMES = 50

DUPLICATE_IOU = 0.45
MIN_REPLACING_GROWTH = 1.5


@dataclass(frozen=True, eq=False)
class TrackedFace:
    """One person's face on one frame.

    Attributes:
        track_id: number of the track, from 1.
        box: in pixels.
        landmarks: float32 (68, 2), pixels, x before y, iBUG order.
        is_interpolated: landmarks are interpolated between the previous and the next frame.
        identity: number of the person's first track; None while unknown.
    """

    track_id: int
    box: BoundingBox
    landmarks: NDArray[np.float32]
    is_interpolated: bool = False
    identity: int | None = None


class FaceTracker:
    """Tracks the faces of one video, frame by frame. Not thread-safe.

    Args:
        detector: detects faces and landmarks.
        max_faces: maximum number of tracks, the largest faces first. A tracked face is only replaced by one that is
            1.5 times as large.
        identifier: recognizes people whose earlier track has ended, or None. Owned by this object from now on.

    Attributes:
        faces_dropped: faces detected since the last fine search that exceeded ``max_faces``.
    """

    def __init__(
        self,
        detector: FaceDetector,
        *,
        max_faces: int = RecognitionOptions.max_speakers,
        identifier: FaceIdentifier | None = None,
    ) -> None:
        self._detector, self._identifier = detector, identifier
        self._face_search = FaceSearch(detector)
        self._scene_changes = SceneChangeDetector()
        self._is_cut = False
        self._max_faces = max_faces
        self._tracks: list[Track] = []
        self._lost: list[Track] = []
        self._detected_at = self._searched_at = -(10**9)
        self._last_frame: NDArray[np.uint8] | None = None
        self._track_count = 0
        self._index = 0
        self.faces_dropped = 0

    def update(self, frame: NDArray[np.uint8], index: int) -> list[TrackedFace]:
        """Track the faces on the next frame; return them, largest first.

        Args:
            frame: uint8 (H, W), grayscale. Passing the same array again (a repeated frame) costs nothing.
            index: frame number, increasing.
        """
        is_cut = frame is not self._last_frame and self._scene_changes.push(frame)
        return self._update(frame, index, is_cut=is_cut)

    def _update(self, frame: NDArray[np.uint8], index: int, *, is_cut: bool) -> list[TrackedFace]:
        frames, self._index, self._is_cut = index - self._index, index, is_cut
        if frame is not self._last_frame:
            self._last_frame = frame
            for track in self._tracks:
                if track.is_visible:
                    self._track_face(track, frame, frames)
            self._run_detection(frame)
        return self._visible_faces()

    def can_skip(self, frame: NDArray[np.uint8], index: int) -> bool:
        """Return whether this next frame may be skipped and passed to ``update_pair`` with the following one.

        All faces must be predictable, there must be at least one, and no detection may be due.
        """
        return (
            index == self._index + 1
            and frame is not self._last_frame
            and not self._is_detection_due(index)
            and len(self._tracks) > 0
            and all(track.is_predictable for track in self._tracks)
        )

    def update_pair(
        self, skipped: NDArray[np.uint8], frame: NDArray[np.uint8], index: int
    ) -> tuple[list[TrackedFace], list[TrackedFace]]:
        """Track the faces on the next two frames; those on the first are interpolated where possible.

        Args:
            skipped: frame ``index - 1``, for which ``can_skip`` was true.
            frame: uint8 (H, W), grayscale.
            index: number of the second frame.
        """
        found = [
            (track, self._fit_near(frame, track.predict_box(2), track.face.roll_deg))
            for track in self._tracks
        ]
        cuts = [self._scene_changes.push(pixels) for pixels in (skipped, frame)]
        if any(cuts) or any(track.needs_verification(face) for track, face in found):
            return (
                self._update(skipped, index - 1, is_cut=cuts[0]),
                self._update(frame, index, is_cut=cuts[1]),
            )
        self._is_cut = False
        faces_between = [self._interpolate(track, face, skipped) for track, face in found]
        self._index, self._last_frame = index, frame
        self._run_detection(frame)
        return _sort_by_size(faces_between), self._visible_faces()

    def _visible_faces(self) -> list[TrackedFace]:
        return _sort_by_size(
            self._to_tracked_face(track, track.face.box, track.face.landmarks)
            for track in self._tracks
            if track.is_visible
        )

    def _to_tracked_face(
        self,
        track: Track,
        box: BoundingBox,
        landmarks: NDArray[np.float32],
        *,
        is_interpolated: bool = False,
    ) -> TrackedFace:
        identity = None if self._identifier is None else self._identifier.get_identity(track.track_id)
        return TrackedFace(track.track_id, box, landmarks, is_interpolated, identity)

    def _track_face(self, track: Track, frame: NDArray[np.uint8], frames: int) -> None:
        """Fit a face on the next frame; mark it as doubtful if the detector must verify it."""
        face = self._fit_near(frame, track.predict_box(frames), track.face.roll_deg)
        track.is_doubtful = self._is_cut or track.needs_verification(face)
        if not track.is_doubtful:
            track.advance(face, frames)

    def _interpolate(self, track: Track, face: FaceObservation, frame: NDArray[np.uint8]) -> TrackedFace:
        """Return the face on the skipped frame, interpolated if possible, else fitted; advance the track."""
        half_way = np.asarray((track.face.landmarks + face.landmarks) / 2, np.float32)
        pose = estimate_pose(half_way)
        if track.can_interpolate_to(face):
            track.advance(face, 2)
            return self._to_tracked_face(track, pose.box, half_way, is_interpolated=True)
        track.advance(self._fit(frame, *pose), 1)
        looked_at = self._to_tracked_face(track, track.face.box, track.face.landmarks)
        track.advance(face, 1)
        return looked_at

    def _fit_near(self, frame: NDArray[np.uint8], box: BoundingBox, roll_deg: float) -> FaceObservation:
        """Fit the face near an expected box."""
        face = self._fit(frame, box, roll_deg)
        is_near = (
            face.box.distance(box) <= REFINE_SHIFT * box.side
            and abs(face.roll_deg - roll_deg) <= REFINE_ROLL_DEG
        )
        return face if is_near else self._fit(frame, face.box, face.roll_deg)

    def _fit_detection(self, frame: NDArray[np.uint8], found: DetectedFace) -> FaceObservation:
        """Fit a detected face."""
        boxes = (
            BoundingBox.from_centre(found.box.centre, share * found.box.side) for share in FIT_BOX_SCALES
        )
        first_fits = [self._fit(frame, box, found.roll_deg) for box in boxes]
        fits = [self._fit(frame, fit.box, fit.roll_deg) for fit in first_fits]
        return min(fits, key=lambda fit: median(fit.landmark_distance(other) for other in fits))

    def _fit(self, frame: NDArray[np.uint8], box: BoundingBox, roll_deg: float) -> FaceObservation:
        landmarks, presence = self._detector.predict_landmarks(frame, box, roll_deg)
        return FaceObservation(
            landmarks, *estimate_pose(landmarks), extract_patch(frame, landmarks), presence
        )

    # -- detection ----------------------------------------------------------------------------------------------

    def _run_detection(self, frame: NDArray[np.uint8]) -> None:
        """Run the detector on the whole frame when it is due, and verify doubtful faces at once."""
        is_search = self._index - self._searched_at >= SEARCH_INTERVAL_FRAMES
        is_whole = self._is_detection_due(self._index)
        faces: list[DetectedFace] = []
        if is_whole:
            faces = self._detect(frame, is_search=is_search)
            self._detected_at = self._index
            self._searched_at = self._index if is_search else self._searched_at
        for track in list(self._tracks):
            is_recheck = track.misses > 0 and self._index - track.last_check >= RECHECK_FRAMES
            if is_whole or track.is_doubtful or is_recheck:
                self._verify(track, faces, frame)
        self._drop_duplicates()
        if is_whole:
            self.faces_dropped = 0 if is_search else self.faces_dropped
            candidates = [face for face in faces if not self._is_tracked(face.box)]
            self._add_faces(candidates[:MAX_CANDIDATES], frame)
        if self._identifier is not None:
            self._identifier.decide([track.track_id for track in self._tracks if track.is_visible])

    def _is_detection_due(self, index: int) -> bool:
        """Return whether detection on the whole frame is due."""
        interval = DETECTION_INTERVAL_FRAMES if self._tracks else IDLE_INTERVAL_FRAMES
        return index - self._searched_at >= SEARCH_INTERVAL_FRAMES or index - self._detected_at >= interval

    def _detect(self, frame: NDArray[np.uint8], *, is_search: bool) -> list[DetectedFace]:
        if is_search:
            return self._face_search.search(frame, rolled_too=not self._tracks)
        return self._face_search.detect_coarsely(frame)

    def _verify(self, track: Track, faces: Iterable[DetectedFace], frame: NDArray[np.uint8]) -> None:
        """Verify a tracked face with the detector."""
        track.last_check = self._index
        precise = [face for face in faces if track.has_similar_roll(face)]
        found = max(precise, key=lambda face: face.box.iou(track.box), default=None)
        if found is None or found.box.iou(track.box) < SAME_FACE_IOU:
            found = self._detector.detect_near(frame, track.box, TRACKED_SCORE, track.face.roll_deg)
        if found is None:
            self._record_miss(track)
        elif track.is_visible:
            self._confirm(track, found, frame)
        else:
            self._reacquire(track, found, frame)

    def _confirm(self, track: Track, found: DetectedFace, frame: NDArray[np.uint8]) -> None:
        """Verify the landmarks of a face that the detector has found; replace them if they are off twice."""
        careful: FaceObservation | None = None
        if found.landmark_distance(track.face.landmarks) > MAX_POINT_DISTANCE:
            careful = self._fit_detection(frame, found)
        if careful is None or careful.landmark_distance(track.face) <= MAX_FIT_DISTANCE:
            track.confirm(track.face)
            self._look_at(track, frame)
            return
        track.mismatched_fits += 1
        if track.mismatched_fits >= MISMATCHED_FITS_TO_REPLACE:
            track.confirm(careful)

    def _reacquire(self, track: Track, found: DetectedFace, frame: NDArray[np.uint8]) -> None:
        """Continue a doubtful track with a detected face if it is the same person (it may not be after a cut)."""
        face = self._fit_detection(frame, found)
        is_other = self._is_cut and self._is_other_person(track, face, frame)
        if face.similarity(track.confirmed) >= SAME_PERSON_CORRELATION and not is_other:
            track.confirm(face)
            self._look_at(track, frame)
            return
        self._drop_track(track)
        if found.score >= CONFIDENT_SCORE:
            self._add_face(found, frame)

    def _look_at(self, track: Track, frame: NDArray[np.uint8]) -> None:
        """Let the identifier see a verified face."""
        if self._identifier is not None:
            self._identifier.look_at(track.track_id, self._index, frame, track.face.landmarks)

    def _is_other_person(self, track: Track, face: FaceObservation, frame: NDArray[np.uint8]) -> bool:
        """Return whether a face at the place of a track is clearly somebody else's, although it looks similar."""
        if self._identifier is None:
            return False
        return self._identifier.is_other_person(track.track_id, self._index, frame, face.landmarks)

    def _record_miss(self, track: Track) -> None:
        track.misses += 1
        track.is_doubtful = False
        if track.misses >= MAX_MISSES:
            self._drop_track(track)

    def _drop_track(self, track: Track) -> None:
        self._tracks.remove(track)
        track.last_check = self._index
        self._lost = [*filter(self._is_recoverable, self._lost), track]
        if self._identifier is not None:
            continuable = {track.track_id for track in (*self._tracks, *self._lost)}
            self._identifier.end_track(track.track_id, continuable)

    # -- adding and removing tracks -----------------------------------------------------------------------------

    def _add_faces(self, candidates: Iterable[DetectedFace], frame: NDArray[np.uint8]) -> None:
        """Track the candidates that are faces."""
        refined = (self._face_search.refine(frame, candidate) for candidate in candidates)
        dropped = sum(not self._add_face(face, frame) for face in refined if face is not None)
        self.faces_dropped = max(self.faces_dropped, dropped)

    def _add_face(self, found: DetectedFace, frame: NDArray[np.uint8]) -> bool:
        """Track a new face, unless it is none; return False if ``max_faces`` is reached."""
        if self._is_tracked(found.box):
            return True
        if not self._has_room_for(found.box):
            return False
        face = self._fit_detection(frame, found)
        if face.presence < MIN_PRESENCE or self._is_tracked(face.box):
            return True
        if len(self._tracks) == self._max_faces:
            self._drop_track(min(self._tracks, key=lambda track: track.box.side))
        remembered = filter(self._is_recoverable, self._lost)
        returned = next((lost for lost in remembered if lost.has_returned(face)), None)
        if returned is not None and not self._is_other_person(returned, face, frame):
            self._lost.remove(returned)
            track_id = returned.track_id
        else:
            self._track_count += 1
            track_id = self._track_count
        self._tracks.append(Track(track_id, face, face, self._index))
        self._look_at(self._tracks[-1], frame)
        return True

    def _has_room_for(self, box: BoundingBox) -> bool:
        """Return whether there are fewer than ``max_faces``, or the smallest face may be replaced."""
        smallest_px = min((track.box.side for track in self._tracks), default=0.0)
        return len(self._tracks) < self._max_faces or box.side >= MIN_REPLACING_GROWTH * smallest_px

    def _is_recoverable(self, lost: Track) -> bool:
        return self._index - lost.last_check <= MAX_LOST_FRAMES

    def _is_tracked(self, box: BoundingBox) -> bool:
        return any(track.box.iou(box) >= SAME_FACE_IOU for track in self._tracks)

    def _drop_duplicates(self) -> None:
        """Drop the newer of two tracks on the same face."""
        for track in sorted(self._tracks, key=lambda track: -track.track_id):
            others = (other for other in self._tracks if other.track_id < track.track_id)
            if any(track.box.iou(other.box) >= DUPLICATE_IOU for other in others):
                self._drop_track(track)


def _sort_by_size(faces: Iterable[TrackedFace]) -> list[TrackedFace]:
    return sorted(faces, key=lambda face: -face.box.side)
