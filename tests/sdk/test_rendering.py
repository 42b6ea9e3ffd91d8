"""``--overlay`` and ``--plot``, rendered from a real clip and its reference transcript."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from gorggle import FaceBox, Segment, Transcript, Word
from gorggle.cli.main import main
from gorggle.cli.rendering import RenderOptions
from gorggle.errors import ConfigurationError, InvalidSourceError
from gorggle.events import Activity
from gorggle.rendering.overlay import write_overlay
from gorggle.rendering.timeline_plot import compute_speech_spans, extract_mouth_images, write_plot
from tests.clips import transcode

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CLIP = EXAMPLES / "demo.mp4"
BOX = (0.35, 0.3, 0.3, 0.4)


def load_segments(speaker: str = "face-1") -> list[Segment]:
    truth = json.loads(CLIP.with_suffix(".json").read_text())
    segments = []
    for sentence in truth["sentences"][:2]:
        words = tuple(Word(each["text"], each["start_s"], each["end_s"], 0.9) for each in sentence["words"])
        times = np.arange(words[0].start_s, words[-1].end_s, 0.2)
        boxes = tuple(FaceBox(float(time_s), *BOX) for time_s in times)
        segments.append(
            Segment(
                words[0].start_s,
                words[-1].end_s,
                sentence["text"],
                speaker=speaker,
                words=words,
                face_boxes=boxes,
            )
        )
    return segments


def read_frames(clip: Path, *times_s: float) -> list[Any]:
    with av.open(str(clip)) as container:
        frames = [(frame.time, frame) for frame in container.decode(video=0)]
    return [
        min(frames, key=lambda each: abs(each[0] - time_s))[1].to_ndarray(format="rgb24").astype(int)
        for time_s in times_s
    ]


def measure_durations(clip: Path) -> tuple[int, float]:
    with av.open(str(clip)) as container:
        frame_count = sum(1 for _ in container.decode(video=0))
    with av.open(str(clip)) as container:
        audio_s = sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
    return frame_count, audio_s


@pytest.fixture(scope="module")
def short_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return transcode(CLIP, tmp_path_factory.mktemp("clips") / "short_clip.mp4", max_s=5.0)


def test_captions_and_boxes_are_only_drawn_during_speech(short_clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    write_overlay(short_clip, load_segments(), target)
    (silent, spoken), (silent_before, spoken_before) = (
        read_frames(target, 4.0, 2.0),
        read_frames(short_clip, 4.0, 2.0),
    )
    height, width = spoken.shape[:2]
    caption = (slice(int(height * 0.87), int(height * 0.94)), slice(int(width * 0.4), int(width * 0.6)))
    assert np.abs(silent - silent_before).mean() < 4, "nothing must be drawn without speech"
    assert np.abs(spoken[caption] - spoken_before[caption]).mean() > 40
    edge = spoken[int(height * 0.5), int(width * BOX[0]) + 1]
    assert edge[1] > 180, "the left edge of the box must have the colour of the speaker"
    assert edge[1] > edge[0] + 60
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_frame_count_and_audio_duration_are_kept(short_clip: Path, tmp_path: Path) -> None:
    for name in ("out.mp4", "out.mkv"):
        write_overlay(short_clip, load_segments(), tmp_path / name)
        (frame_count, audio_s), (before, audio_before_s) = (
            measure_durations(tmp_path / name),
            measure_durations(short_clip),
        )
        assert frame_count == before
        assert audio_s == pytest.approx(audio_before_s, abs=0.1)


def test_a_rotated_video_is_drawn_upright(tmp_path: Path) -> None:
    rotated = transcode(CLIP, tmp_path / "rotated.mp4", rotation_degrees=90, max_s=2.4)
    write_overlay(rotated, load_segments(), tmp_path / "out.mp4")
    (upright,), (original,) = read_frames(tmp_path / "out.mp4", 0.4), read_frames(CLIP, 0.4)
    assert upright.shape == original.shape
    assert np.abs(upright - original).mean() < 8


def test_odd_sizes_missing_audio_and_boxes_beyond_the_frame_are_supported(tmp_path: Path) -> None:
    clip = transcode(
        CLIP,
        tmp_path / "odd.webm",
        container="webm",
        video_codec="libvpx-vp9",
        audio_codec=None,
        size=(161, 121),
        max_s=1.6,
    )
    off_screen_segments = [
        Segment(
            0.0, 1.5, "a" * 90 + " <b>", speaker="ü" * 40, face_boxes=(FaceBox(0.5, -0.2, -0.3, 1.6, 1.8),)
        )
    ]
    write_overlay(clip, off_screen_segments, tmp_path / "out.mp4")
    (frame,) = read_frames(tmp_path / "out.mp4", 0.5)
    assert frame.shape == (120, 160, 3)


def test_an_overlay_needs_a_video_stream(tmp_path: Path) -> None:
    audio = transcode(CLIP, tmp_path / "audio.mp4", video_codec=None, max_s=1.0)
    with pytest.raises(InvalidSourceError, match="no video stream"):
        write_overlay(audio, load_segments(), tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()
    write_plot(
        audio, Transcript(str(audio), 1.0, "grid", tuple(load_segments("voice"))), [], tmp_path / "out.png"
    )


def test_a_plot_has_mouth_images_during_speech(short_clip: Path, tmp_path: Path) -> None:
    transcript = Transcript(str(short_clip), 5.0, "grid", tuple(load_segments()))
    activities = [Activity("speech_begin", 0.9, "face-1"), Activity("speech_end", 3.5, "face-1")]
    mouths = extract_mouth_images(short_clip, load_segments(), 5.0)
    assert [speaker for _, speaker in mouths] == ["face-1"] * len(mouths)
    assert all(1.0 <= time_s <= 5.0 for time_s, _ in mouths)
    assert len(mouths) >= 3
    assert all(min(mouth.shape[:2]) > 50 for mouth in mouths.values())
    write_plot(short_clip, transcript, activities, tmp_path / "out.png")
    with av.open(str(tmp_path / "out.png")) as frame:
        assert frame.streams.video[0].width > 1000


def test_speech_spans_follow_activity_events() -> None:
    events = [
        Activity("speech_begin", 1.0, "face-1"),
        Activity("speech_begin", 1.5, "face-2"),
        Activity("speech_end", 2.0, "face-1"),
    ]
    assert compute_speech_spans(events, [], 4.0) == [("face-1", 1.0, 2.0), ("face-2", 1.5, 4.0)]
    assert compute_speech_spans([], load_segments()[:1], 4.0) == [("face-1", 1.0, 3.496)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.mp4", "b.mp4", "--overlay", "out.mp4"], "exactly one file"),
        (["-", "--plot", "out.png"], "not standard input"),
        (["a.mp4", "--overlay", "out.gif"], ".mp4, .mov, .mkv"),
        (["a.mp4", "--plot", "out.jpg"], ".png, .svg, .pdf"),
        (["a.mp4", "--overlay", "./a.mp4"], "overwrite"),
        (["a.mp4", "--overlay", "no/such/out.mp4"], "no such folder"),
    ],
)
def test_invalid_render_options_are_refused_before_transcription(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["transcribe", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_extra_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(__import__("sys").modules, "gorggle.rendering.timeline_plot", raising=False)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ConfigurationError, match=r"gorggle\[rendering\]"):
        RenderOptions(plot=tmp_path / "out.png").write(CLIP, Transcript("", 0.0, ""), [])
