"""Decoding and face tracking of container formats."""

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
    ("modality", "live", "skips_frames"),
    [
        (Modality.AUDIO_VISUAL, False, True),
        (Modality.AUDIO_VISUAL, True, False),
        (Modality.VIDEO_ONLY, False, False),
    ],
)
def test_frame_skipping_is_enabled_only_for_recorded_audio_visual_input(
    monkeypatch: pytest.MonkeyPatch, modality: Modality, live: bool, skips_frames: bool
) -> None:
    skip_settings: list[bool] = []

    class RecordingTracker(MouthTracker):
        def __init__(self, detector: FaceDetector, *, skip_frames: bool, **options: Any) -> None:
            super().__init__(detector, skip_frames=skip_frames, **options)
            skip_settings.append(skip_frames)

    monkeypatch.setattr(frame_stage, "MouthTracker", RecordingTracker)
    data = DEMO.read_bytes()
    pipe = BytePipe(len(data) + 1)
    pipe.write(data)
    pipe.close()
    options = RecognitionOptions(model="", modality=modality, live=live)
    pipeline = media_pipeline.ContainerPipeline(pipe, options, ServerSettings(), 3600.0)
    for number, events in enumerate(pipeline.steps()):
        list(events)
        if number == 8:
            break
    assert skip_settings[-1] is skips_frames
    assert pipeline.buffer.tracks


def test_a_recorded_file_is_processed_in_steps_of_several_frames() -> None:
    data = DEMO.read_bytes()
    pipe = BytePipe(len(data) + 1)
    pipe.write(data)
    pipe.close()
    pipeline = media_pipeline.ContainerPipeline(
        pipe, RecognitionOptions(model="", modality=Modality.AUDIO_VISUAL), ServerSettings(), 3600.0
    )
    steps = sum(1 for _ in pipeline.steps())
    assert pipeline.buffer.video_end == 499
    assert steps <= 499 / media_pipeline.STEP_FRAMES + 5
