"""Speaker ids over cuts, through a server with sandboxed decoding and the SDK."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from gorggle import Client, Finished
from gorggle_server.input_format import FRAME_RATE_HZ, frames_to_samples
from gorggle_training.clips import photo_scene, write_clip
from gorggle_training.photo_animation import Photograph
from gorggle_training.speech_synthesis import Voice
from tests.integration.conftest import RunningServer, running_server

SIZE = (640, 480)
CLOSE, DISTANT = (1.0, 0.0, 0.0), (0.7, 40.0, 90.0)
# Who is shown in each shot, and how: scale, and shift in pixels.
SHOTS = [
    (Photograph.ASTRONAUT, CLOSE),
    (Photograph.GRACE_HOPPER, CLOSE),
    (Photograph.ASTRONAUT, DISTANT),
    (Photograph.GRACE_HOPPER, DISTANT),
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """Return a video with cuts between two people who take turns to speak, and the end of each shot in seconds."""
    frames: list[NDArray[np.uint8]] = []
    waveforms, ends = [], []
    for photograph, view in SHOTS:
        scene = photo_scene(
            photograph, ["bin blue at f two now"], Voice.random(np.random.default_rng(5)), SIZE
        )
        shot = list(move_frames(scene.frames, *view))
        frames += shot
        waveforms.append(np.resize(scene.waveform, frames_to_samples(len(shot))))
        ends.append(len(shot) / FRAME_RATE_HZ)
    path = tmp_path_factory.mktemp("cuts") / "cuts.mp4"
    write_clip(path, frames, np.concatenate(waveforms))
    return path, list(accumulate(ends))


def move_frames(
    frames: Iterable[NDArray[np.uint8]], scale: float, right_px: float, down_px: float
) -> Iterable[NDArray[np.uint8]]:
    transform = np.array([[scale, 0, right_px], [0, scale, down_px]])
    for frame in frames:
        yield np.asarray(cv2.warpAffine(frame, transform, SIZE), np.uint8)


def find_speakers(server: RunningServer, path: Path, ends: list[float]) -> tuple[list[set[str]], int]:
    """Return the speakers of each shot, and the number of faces that the server reports."""
    speakers: list[set[str]] = [set() for _ in ends]
    finished: list[Finished] = []

    def note_end(event: object) -> None:
        finished.extend([event] if isinstance(event, Finished) else [])

    with Client(server.address) as client:
        for segment in client.transcribe(path, on_event=note_end):
            middle_s = (segment.start_s + segment.end_s) / 2
            shot = next(number for number, end_s in enumerate(ends) if middle_s < end_s)
            speakers[shot].add(segment.speaker)
    return speakers, finished[0].face_count


def test_people_keep_their_speaker_ids_over_cuts(
    server: RunningServer, clip: tuple[Path, list[float]]
) -> None:
    speakers, faces = find_speakers(server, *clip)
    assert speakers == [{"face-1"}, {"face-2"}, {"face-1"}, {"face-2"}]
    assert faces == 2


def test_without_face_identity_every_shot_has_new_speaker_ids(clip: tuple[Path, list[float]]) -> None:
    with running_server(face_identity=False) as server:
        speakers, faces = find_speakers(server, *clip)
    assert speakers == [{"face-1"}, {"face-2"}, {"face-3"}, {"face-4"}]
    assert faces == 4
