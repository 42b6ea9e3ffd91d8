"""How containers are looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gorggle_server.media.byte_pipe import BytePipe
from gorggle_server.recognition_options import Modality, RecognitionOptions
from gorggle_server.settings import ServerSettings
from gorggle_server.streaming import media_pipeline
from gorggle_server.vision import frame_stage
from gorggle_server.vision.face_detector import FaceDetector
from gorggle_server.vision.mouth_tracker import MouthTracker

DEMO = Path(__file__).parents[2] / "examples" / "demo.mp4"


@pytest.mark.parametrize(
    ("modality", "live", "waits"),
    [
        (Modality.AUDIO_VISUAL, False, True),
        (Modality.AUDIO_VISUAL, True, False),
        (Modality.VIDEO_ONLY, False, False),
    ],
)
def test_frames_are_skipped_only_with_audio_and_without_live_input(
    monkeypatch: pytest.MonkeyPatch, modality: Modality, live: bool, waits: bool
) -> None:
    made: list[bool] = []

    class Tracker(MouthTracker):
        def __init__(self, detector: FaceDetector, *, skip_frames: bool, **more: Any) -> None:
            super().__init__(detector, skip_frames=skip_frames, **more)
            made.append(skip_frames)

    monkeypatch.setattr(frame_stage, "MouthTracker", Tracker)
    data = DEMO.read_bytes()
    pipe = BytePipe(len(data) + 1)
    pipe.write(data)
    pipe.close()
    options = RecognitionOptions(model="", modality=modality, live=live)
    perceived = media_pipeline.ContainerPipeline(pipe, options, ServerSettings(), 3600.0)
    for number, events in enumerate(perceived.steps()):
        list(events)
        if number == 8:
            break
    assert made[-1] is waits
    assert perceived.buffer.tracks


def test_the_scene_of_a_file_is_looked_at_every_ten_frames_only() -> None:
    data = DEMO.read_bytes()
    pipe = BytePipe(len(data) + 1)
    pipe.write(data)
    pipe.close()
    perceived = media_pipeline.ContainerPipeline(
        pipe, RecognitionOptions(model="", modality=Modality.AUDIO_VISUAL), ServerSettings(), 3600.0
    )
    looks = sum(1 for _ in perceived.steps())
    assert perceived.buffer.video_end == 499
    assert looks <= 499 / media_pipeline.STEP_FRAMES + 5
