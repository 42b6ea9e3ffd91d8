"""Follows faces from frame to frame, so that each person keeps one id and gets landmarks on every frame.

Detecting costs ten times what landmarks cost. So landmarks are found on every frame from the box that the frame
before led to, and the detector looks only now and then: for new faces, and whether the followed ones are still there,
since dlib's predictor finds landmarks on a wall as readily as on a face.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from inference_server.vision.faces import (
    COARSE_SIDE_PX,
    FINE_SIDE_PX,
    Box,
    DetectedFace,
    FaceFinder,
    box_of,
)
from inference_server.vision.mouth import STABLE_POINTS, mean_face, similarity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

# Detector scores. A sure face is followed at once, a weak one when it is found twice; a face already followed is
# believed on less.
SURE_SCORE = 0.3
WEAK_SCORE = 0.12
FOLLOWED_SCORE = -0.4

# Movement from frame to frame, in face widths: beyond the first, landmarks are found again from the new box, beyond
# the second (or a change of size) the detector must confirm the face.
REFINE_SHIFT = 0.06
DOUBTFUL_SHIFT = 0.4
DOUBTFUL_GROWTH = 1.35

# A head looks like itself on the frame before: in motion and in speech the correlation stays above 0.9. Below the
# first the detector must confirm it. Between detections a head turns: below the second it is someone else's. Hair and
# what is behind the head are compared too: the skin alone may be so even that little but the open mouth can be seen.
# Landmarks tremble, so the best correlation within a small shift counts.
DOUBTFUL_CORRELATION = 0.85
SAME_PERSON_CORRELATION = 0.6
PATCH_PX, PATCH_WARPED_PX, PATCH_SHIFT_PX = 24, 144, 3
PATCH_LEFT, PATCH_TOP, PATCH_SIDE = -3, -23, 264  # in the canvas of the mean face

# dlib's detector can put its box up to half as wide again as the predictor was trained for, and the predictor then
# misses. So a newly detected face is fitted from several boxes, and the fit that the others agree with most is taken.
FITTED_BOXES = (0.65, 0.75, 0.85, 0.95, 1.05)

# At every look of the detector the face is fitted anew from its box. When the two fits differ by more than this share
# of the box twice in a row, the new one is believed: the old one was stuck on something else.
DIFFERENT_FIT = 0.05
FITS_TO_REPLACE = 2

# A face that was not confirmed is looked for every few frames, and dropped after several misses. A person who
# comes back to the same place within 2 s keeps the id.
RECHECK_FRAMES = 3
MAX_MISSES = 3
REMEMBERED_FRAMES = 50

SAME_BOX_OVERLAP = 0.3
DUPLICATE_OVERLAP = 0.45
RETURN_DISTANCE = 0.75
RETURN_GROWTH = 1.6
REPLACING_GROWTH = 1.5


@dataclass(frozen=True, eq=False)
class TrackedFace:
    """One person's face on one frame.

    Attributes:
        track_id: the person's number, from 1.
        box: where the face is, pixels.
        landmarks: float32 (68, 2), pixels, x before y, iBUG order.
        score: the detector's last word on this face (see ``DetectedFace``).
    """

    track_id: int
    box: Box
    landmarks: NDArray[np.float32]
    score: float


@dataclass(eq=False)
class _Face:
    """A face on one frame. ``patch`` shows it upright and small: its looks, to be compared."""

    landmarks: NDArray[np.float32]
    box: Box
    patch: NDArray[np.float32]

    def likeness(self, other: _Face) -> float:
        """Correlation of the looks, -1 to 1."""
        inner = other.patch[PATCH_SHIFT_PX:-PATCH_SHIFT_PX, PATCH_SHIFT_PX:-PATCH_SHIFT_PX]
        return float(cv2.matchTemplate(self.patch, inner, cv2.TM_CCOEFF_NORMED).max())

    def difference(self, other: _Face) -> float:
        """Mean distance of the landmarks, in shares of the box."""
        distance = np.linalg.norm(self.landmarks - other.landmarks, axis=1).mean()
        return float(distance) / max(self.box.side, 1.0)


@dataclass(eq=False)
class _Track:
    """A person followed: the face as last found, and as last confirmed by the detector."""

    track_id: int
    face: _Face
    confirmed: _Face
    score: float
    checked_at: int
    misses: int = 0
    is_doubtful: bool = False
    different_fits: int = 0

    @property
    def is_seen(self) -> bool:
        return self.misses == 0 and not self.is_doubtful

    @property
    def box(self) -> Box:
        return self.face.box

    def confirm(self, face: _Face, score: float) -> None:
        self.face = self.confirmed = face
        self.score, self.misses, self.is_doubtful, self.different_fits = score, 0, False, 0


class FaceTracker:
    """Follows the faces of one video, frame by frame. Not to be shared by threads at the same time.

    Args:
        finder: finds faces and landmarks.
        max_faces: how many are followed at once, the largest first. A face followed gives way only to one that is
            half as large again.
        detect_every: frames between two looks of the detector at the whole, reduced frame.
        search_every: frames between two finer searches, which also find small faces.
    """

    def __init__(
        self, finder: FaceFinder, *, max_faces: int = 4, detect_every: int = 10, search_every: int = 50
    ) -> None:
        self._finder = finder
        self._max_faces = max_faces
        self._detect_every, self._search_every = detect_every, search_every
        self._tracks: list[_Track] = []
        self._lost: list[_Track] = []
        self._weak: list[DetectedFace] = []  # seen once by the detector, unsurely
        self._detected_at = self._searched_at = -(10**9)
        self._last_frame: NDArray[np.uint8] | None = None
        self._people = 0
        self._index = 0
        self._dropped = 0

    @property
    def people(self) -> int:
        """How many people have been seen so far."""
        return self._people

    @property
    def faces_dropped(self) -> int:
        """How many faces the detector saw, at its last fine search or since, for which there was no place."""
        return self._dropped

    def has_lost(self, track_id: int) -> bool:
        """Whether this person is neither followed nor may still return under this id."""
        known = (*self._tracks, *filter(self._is_remembered, self._lost))
        return all(track.track_id != track_id for track in known)

    def update(self, frame: NDArray[np.uint8], index: int) -> list[TrackedFace]:
        """The faces on the next frame, largest first.

        Args:
            frame: uint8 (H, W), grey. The same array again (a still picture) costs nothing.
            index: the frame's number, rising.
        """
        self._index = index
        if frame is not self._last_frame:
            self._last_frame = frame
            for track in self._tracks:
                if track.is_seen:
                    self._follow(track, frame)
            self._look(frame)
        seen = sorted((track for track in self._tracks if track.is_seen), key=lambda track: -track.box.side)
        return [TrackedFace(track.track_id, track.box, track.face.landmarks, track.score) for track in seen]

    def _follow(self, track: _Track, frame: NDArray[np.uint8]) -> None:
        """Find the face again where it was. Where it leaps, or looks different, the detector must speak."""
        face = self._followed(frame, track.box)
        track.is_doubtful = (
            face.box.distance(track.box) > DOUBTFUL_SHIFT * track.box.side
            or _growth(face.box, track.box) > DOUBTFUL_GROWTH
            or face.likeness(track.face) < DOUBTFUL_CORRELATION
        )
        if not track.is_doubtful:
            track.face = face

    def _followed(self, frame: NDArray[np.uint8], box: Box) -> _Face:
        """The face near where it was on the frame before."""
        face = self._fitted(frame, box)
        return face if face.box.distance(box) <= REFINE_SHIFT * box.side else self._fitted(frame, face.box)

    def _detected(self, frame: NDArray[np.uint8], box: Box) -> _Face:
        """The face in a box of the detector's."""
        boxes = (Box.around(box.centre, share * box.side) for share in FITTED_BOXES)
        fits = [self._fitted(frame, self._fitted(frame, box).box) for box in boxes]
        return min(fits, key=lambda fit: float(np.median([fit.difference(other) for other in fits])))

    def _fitted(self, frame: NDArray[np.uint8], box: Box) -> _Face:
        landmarks = self._finder.landmarks(frame, box)
        return _Face(landmarks, box_of(landmarks), _patch(frame, landmarks))

    # -- the detector speaks ------------------------------------------------------------------------------------

    def _look(self, frame: NDArray[np.uint8]) -> None:
        """Let the detector look at the whole frame when it is due, and at faces in doubt at once."""
        is_search = self._index - self._searched_at >= self._search_every
        is_whole = is_search or self._index - self._detected_at >= self._detect_every
        faces: list[DetectedFace] = []
        if is_whole:
            faces = self._finder.detect(frame, FINE_SIDE_PX if is_search else COARSE_SIDE_PX, WEAK_SCORE)
            self._detected_at = self._index
            self._searched_at = self._index if is_search else self._searched_at
        for track in list(self._tracks):
            is_recheck = track.misses > 0 and self._index - track.checked_at >= RECHECK_FRAMES
            if is_whole or track.is_doubtful or is_recheck:
                self._check(track, faces, frame)
        self._drop_duplicates()
        if is_whole:
            self._dropped = 0 if is_search else self._dropped
            self._welcome_sure([face for face in faces if not self._is_followed(face.box)], frame)

    def _check(self, track: _Track, faces: Iterable[DetectedFace], frame: NDArray[np.uint8]) -> None:
        """Ask the detector whether a face is still there."""
        track.checked_at = self._index
        found = max(faces, key=lambda face: face.box.overlap(track.box), default=None)
        if found is None or found.box.overlap(track.box) < SAME_BOX_OVERLAP:
            found = self._finder.detect_near(frame, track.box, FOLLOWED_SCORE)
        if found is None:
            self._miss(track)
        elif track.is_seen:
            self._confirm(track, found, frame)
        else:
            self._find_again(track, found, frame)

    def _confirm(self, track: _Track, found: DetectedFace, frame: NDArray[np.uint8]) -> None:
        """The face is there: make sure that the landmarks are on it."""
        quick = self._fitted(frame, found.box)
        if quick.difference(track.face) > DIFFERENT_FIT:
            quick = self._fitted(
                frame, quick.box
            )  # fitted once, from a box that lies otherwise, it may be off
        if quick.difference(track.face) <= DIFFERENT_FIT:
            track.confirm(track.face, found.score)
            return
        careful = self._detected(frame, found.box)
        track.different_fits += careful.difference(track.face) > DIFFERENT_FIT
        if track.different_fits >= FITS_TO_REPLACE:
            track.confirm(careful, found.score)

    def _find_again(self, track: _Track, found: DetectedFace, frame: NDArray[np.uint8]) -> None:
        """A face is where one was in doubt: the same person's or, after a cut, someone else's."""
        face = self._detected(frame, found.box)
        if face.likeness(track.confirmed) >= SAME_PERSON_CORRELATION:
            track.confirm(face, found.score)
            return
        self._lose(track)
        if found.score >= SURE_SCORE:
            self._welcome(found, frame)

    def _miss(self, track: _Track) -> None:
        track.misses += 1
        track.is_doubtful = False
        if track.misses >= MAX_MISSES:
            self._lose(track)

    def _lose(self, track: _Track) -> None:
        self._tracks.remove(track)
        track.checked_at = self._index
        self._lost = [*filter(self._is_remembered, self._lost), track]

    # -- faces come and go --------------------------------------------------------------------------------------

    def _welcome_sure(self, faces: list[DetectedFace], frame: NDArray[np.uint8]) -> None:
        """Follow the new faces that are sure, or were seen before; keep the others in mind."""
        sure = [face for face in faces if face.score >= SURE_SCORE or _is_among(face, self._weak)]
        self._weak = [face for face in faces if face not in sure]
        self._dropped = max(self._dropped, sum(not self._welcome(face, frame) for face in sure))

    def _welcome(self, found: DetectedFace, frame: NDArray[np.uint8]) -> bool:
        """Follow a new face if there is a place for it: false where there is none."""
        face = self._detected(frame, found.box)
        if self._is_followed(face.box):
            return True
        if not self._has_place_for(face.box):
            return False
        remembered = filter(self._is_remembered, self._lost)
        returned = next((lost for lost in remembered if _is_return(face, lost)), None)
        if returned is not None:
            self._lost.remove(returned)
            track_id = returned.track_id
        else:
            self._people += 1
            track_id = self._people
        self._tracks.append(_Track(track_id, face, face, found.score, self._index))
        return True

    def _has_place_for(self, box: Box) -> bool:
        if len(self._tracks) < self._max_faces:
            return True
        smallest = min(self._tracks, key=lambda track: track.box.side)
        if box.side < REPLACING_GROWTH * smallest.box.side:
            return False
        self._lose(smallest)
        return True

    def _is_remembered(self, lost: _Track) -> bool:
        return self._index - lost.checked_at <= REMEMBERED_FRAMES

    def _is_followed(self, box: Box) -> bool:
        return any(track.box.overlap(box) >= SAME_BOX_OVERLAP for track in self._tracks)

    def _drop_duplicates(self) -> None:
        """Two tracks on one face: the one that began later goes."""
        for track in sorted(self._tracks, key=lambda track: -track.track_id):
            others = (other for other in self._tracks if other.track_id < track.track_id)
            if any(track.box.overlap(other.box) >= DUPLICATE_OVERLAP for other in others):
                self._lose(track)


