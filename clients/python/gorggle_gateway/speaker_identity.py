"""Keeps speaker labels across inference servers, each of which numbers faces from 1."""

from __future__ import annotations

from gorggle import FaceBox, Segment
from gorggle.captions import VOICE_LABEL

# Face boxes with a smaller intersection over union are different people.
MIN_IOU = 0.25


class SpeakerIdentities:
    """Session-wide labels: a face at another face's last position keeps that face's label."""

    def __init__(self) -> None:
        self._names: dict[tuple[int, str], str] = {}
        self._last_boxes: dict[str, FaceBox] = {}

    def resolve(self, segment: Segment, generation: int) -> str:
        """Return the label of a segment's speaker; ``generation`` numbers the servers from 1."""
        if segment.speaker == VOICE_LABEL:
            return VOICE_LABEL
        key = generation, segment.speaker
        if key not in self._names:
            self._names[key] = self._match(segment, generation)
        if segment.face_boxes:
            self._last_boxes[self._names[key]] = segment.face_boxes[-1]
        return self._names[key]

    def lookup(self, speaker: str, generation: int) -> str:
        """Return the label for a server's own label, without face boxes."""
        return self._names.get((generation, speaker), speaker)

    def _match(self, segment: Segment, generation: int) -> str:
        taken = {name for (one, _), name in self._names.items() if one == generation}
        free = [name for name in self._last_boxes if name not in taken]
        if segment.face_boxes:
            first = segment.face_boxes[0]
            nearest = max(free, key=lambda name: _compute_iou(first, self._last_boxes[name]), default=None)
            if nearest is not None and _compute_iou(first, self._last_boxes[nearest]) >= MIN_IOU:
                return nearest
        elif segment.speaker not in taken:
            return segment.speaker
        is_new = segment.speaker not in self._names.values()
        return segment.speaker if is_new else f"{segment.speaker}.{generation}"


def _compute_iou(a: FaceBox, b: FaceBox) -> float:
    """Return the intersection over union, 0 to 1."""
    width = min(a.left + a.width, b.left + b.width) - max(a.left, b.left)
    height = min(a.top + a.height, b.top + b.height) - max(a.top, b.top)
    both = max(0.0, width) * max(0.0, height)
    return both / (a.width * a.height + b.width * b.height - both) if both else 0.0
