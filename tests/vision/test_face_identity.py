"""People keep their identity over cuts and absences, and different people stay apart.

With photographs in the public domain and rendered speakers; with speakers of GRID if GORGGLE_REAL_DATA is set.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from gorggle_server.media.demuxer import decode
from gorggle_server.media.resampling import GrayFrame, resample
from gorggle_server.recognition_options import MediaLimits
from gorggle_server.vision import face_identity
from gorggle_server.vision.face_embedding import (
    ALIGNED_POINTS,
    ALIGNED_PX,
    MIN_FACE_PX,
    align_clear_face,
    embed_face,
    is_rendered,
)
from gorggle_server.vision.face_identity import (
    OTHER_PERSON_SIMILARITY,
    SAME_PERSON_SIMILARITY,
    FaceIdentifier,
)
from gorggle_server.vision.face_tracker import MAX_LOST_FRAMES, FaceTracker, TrackedFace
from gorggle_server.vision.mouth_tracker import MouthTracker
from gorggle_training.face_rendering import Speaker, render_frames
from gorggle_training.visemes import K
from tests.vision.synthetic_video import Head, Pose, astronaut, face_detector, hopper, paint_head

Frames = list[NDArray[np.uint8]]
SHOT_FRAMES = 16
# Where a face is not verified, its track ends after about ten frames.
SETTLED_FRAMES = 12
HERE, THERE = Pose(200, 240, 60), Pose(430, 200, 45, turn=6)


def paint_shot(
    *people: tuple[Callable[[], Head], Pose], frames: int = SHOT_FRAMES, gain: float = 1.0, yaw_deg: float = 0
) -> Frames:
    """Return frames with people who breathe a little."""
    shot = []
    for index in range(frames):
        canvas = np.full((480, 640), 90, np.uint8)
        for head, pose in people:
            shown = head().turn(yaw_deg) if yaw_deg else head()
            moved = Pose(pose.x + np.sin(index / 5), pose.y, pose.eyes_px, pose.turn)
            paint_head(shown, moved, canvas, cut_out=True)
        shot.append(np.clip(canvas * gain, 0, 255).astype(np.uint8))
    return shot


def empty_shot(frames: int) -> Frames:
    return paint_shot(frames=frames)


def track_shots(*shots: Frames) -> list[list[TrackedFace]]:
    """Track the shots as one video; return the faces at the end of each."""
    tracker = FaceTracker(face_detector(), identifier=FaceIdentifier())
    last, index = [], itertools.count()
    for shot in shots:
        for frame in shot:
            faces = tracker.update(frame, next(index))
        last.append(faces)
    return last


def get_identities(faces: Iterable[TrackedFace]) -> list[int | None]:
    """Return the identities of faces from left to right."""
    return [face.identity for face in sorted(faces, key=lambda face: face.box.left)]


@cache
def drawn_frame(seed: int, size: tuple[int, int] = (640, 480), take: int = 0) -> NDArray[np.uint8]:
    """Return an image of a rendered speaker."""
    rng = np.random.default_rng([seed, take])
    frame = next(iter(render_frames(Speaker.from_seed(seed), np.zeros((1, K), np.float32), size, rng)))
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), np.uint8)


def embed_frame(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    (face,) = FaceTracker(face_detector()).update(frame, 0)
    aligned = align_clear_face(frame, face.landmarks)
    assert aligned is not None
    return embed_face(aligned)


# ---------------------------------------------------------------------------------------------------------- embeddings


@pytest.mark.parametrize("head", [astronaut, hopper])
def test_embeddings_of_one_person_are_similar_in_other_light_and_size(head: Callable[[], Head]) -> None:
    one = embed_frame(paint_shot((head, HERE), frames=1)[0])
    other = embed_frame(paint_shot((head, THERE), frames=1, gain=0.5)[0])
    assert one.shape == (128,)
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-5)
    assert one @ other > SAME_PERSON_SIMILARITY


def test_embeddings_of_two_people_differ() -> None:
    one, other = (embed_frame(paint_shot((head, HERE), frames=1)[0]) for head in (astronaut, hopper))
    assert one @ other < OTHER_PERSON_SIMILARITY


def test_a_face_is_aligned_to_the_points_that_the_network_expects() -> None:
    """Landmarks that lie at the expected points already are copied pixel by pixel."""
    (face,) = FaceTracker(face_detector()).update(frame := paint_shot((astronaut, HERE), frames=1)[0], 0)
    aligned = align_clear_face(frame, face.landmarks)
    assert aligned is not None
    (again,) = FaceTracker(face_detector()).update(np.pad(aligned, 60, mode="edge"), 0)
    eyes = np.array([again.landmarks[36:42].mean(axis=0), again.landmarks[42:48].mean(axis=0)]) - 60
    assert np.abs(eyes - ALIGNED_POINTS[:2]).max() < 4
    assert aligned.shape == (ALIGNED_PX, ALIGNED_PX)


@pytest.mark.parametrize(
    ("pose", "blur_px"),
    [(Pose(320, 240, 20), 0), (Pose(14, 240, 60), 0), (Pose(320, 240, 60), 5)],
    ids=["small", "cut off", "blurred"],
)
def test_an_unclear_face_is_no_evidence(pose: Pose, blur_px: float) -> None:
    frame = np.full((480, 640), 90, np.uint8)
    truth = paint_head(astronaut(), pose, frame, cut_out=True)
    frame = np.asarray(cv2.GaussianBlur(frame, (0, 0), blur_px), np.uint8) if blur_px else frame
    assert align_clear_face(frame, truth) is None


def test_a_face_in_profile_is_no_evidence() -> None:
    """``skimage.data.camera`` (CC0) shows a man in profile, 60 pixels wide: enlarged, he is large enough."""
    frame = np.asarray(cv2.resize(data.camera(), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), np.uint8)
    (face,) = FaceTracker(face_detector()).update(frame, 0)
    assert face.box.side > MIN_FACE_PX
    assert align_clear_face(frame, face.landmarks) is None


def test_a_face_of_the_minimum_size_is_evidence() -> None:
    head = astronaut()
    (face,) = FaceTracker(face_detector()).update(paint_shot((astronaut, HERE), frames=1)[0], 0)
    pose = Pose(320, 240, HERE.eyes_px * 1.05 * MIN_FACE_PX / face.box.side)
    frame = np.full((480, 640), 90, np.uint8)
    assert align_clear_face(frame, paint_head(head, pose, frame, cut_out=True)) is not None


# ------------------------------------------------------------------------------------------------------------ tracking


@pytest.mark.parametrize("head", [astronaut, hopper])
def test_a_person_keeps_the_identity_after_a_cut_to_another_position_size_and_light(
    head: Callable[[], Head],
) -> None:
    before, after = track_shots(paint_shot((head, HERE)), paint_shot((head, THERE), gain=0.6))
    assert [face.track_id for face in before + after] == [1, 2]
    assert get_identities(before) == get_identities(after) == [1]


def test_a_person_who_leaves_for_seconds_keeps_the_identity() -> None:
    before, gone, after = track_shots(
        paint_shot((astronaut, HERE)), empty_shot(90), paint_shot((astronaut, THERE))
    )
    assert not gone
    assert [face.track_id for face in before + after] == [1, 2]
    assert get_identities(before) == get_identities(after) == [1]


def test_people_who_replace_each_other_at_the_same_place_keep_their_own_identities() -> None:
    shots = track_shots(*(paint_shot((head, HERE)) for head in (astronaut, hopper, astronaut, hopper)))
    assert [get_identities(faces) for faces in shots] == [[1], [2], [1], [2]]


def test_a_replaced_person_is_noticed_where_the_surroundings_look_alike() -> None:
    """The tracker compares small images of the head, which a face alone does not change enough."""
    tracker = FaceTracker(face_detector(), identifier=FaceIdentifier())
    for index, frame in enumerate(paint_shot((astronaut, HERE))):
        (face,) = tracker.update(frame, index)
    other = paint_shot((hopper, HERE), frames=1)[0]
    (other_face,) = FaceTracker(face_detector()).update(other, 0)
    identifier = tracker._identifier
    assert identifier is not None
    assert identifier.is_other_person(face.track_id, SHOT_FRAMES, other, other_face.landmarks)


def test_both_people_of_a_shot_are_recognized_after_they_have_changed_sides() -> None:
    apart = paint_shot((astronaut, Pose(170, 240, 50)), (hopper, Pose(470, 240, 50)))
    swapped = paint_shot((hopper, Pose(170, 240, 50)), (astronaut, Pose(470, 240, 50)), frames=30)
    before, _, after = track_shots(apart, empty_shot(60), swapped)
    assert sorted(filter(None, get_identities(before))) == [1, 2]
    assert get_identities(after) == get_identities(before)[::-1]


def test_two_faces_in_view_are_two_people_even_if_they_are_alike() -> None:
    twins = paint_shot((astronaut, Pose(170, 240, 50)), (astronaut, Pose(470, 240, 50)))
    before, _, after = track_shots(
        twins, empty_shot(60), paint_shot((astronaut, Pose(320, 240, 60)), frames=35)
    )
    assert sorted(filter(None, get_identities(before))) == [1, 2]
    assert get_identities(after) == [3], "either of them may have returned"


def test_a_newcomer_beside_the_only_known_person_is_another_one() -> None:
    before, after = track_shots(
        paint_shot((astronaut, Pose(170, 240, 50))),
        paint_shot((astronaut, Pose(170, 240, 50)), (astronaut, Pose(470, 240, 50)), frames=60),
    )
    assert get_identities(before) == [1]
    assert get_identities(after) == [1, 2]


@pytest.mark.parametrize("yaw_deg", [-30, 30])
def test_a_person_who_returns_turned_is_recognized(yaw_deg: float) -> None:
    turned = paint_shot((astronaut, THERE), yaw_deg=yaw_deg)
    *_, after = track_shots(paint_shot((astronaut, HERE)), empty_shot(60), turned)
    assert get_identities(after) == [1]


def test_a_person_who_returns_far_away_is_recognized_when_near_enough() -> None:
    far = paint_shot((astronaut, Pose(430, 200, 20)), frames=30)
    approaching = [paint_shot((astronaut, Pose(430, 200, 20 + n)), frames=1)[0] for n in range(25)]
    *_, undecided, after = track_shots(paint_shot((astronaut, HERE)), empty_shot(60), far, approaching)
    assert get_identities(undecided) == [None]
    assert get_identities(after) == [1]
    assert [face.track_id for face in undecided] == [face.track_id for face in after]


def test_a_person_whose_track_ended_undecided_is_remembered() -> None:
    *_, short, last = track_shots(
        paint_shot((astronaut, HERE)),
        paint_shot((hopper, HERE), frames=4),
        empty_shot(SETTLED_FRAMES),
        paint_shot((hopper, THERE)),
    )
    assert not short
    assert get_identities(last) == [2]


def test_identities_do_not_change_within_a_track() -> None:
    tracker = FaceTracker(face_detector(), identifier=FaceIdentifier())
    shots = [paint_shot((head, pose)) for pose in (HERE, THERE) for head in (astronaut, hopper)]
    identities: dict[int, set[int | None]] = {}
    for index, frame in enumerate(itertools.chain.from_iterable(shots)):
        for face in tracker.update(frame, index):
            identities.setdefault(face.track_id, set()).add(face.identity)
    assert all(len(found - {None}) == 1 for found in identities.values())


def test_a_video_in_which_nobody_disappears_costs_no_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    embedded: list[NDArray[np.uint8]] = []
    monkeypatch.setattr(
        face_identity, "embed_face", lambda aligned: embedded.append(aligned) or embed_face(aligned)
    )
    track_shots(paint_shot((astronaut, Pose(170, 240, 50)), (hopper, Pose(470, 240, 50)), frames=60))
    assert not embedded
    track_shots(*(paint_shot((head, pose)) for pose in (HERE, THERE, HERE) for head in (astronaut, hopper)))
    assert 4 <= len(embedded) <= 14


def test_without_face_identity_nobody_is_recognized() -> None:
    shots = [*paint_shot((astronaut, HERE)), *paint_shot((astronaut, THERE))]
    identities = {}
    for face_identity_ in (False, True):
        mouths = MouthTracker(face_detector(), face_identity=face_identity_)
        results = [result for index, frame in enumerate(shots) for result in mouths.push(frame, index)]
        identities[face_identity_] = {
            (mouth.person, mouth.identity) for result in results for mouth in result.mouths
        }
    assert identities[False] == {(1, None), (2, None)}
    assert {(1, 1), (2, 1)} <= identities[True]


# ---------------------------------------------------------------------------------------------------- rendered speakers

RENDERED_SEEDS = range(1_000_100, 1_000_106)


def test_rendered_speakers_who_follow_each_other_stay_apart() -> None:
    """Rendered faces are alike: the network was trained on photographs."""
    shots = [
        shot
        for seed in RENDERED_SEEDS
        for shot in (hold_frame(drawn_frame(seed)), empty_shot(MAX_LOST_FRAMES + SETTLED_FRAMES))
    ]
    ids = [get_identities(faces) for faces in track_shots(*shots)[::2]]
    assert len({identity for (identity,) in ids}) == len(RENDERED_SEEDS)


def test_rendered_faces_are_told_from_photographed_ones() -> None:
    assert all(is_rendered(embed_frame(drawn_frame(seed))) for seed in RENDERED_SEEDS)
    for head in (astronaut, hopper):
        assert not is_rendered(embed_frame(paint_shot((head, HERE), frames=1)[0]))


def hold_frame(frame: NDArray[np.uint8]) -> Frames:
    """Return a still shot; the frames are copies, since repeated frames are not processed again."""
    return [frame.copy() for _ in range(SHOT_FRAMES)]


# --------------------------------------------------------------------------------------------------------- real speakers


# Three images of a new person are compared, ten frames apart.
GRID_FRAMES = 30


@cache
def read_grid_clips(count: int) -> dict[str, list[Frames]]:
    """Return the grayscale frames of the first clips of each speaker."""
    folders = sorted(Path(os.environ["GORGGLE_REAL_DATA"], "grid", "validation").iterdir())
    assert folders
    return {
        folder.name: [_read_frames(path) for path in sorted(folder.glob("*.mkv"))[:count]]
        for folder in folders
    }


def _read_frames(path: Path) -> Frames:
    limits = MediaLimits()
    with path.open("rb") as file:
        items = list(resample(decode(file, limits, audio=False), limits))
    return [item.pixels for item in items if isinstance(item, GrayFrame)][:GRID_FRAMES]


needs_real_data = pytest.mark.skipif(
    "GORGGLE_REAL_DATA" not in os.environ, reason="GORGGLE_REAL_DATA does not name a folder of real clips"
)


@needs_real_data
def test_real_speakers_keep_their_identities_over_cuts() -> None:
    clips = read_grid_clips(2)
    names = sorted(clips)
    rounds = [(name, clips[name][index]) for index in range(2) for name in names if len(clips[name]) > index]
    found: dict[str, list[int | None]] = {}
    for (name, _), faces in zip(rounds, track_shots(*(shot for _, shot in rounds)), strict=True):
        found.setdefault(name, []).extend(get_identities(faces))
    assert all(len(set(identities)) == 1 for identities in found.values()), found
    assert len({identities[0] for identities in found.values()}) == len(names), found
