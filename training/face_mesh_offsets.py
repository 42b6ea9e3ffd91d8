"""Measures where dlib's 68 landmarks lie on MediaPipe's face mesh, and how mouth crops by either differ.

python training/face_mesh_offsets.py --person s1 CLIP… --person s4 CLIP… --write FILE
python training/face_mesh_offsets.py --person s2 CLIP… --person s3 CLIP…

The offset of a landmark is the median over people of its mean over their frames, in the canvas of the mean face, averaged
with that of the mirrored landmark. Needs dlib's model; a server whose landmark model is ``mediapipe`` does not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from gorggle_server.vision.face_detector import FaceDetector, get_fine_side
from gorggle_server.vision.face_geometry import BoundingBox, estimate_pose
from gorggle_server.vision.face_mesh import (
    CORRESPONDENCE_FILE,
    Correspondence,
    FaceMeshPredictor,
    load_correspondence,
)
from gorggle_server.vision.face_track import LEFT_EYE, RIGHT_EYE
from gorggle_server.vision.mouth_cropper import (
    MOUTH_POINTS,
    STABLE_POINTS,
    estimate_similarity,
    load_mean_face,
)

FRAMES_PER_CLIP = 5

# dlib returns whole pixels, and other ones from other boxes: its landmarks are averaged over boxes that are moved and scaled by
# these shares.
BOX_SHIFTS, BOX_SCALES = (-0.03, 0.0, 0.03), (0.97, 1.03)

# Pairs of landmarks that a mirror exchanges.
MIRRORED = [
    *((left, 16 - left) for left in range(17)),
    *((left, 43 - left) for left in range(17, 27)),
    *((point, point) for point in range(27, 31)),
    *((left, 66 - left) for left in range(31, 36)),
    *((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)),
    *((left, 102 - left) for left in range(48, 55)),
    *((left, 114 - left) for left in range(55, 60)),
    *((left, 124 - left) for left in range(60, 65)),
    *((left, 132 - left) for left in range(65, 68)),
]


class MeasuredFace(NamedTuple):
    """One face on one frame: dlib's landmarks (68, 2) and the mesh (468, 2), in pixels."""

    landmarks: NDArray[np.float64]
    mesh: NDArray[np.float64]


class CropDifference(NamedTuple):
    """A crop by the mesh compared with that by dlib: its centre in % of the eye distance, its scale and rotation."""

    right_percent: float
    down_percent: float
    scale_percent: float
    rotation_deg: float


def measure_faces(media: Sequence[Path]) -> Iterator[MeasuredFace]:
    """Yield the largest face of a few frames of each clip, or of photographs."""
    detector, predictor = FaceDetector(), FaceMeshPredictor()
    for path in media:
        for frame in _read_frames(path):
            faces = detector.detect(frame, get_fine_side(frame))
            if not faces:
                continue
            points = detector.predict_landmarks(frame, faces[0].box, faces[0].roll_deg).points
            landmarks = _average_landmarks(detector, frame, points)
            mesh, _ = predictor.predict_mesh(frame, *estimate_pose(landmarks))
            yield MeasuredFace(landmarks, mesh)


