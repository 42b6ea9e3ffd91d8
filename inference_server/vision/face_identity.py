"""Recognizes people whose faces were tracked before: after a cut, or when they leave the picture and return.

Every tracked face has a number. When a new one appears while an earlier person is out of view, clear images of the two
are compared by their embeddings (``face_embedding``). Images are kept and only embedded when there is somebody to compare
with: a video in which nobody disappears costs no embedding.

Two faces in view at the same time are two people. If unsure, a face is a new person. So is a rendered one, because the
network does not tell rendered faces apart.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gorggle_server.vision.face_embedding import align_clear_face, embed_face, is_rendered

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    import numpy as np
    from numpy.typing import NDArray

# Cosine similarity of two images. In clips of nine speakers (docs/decisions/0022) one person has 0.78 and more, two people
# have 0.42 and less.
SAME_PERSON_SIMILARITY = 0.55
OTHER_PERSON_SIMILARITY = 0.4
# Rendered faces are all alike: one has 0.86 to 0.98, two have up to 0.91, which is enough to notice most replaced ones.
OTHER_RENDERED_SIMILARITY = 0.84
# The best match must exceed that with anybody who was seen together with that person by this.
MIN_LEAD = 0.1

# Images of a new person that are kept, at this interval; and those of one person in all, which includes one of each
# later appearance.
LOOKS_PER_FACE, LOOK_INTERVAL_FRAMES = 3, 25
MAX_LOOKS = 8
# Images of a new face that are compared until it is taken for a new person.
MAX_COMPARED_LOOKS = 3
# Those who appeared longest ago are forgotten: the more people are known, the more likely one resembles another.
MAX_PEOPLE = 64
# A face that looked different for a moment is compared with its person again after this many frames at the earliest.
CHECK_INTERVAL_FRAMES = 25


class _Look:
    """A clear image of a face, embedded on first use."""

    def __init__(self, aligned: NDArray[np.uint8]) -> None:
        self._aligned: NDArray[np.uint8] | None = aligned
        self._embedding: NDArray[np.float32] | None = None

    def embed(self) -> NDArray[np.float32]:
        if self._embedding is None:
            assert self._aligned is not None, "the image is kept until it is embedded"
            self._embedding, self._aligned = embed_face(self._aligned), None
        return self._embedding

    @property
    def is_rendered(self) -> bool:
        """Whether it is a rendered face."""
        return is_rendered(self.embed())

    def similarity(self, other: _Look) -> float:
        """Return the cosine similarity, -1 to 1."""
        return float(self.embed() @ other.embed())


@dataclass(eq=False)
class _Face:
    """A tracked face.

    Attributes:
        identity: number of the first face of the same person; None while undecided.
        looks: until it is decided.
        seen_with: people in view at the same time.
    """

    identity: int | None = None
    looks: list[_Look] = field(default_factory=list)
    look_count: int = 0
    last_look: int = -(10**9)
    last_check: int = -(10**9)
    is_other: bool = False
    seen_with: set[int | None] = field(default_factory=set)


class FaceIdentifier:
    """Tells which faces of one video belong to one person. Not thread-safe."""

    def __init__(self) -> None:
        self._faces: dict[int, _Face] = {}
        self._people: dict[int, deque[_Look]] = {}
        self._seen_together: dict[int, set[int | None]] = {}

    def get_identity(self, number: int) -> int | None:
        """Return the number of the first face of the same person; None while undecided. It does not change later."""
        face = self._faces.get(number)
        return None if face is None else face.identity

    def look_at(
        self, number: int, index: int, frame: NDArray[np.uint8], landmarks: NDArray[np.float32]
    ) -> None:
        """Keep a clear image of a face if one is needed.

        Args:
            number: of the face.
            index: of the frame.
            frame: uint8 (H, W), grayscale.
            landmarks: (68, 2), verified.
        """
        face = self._faces.setdefault(number, _Face())
        if face.identity is not None and (
            face.identity != number
            or face.look_count >= LOOKS_PER_FACE
            or index - face.last_look < LOOK_INTERVAL_FRAMES
        ):
            return
        aligned = align_clear_face(frame, landmarks)
        if aligned is None:
            return
        face.look_count, face.last_look = face.look_count + 1, index
        if face.identity is None:
            face.looks.append(_Look(aligned))
        elif (known := self._people.get(face.identity)) is not None:
            known.append(_Look(aligned))

    def decide(self, visible: Iterable[int]) -> None:
        """Decide which undecided ones of the visible faces belong to an earlier person."""
        faces = {number: self._faces[number] for number in visible if number in self._faces}
        for number, face in faces.items():
            others = {other.identity for other in faces.values() if other is not face}
            face.seen_with |= others - {None}
            if face.identity is None:
                self._decide(number, face)
            if face.identity is not None:
                self._seen_together.setdefault(face.identity, set()).update(face.seen_with)

    def end_track(self, number: int, continuable: Container[int]) -> None:
        """Take an undecided face whose track has ended for a new person; forget faces whose tracks cannot continue."""
        face = self._faces.get(number)
        if face is not None and face.looks:
            self._add_person(number, face)
        self._faces = {other: face for other, face in self._faces.items() if other in continuable}
        self._seen_together = {
            person: others for person, others in self._seen_together.items() if person in self._people
        }

    def is_other_person(
        self, number: int, index: int, frame: NDArray[np.uint8], landmarks: NDArray[np.float32]
    ) -> bool:
        """Return whether a clear image at the place of a tracked face shows somebody else, as after a cut.

        The answer is used again for some frames.
        """
        face = self._faces.get(number)
        looks = [] if face is None else [*face.looks, *self._people.get(face.identity or 0, ())]
        if face is None or not looks:
            return False
        if index - face.last_check >= CHECK_INTERVAL_FRAMES:
            aligned = align_clear_face(frame, landmarks)
            if aligned is None:
                return False
            look = _Look(aligned)
            limit = OTHER_RENDERED_SIMILARITY if look.is_rendered else OTHER_PERSON_SIMILARITY
            face.is_other = max(map(look.similarity, looks)) < limit
            face.last_check = index
        return face.is_other

    def _decide(self, number: int, face: _Face) -> None:
        candidates = {
            person: looks for person, looks in self._people.items() if person not in face.seen_with and looks
        }
        if candidates and not face.looks:
            return
        if candidates:
            is_comparable = not face.looks[-1].is_rendered
            person = self._find_match(face.looks, candidates) if is_comparable else None
            if person is not None:
                self._people[person] = known = self._people.pop(person)  # the last to be forgotten
                known.append(face.looks[-1])
                face.identity, face.looks = person, []
                return
            if is_comparable and len(face.looks) < MAX_COMPARED_LOOKS:
                return
        self._add_person(number, face)

    def _add_person(self, number: int, face: _Face) -> None:
        if len(self._people) == MAX_PEOPLE:
            del self._people[next(iter(self._people))]
        face.identity = number
        self._people[number] = deque(face.looks, MAX_LOOKS)
        face.looks = []

    def _find_match(self, looks: list[_Look], people: dict[int, deque[_Look]]) -> int | None:
        """Return the person whom a face matches clearly; None if there is none, or another one matches as well."""
        scores = {
            person: sum(max(map(look.similarity, known)) for look in looks) / len(looks)
            for person, known in people.items()
        }
        best = max(scores, key=lambda person: scores[person])
        # Two people who were never seen together may be one person who was not recognized.
        seen_together = self._seen_together.get(best, set())
        rivals = [scores[person] for person in scores if person in seen_together and person != best]
        lead = scores[best] - max(rivals, default=-1.0)
        return best if scores[best] >= SAME_PERSON_SIMILARITY and lead >= MIN_LEAD else None
