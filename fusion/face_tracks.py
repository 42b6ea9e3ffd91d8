"""Face boxes: overlap of boxes, and Rekognition's detections linked to tracks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import groupby

from gorggle_fusion.assignment import max_weight_matching
from gorggle_fusion.errors import FusionInputError
from gorggle_fusion.json_fields import JsonReader
from gorggle_fusion.types import FaceBox, FaceTrack

DOCUMENT_NAME = "Amazon Rekognition's result"
# Longest gap within a track: Rekognition samples a video about twice a second.
MAX_GAP_S = 1.5
# Smallest overlap of one face's boxes in consecutive samples.
MIN_TRACKING_IOU = 0.15
# Boxes of two sources are compared if they are at most this far apart in time, and match from this overlap up.
MAX_BOX_OFFSET_S = 0.6
MIN_BOX_IOU = 0.3
# Weight of a pair of matching boxes in milliseconds: the server sends five boxes a second.
BOX_WEIGHT_MS = 200


def compute_iou(one: FaceBox, other: FaceBox) -> float:
    """Return the boxes' intersection over union, 0 to 1."""
    width = min(one.left + one.width, other.left + other.width) - max(one.left, other.left)
    height = min(one.top + one.height, other.top + other.height) - max(one.top, other.top)
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (one.width * one.height + other.width * other.height - shared)


def find_box(boxes: Sequence[FaceBox], time_s: float, max_offset_s: float) -> FaceBox | None:
    """Return the box nearest in time (boxes are sorted by time); None if none is near enough."""
    index = bisect_left(boxes, time_s, key=lambda box: box.time_s)
    near = boxes[max(0, index - 1) : index + 1]
    best = min(near, key=lambda box: abs(box.time_s - time_s), default=None)
    return best if best is not None and abs(best.time_s - time_s) <= max_offset_s else None


def parse_rekognition_tracks(pages: Sequence[object]) -> tuple[FaceTrack, ...]:
    """Parse all pages of GetFaceDetection and link the detections to tracks.

    Rekognition returns the faces of each sampled frame without identities (its people pathing was withdrawn in 2025).
    Faces of a frame are matched with the latest boxes of the tracks by overlap, all at once.

    Raises:
        FusionInputError: the job has not succeeded, a page is missing, or a page is not Rekognition's.
    """
    detections: list[FaceBox] = []
    for number, page in enumerate(pages, 1):
        fields = JsonReader.parse(page, f"{DOCUMENT_NAME}, page {number}")
        fields.get_choice("JobStatus", "SUCCEEDED")
        if fields.has("NextToken") and number == len(pages):
            raise FusionInputError(f"{fields.location} names a next page; expected all pages")
        detections += [_parse_detection(item) for item in fields.get_objects("Faces", required=False)]
    if not pages:
        raise FusionInputError(f"{DOCUMENT_NAME} has no page; expected at least one")
    return _link_detections(
        sorted(detections, key=lambda box: (box.time_s, box.left, box.top, box.width, box.height))
    )


def _parse_detection(item: JsonReader) -> FaceBox:
    box = item.get_object("Face").get_object("BoundingBox")
    return FaceBox(
        item.get_number("Timestamp", minimum=0) / 1000,
        box.get_number("Left"),
        box.get_number("Top"),
        box.get_number("Width", minimum=0),
        box.get_number("Height", minimum=0),
    )


def _link_detections(detections: Sequence[FaceBox]) -> tuple[FaceTrack, ...]:
    tracks: list[list[FaceBox]] = []
    live: list[list[FaceBox]] = []
    for time_s, group in groupby(detections, key=lambda box: box.time_s):
        detected = list(group)
        live = [track for track in live if time_s - track[-1].time_s <= MAX_GAP_S]
        weights = [[_compute_match_weight(track[-1], box) for box in detected] for track in live]
        row_of = {column: row for row, column in max_weight_matching(weights)}
        for column, row in row_of.items():
            live[row].append(detected[column])
        started = [[box] for column, box in enumerate(detected) if column not in row_of]
        tracks += started
        live += started
    return tuple(FaceTrack(f"track-{number}", tuple(track)) for number, track in enumerate(tracks, 1))


def _compute_match_weight(last: FaceBox, box: FaceBox) -> int:
    alike = compute_iou(last, box)
    return round(1000 * alike) if alike >= MIN_TRACKING_IOU else 0