def _growth(one: Box, other: Box) -> float:
    """How much larger the larger is, at least 1."""
    small, large = sorted((one.side, other.side))
    return large / max(small, 1e-6)


def _is_among(face: DetectedFace, faces: Iterable[DetectedFace]) -> bool:
    return any(face.box.overlap(other.box) >= SAME_BOX_OVERLAP for other in faces)


def _is_return(face: _Face, lost: _Track) -> bool:
    return (
        face.box.distance(lost.confirmed.box) <= RETURN_DISTANCE * face.box.side
        and _growth(face.box, lost.confirmed.box) <= RETURN_GROWTH
        and face.likeness(lost.confirmed) >= SAME_PERSON_CORRELATION
    )


def _patch(frame: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """The head upright in 24 x 24 pixels, with the hair and a little of what is behind."""
    to_canvas = similarity(landmarks[STABLE_POINTS].astype(np.float64), mean_face()[STABLE_POINTS])
    to_patch = (to_canvas - [[0, 0, PATCH_LEFT], [0, 0, PATCH_TOP]]) * (PATCH_WARPED_PX / PATCH_SIDE)
    warped = cv2.warpAffine(
        frame, to_patch, (PATCH_WARPED_PX, PATCH_WARPED_PX), borderMode=cv2.BORDER_REPLICATE
    )
    return cv2.resize(warped, (PATCH_PX, PATCH_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