def estimate_offsets(
    people: Sequence[Sequence[MeasuredFace]], indices: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the offsets (68, 2) of the landmarks from points of the mesh."""
    means = []
    for faces in people:
        offsets = [
            (face.landmarks - face.mesh[indices].mean(axis=1)) @ _map_to_canvas(face.landmarks)[:, :2].T
            for face in faces
        ]
        means.append(np.mean(offsets, axis=0))
    offsets_of_people = np.median(means, axis=0)
    mirrored = np.empty_like(offsets_of_people)
    for left, right in MIRRORED:
        mirrored[left], mirrored[right] = offsets_of_people[right], offsets_of_people[left]
    return np.asarray((offsets_of_people + mirrored * [-1, 1]) / 2, np.float64)


def compare_crops(face: MeasuredFace, correspondence: Correspondence) -> CropDifference:
    """Return how the crop of one frame changes with the landmark model."""
    mean_face = load_mean_face()
    eye_distance = np.linalg.norm(mean_face[RIGHT_EYE].mean(axis=0) - mean_face[LEFT_EYE].mean(axis=0))
    by_dlib = _map_to_canvas(face.landmarks)
    points = correspondence.apply(face.mesh) @ by_dlib[:, :2].T + by_dlib[:, 2]
    mouth = face.landmarks[MOUTH_POINTS].mean(axis=0) @ by_dlib[:, :2].T + by_dlib[:, 2]
    right, down = (points[MOUTH_POINTS].mean(axis=0) - mouth) / eye_distance * 100
    change = estimate_similarity(points[STABLE_POINTS], mean_face[STABLE_POINTS])
    factor = complex(change[0, 0], change[1, 0])
    return CropDifference(
        float(right), float(down), (abs(factor) - 1) * 100, float(np.degrees(np.angle(factor)))
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the faces of people; write the offsets or print the differences of crops."""
    parser = argparse.ArgumentParser(description="Compare MediaPipe's face mesh with dlib's landmarks.")
    parser.add_argument(
        "--person",
        action="append",
        nargs="+",
        required=True,
        metavar=("NAME", "FILE"),
        help="a name, and clips or photographs of one person; repeatable",
    )
    parser.add_argument("--write", type=Path, metavar="JSON", help="write the offsets of these people")
    options = parser.parse_args(arguments)
    people = {name: list(measure_faces([Path(file) for file in files])) for name, *files in options.person}
    if missing := [name for name, faces in people.items() if not faces]:
        print(f"no face was found of {', '.join(missing)}", file=sys.stderr)
        return 1
    correspondence = load_correspondence()
    if options.write is not None:
        correspondence = correspondence._replace(
            offsets=estimate_offsets(list(people.values()), correspondence.indices)
        )
        _write_correspondence(options.write, correspondence)
    print("person: frames; mean (standard deviation) of right %, down %, scale %, rotation in degrees")
    for name, faces in people.items():
        differences = np.array([compare_crops(face, correspondence) for face in faces])
        columns = zip(differences.mean(axis=0), differences.std(axis=0), strict=True)
        print(f"{name}: {len(faces)};", ", ".join(f"{mean:+.1f} ({std:.1f})" for mean, std in columns))
    return 0


def _read_frames(path: Path) -> Iterator[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    for index in sorted(set(np.linspace(0, len(frames) - 1, FRAMES_PER_CLIP + 2).astype(int)[1:-1])):
        yield frames[index]


def _average_landmarks(
    detector: FaceDetector, frame: NDArray[np.uint8], points: NDArray[np.float32]
) -> NDArray[np.float64]:
    pose = estimate_pose(points)
    side = pose.box.side
    x, y = pose.box.centre
    fits = [
        detector.predict_landmarks(
            frame,
            BoundingBox.from_centre((x + shift * side, y - shift * side), scale * side),
            pose.roll_deg,
        ).points
        for shift in BOX_SHIFTS
        for scale in BOX_SCALES
    ]
    return np.asarray(np.mean(fits, axis=0), np.float64)


def _map_to_canvas(landmarks: NDArray[np.float64]) -> NDArray[np.float64]:
    return estimate_similarity(landmarks[STABLE_POINTS], load_mean_face()[STABLE_POINTS])


def _write_correspondence(path: Path, correspondence: Correspondence) -> None:
    description = json.loads(CORRESPONDENCE_FILE.read_text())["description"]
    entries = [
        json.dumps({"mesh": sorted(set(indices)), "offset": [round(value, 2) for value in offset]})
        for indices, offset in zip(
            correspondence.indices.tolist(), correspondence.offsets.tolist(), strict=True
        )
    ]
    rows = ",\n    ".join(entries)
    path.write_text(
        f'{{\n  "description": {json.dumps(description)},\n  "landmarks": [\n    {rows}\n  ]\n}}\n'
    )


if __name__ == "__main__":
    sys.exit(main())
