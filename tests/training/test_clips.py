"""Rendered clips: encoding, audio synchronization and ground truth."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from gorggle_training.clips import (
    DEMO_VOICE,
    compose_side_by_side,
    demo_scene,
    dialogue_scene,
    main,
    single_speaker_scene,
    to_ground_truth,
    two_speakers_scene,
    write_clip,
)
from gorggle_training.face_rendering import Speaker, demo_speaker
from gorggle_training.speech_synthesis import Voice

SENTENCES = ("bin blue", "place red in h")
EXAMPLES = Path(__file__).parents[2] / "examples"


def decode_clip(path: Path) -> tuple[list[np.ndarray], np.ndarray, int]:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        audio = [frame.to_ndarray().astype(float).mean(axis=0) for frame in container.decode(audio=0)]
        rate = container.streams.audio[0].rate
    return frames, np.concatenate(audio), rate


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_written_clip_has_all_frames_and_synchronized_audio(tmp_path: Path, suffix: str) -> None:
    scene = single_speaker_scene(demo_speaker(), SENTENCES[:1], DEMO_VOICE, pause_s=0.4, size=(320, 240))
    path = tmp_path / f"clip{suffix}"
    source = list(scene.frames)
    write_clip(path, source, scene.waveform)
    frames, audio, rate = decode_clip(path)
    assert len(frames) == len(source) == len(scene.waveform) * 25 // 16_000
    assert np.abs(frames[5].astype(int) - source[5]).mean() < 8
    loud = np.flatnonzero(np.abs(audio) > 0.1 * np.abs(audio).max()) / rate
    assert loud[0] == pytest.approx(scene.sentences[0].start_s, abs=0.06)
    assert loud[-1] == pytest.approx(scene.sentences[0].end_s, abs=0.25)


def test_an_mp4_has_its_index_before_the_media_data(tmp_path: Path) -> None:
    scene = single_speaker_scene(demo_speaker(), ["bin"], DEMO_VOICE, pause_s=0.1, size=(160, 120))
    write_clip(tmp_path / "clip.mp4", scene.frames, scene.waveform)
    data = (tmp_path / "clip.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_a_clip_without_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no frames"):
        write_clip(tmp_path / "clip.mp4", [], np.zeros(10, np.int16))


def test_sentences_have_pauses_of_the_requested_length() -> None:
    scene = single_speaker_scene(demo_speaker(), SENTENCES, DEMO_VOICE, pause_s=0.6, size=(64, 48))
    first, second = scene.sentences
    assert first.start_s == pytest.approx(0.6, abs=1e-3)
    assert second.start_s - first.end_s == pytest.approx(0.6, abs=0.01)
    assert 0.6 <= len(scene.waveform) / 16_000 - second.end_s < 0.66
    between = scene.waveform[int((first.end_s + 0.02) * 16_000) : int((second.start_s - 0.01) * 16_000)]
    assert np.abs(between.astype(int)).max() < 200


def test_only_the_lips_of_the_current_speaker_move() -> None:
    speakers = [demo_speaker(), Speaker.from_seed(2_000_005)]
    turns = [(0, "bob bob"), (1, "pop pop")]
    scene = dialogue_scene(speakers, [DEMO_VOICE, Voice("en-us", "m3", 110)], turns, 0.5, (480, 240))
    frames = np.stack(list(scene.frames)).astype(int)
    assert frames.shape[1:] == (240, 480, 3)
    motion = np.abs(np.diff(frames, axis=0)).mean(axis=3) > 40
    for sentence in scene.sentences:
        during = motion[int(sentence.start_s * 25) : int(sentence.end_s * 25)]
        lips = [during[:, 140:200, half : half + 240].sum() for half in (0, 240)]
        assert lips[sentence.speaker] > 3 * lips[1 - sentence.speaker]
    assert [sentence.speaker for sentence in scene.sentences] == [0, 1]


def test_side_by_side_video_ends_with_the_shorter_one() -> None:
    left, right = [np.zeros((4, 6, 3), np.uint8)] * 3, [np.ones((4, 2, 3), np.uint8)] * 2
    composed = list(compose_side_by_side([left, right]))
    assert [frame.shape for frame in composed] == [(4, 8, 3)] * 2


def test_the_ground_truth_has_words_and_timestamps() -> None:
    scene = single_speaker_scene(demo_speaker(), SENTENCES, DEMO_VOICE, size=(64, 48))
    truth = json.loads(json.dumps(to_ground_truth(scene, "a test", speaker_seed=1)))
    assert [sentence["text"] for sentence in truth["sentences"]] == list(SENTENCES)
    words = truth["sentences"][1]["words"]
    assert [word["text"] for word in words] == ["place", "red", "in", "h"]
    assert all(word["start_s"] < word["end_s"] <= truth["duration_s"] for word in words)
    assert truth["made_by"] == "a test"
    assert truth["speaker_seed"] == 1


@pytest.mark.parametrize(
    ("name", "size", "scene"),
    [("demo", (640, 480), demo_scene), ("two_speakers", (1280, 720), two_speakers_scene)],
)
def test_the_example_clips_match_their_ground_truth(name: str, size: tuple[int, int], scene) -> None:  # type: ignore[no-untyped-def]
    truth = json.loads((EXAMPLES / f"{name}.json").read_text())
    path = EXAMPLES / f"{name}.mp4"
    assert path.stat().st_size < 1_500_000
    frames, _, _ = decode_clip(path)
    assert frames[0].shape == (size[1], size[0], 3)
    assert len(frames) == round(truth["duration_s"] * 25)
    rendered = scene()
    assert [sentence["text"] for sentence in truth["sentences"]] == [s.text for s in rendered.sentences]
    # espeak-ng carries its pitch flutter over from sentence to sentence: timestamps vary by about 1 ms.
    assert [sentence["start_s"] for sentence in truth["sentences"]] == pytest.approx(
        [s.start_s for s in rendered.sentences], abs=0.02
    )


def test_the_command_writes_a_clip_and_its_ground_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gorggle_training.clips.DEMO_SENTENCES", ("bin blue",))
    main(["photo", "--out", str(tmp_path / "new" / "photo.mp4"), "--size", "320x240"])
    frames, _, _ = decode_clip(tmp_path / "new" / "photo.mp4")
    assert frames[0].shape == (240, 320, 3)
    truth = json.loads((tmp_path / "new" / "photo.json").read_text())
    assert truth["photo"] == "astronaut"
    assert [sentence["text"] for sentence in truth["sentences"]] == ["bin blue"]
