"""The same words, however the clip comes: containers, codecs, frame rates, chunk sizes, crops."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import jiwer
import numpy as np
import pytest

from gorggle import Client, Finished, Segment, StreamWarning
from gorggle.v1 import lip_reading_pb2
from gorggle_server.media.demuxer import decode
from gorggle_server.media.resampling import GrayFrame, Waveform, resample
from gorggle_server.recognition_options import MediaLimits
from gorggle_server.vision.face_detector import FaceDetector
from gorggle_server.vision.face_tracker import FaceTracker
from gorggle_server.vision.mouth_cropper import crop_mouths, load_mean_face
from tests.clips import EXAMPLES, remux, transcode
from tests.integration.conftest import DEMO, Messages
from training.clips import photo_scene, write_clip
from training.photo_animation import Photograph
from training.speech_synthesis import Voice

Clip = Callable[[Path], Path]


def words_of(segments: list[Segment]) -> list[str]:
    return [word.text for segment in segments for word in segment.words]


def errors(said: list[str], read: list[str]) -> float:
    return jiwer.wer(" ".join(said), " ".join(read) or "-")


@pytest.fixture(scope="module")
def expected(server) -> list[Segment]:
    """What the demo clip as it stands gives."""
    with Client(server.address) as client:
        return list(client.transcribe(DEMO))


def test_the_demo_clip_is_transcribed(expected: list[Segment], spoken: list[str], truth: dict) -> None:
    assert errors(" ".join(spoken).split(), words_of(expected)) < 0.15
    assert len(expected) == len(spoken)
    assert {segment.speaker for segment in expected} == {"face-1"}
    for segment, sentence in zip(expected, truth["sentences"], strict=True):
        assert segment.start_s == pytest.approx(sentence["start_s"], abs=0.25)
        assert segment.end_s == pytest.approx(sentence["end_s"], abs=0.25)
        assert 0 < segment.confidence <= 1
        times = [time for word in segment.words for time in (word.start_s, word.end_s)]
        assert times == sorted(times)


def test_video_only_is_recognized(client: Client, spoken: list[str]) -> None:
    segments = list(client.transcribe(DEMO, modality="video"))
    assert errors(" ".join(spoken).split(), words_of(segments)) < 0.5
    assert {segment.modality for segment in segments} == {"video"}


def test_audio_only_is_recognized(client: Client, spoken: list[str]) -> None:
    segments = list(client.transcribe(DEMO, modality="audio"))
    assert errors(" ".join(spoken).split(), words_of(segments)) < 0.3
    assert {segment.speaker for segment in segments} == {"voice"}


REMUXED: dict[str, Clip] = {
    "index first": lambda to: remux(DEMO, to / "first.mp4", movflags="+faststart"),
    "index last": lambda to: remux(DEMO, to / "last.mp4"),
    "fragmented": lambda to: remux(
        DEMO, to / "fragmented.mp4", movflags="frag_keyframe+empty_moov+default_base_moof"
    ),
    "MPEG-TS": lambda to: remux(DEMO, to / "clip.ts", container="mpegts"),
    "Matroska": lambda to: remux(DEMO, to / "clip.mkv", container="matroska"),
}


@pytest.mark.parametrize("name", REMUXED)
def test_the_container_makes_no_difference(
    client: Client, expected: list[Segment], tmp_path: Path, name: str
) -> None:
    segments = list(client.transcribe(REMUXED[name](tmp_path)))
    assert words_of(segments) == words_of(expected)
    for segment, other in zip(segments, expected, strict=True):
        assert segment.start_s == pytest.approx(other.start_s, abs=0.09)


TRANSCODED: dict[str, Clip] = {
    "VP9 and Opus in WebM": lambda to: transcode(
        DEMO, to / "clip.webm", container="webm", video_codec="libvpx-vp9", audio_codec="libopus"
    ),
    "30 frames a second": lambda to: transcode(DEMO, to / "30.mp4", frame_rate_hz=30),
    "60 frames a second": lambda to: transcode(DEMO, to / "60.mp4", frame_rate_hz=60),
    "turned a quarter": lambda to: transcode(DEMO, to / "90.mp4", rotation_degrees=90),
    "upside down": lambda to: transcode(DEMO, to / "180.mp4", rotation_degrees=180),
}


@pytest.mark.parametrize("name", TRANSCODED)
def test_codec_frame_rate_and_rotation_make_no_difference(
    client: Client, expected: list[Segment], tmp_path: Path, name: str
) -> None:
    segments = list(client.transcribe(TRANSCODED[name](tmp_path)))
    assert [segment.text for segment in segments] == [segment.text for segment in expected]
    for segment, other in zip(segments, expected, strict=True):
        assert segment.start_s == pytest.approx(other.start_s, abs=0.09)


@pytest.mark.parametrize("chunk_bytes", [64, 1000, 65_536, 2**20])
def test_chunks_of_any_size_give_the_same(client: Client, expected: list[Segment], chunk_bytes: int) -> None:
    assert words_of(list(client.transcribe(DEMO, chunk_bytes=chunk_bytes))) == words_of(expected)


def test_chunks_of_random_sizes_give_the_same(client: Client, expected: list[Segment]) -> None:
    data, sizes = DEMO.read_bytes(), random.Random(7)

    def chunks() -> Iterator[bytes]:
        start = 0
        while start < len(data):
            end = start + sizes.choice([1, 17, 4096, 100_000])
            yield data[start:end]
            start = end

    assert words_of(list(client.transcribe(chunks()))) == words_of(expected)


def cut_here() -> tuple[np.ndarray, np.ndarray]:
    """The demo clip's mouth crops and audio, as prepared by a client with its own face tracking."""
    tracker, frames, landmarks, audio = FaceTracker(FaceDetector(), max_faces=1), [], [], []
    limits = MediaLimits()
    with DEMO.open("rb") as file:
        for item in resample(decode(file, limits), limits):
            if isinstance(item, GrayFrame):
                faces = tracker.update(item.pixels, item.index)
                frames.append(item.pixels)
                landmarks.append(faces[0].landmarks if faces else None)
            elif isinstance(item, Waveform):
                audio.append(item.samples)
    return crop_mouths(np.stack(frames), landmarks, load_mean_face()), np.concatenate(audio)


def test_mouth_crops_with_audio_give_the_same(client: Client, expected: list[Segment]) -> None:
    crops, audio = cut_here()
    segments = list(client.transcribe(crops, input_format="mouth_crops", frame_rate_hz=25, audio=audio))
    assert words_of(segments) == words_of(expected)
    alone = list(client.transcribe(crops, input_format="mouth_crops", frame_rate_hz=25, modality="video"))
    from_video = list(client.transcribe(DEMO, modality="video"))
    assert errors(words_of(from_video), words_of(alone)) < 0.2


def test_a_unary_call_returns_the_same_as_a_stream(client: Client, expected: list[Segment]) -> None:
    transcript = client.recognize(DEMO)
    assert words_of(list(transcript.segments)) == words_of(expected)


def test_a_start_offset_moves_every_time(client: Client, expected: list[Segment]) -> None:
    (first, *_) = client.transcribe(DEMO, start_offset_s=3600.0, face_boxes=True)
    assert first.start_s == pytest.approx(expected[0].start_s + 3600)
    assert first.words[0].start_s == pytest.approx(expected[0].words[0].start_s + 3600)
    assert first.face_boxes
    for box in first.face_boxes:
        assert 3600 <= box.time_s < 3605
        assert 0.2 < box.left + box.width / 2 < 0.8
        assert 0.1 < box.width < 0.6


def test_alternatives_differ_from_the_best_hypothesis(client: Client) -> None:
    for segment in client.transcribe(DEMO, max_alternatives=3, beam_size=10):
        texts = [segment.text, *(alternative.text for alternative in segment.alternatives)]
        assert 1 < len(texts) <= 4
        assert len(set(texts)) == len(texts)


def test_interim_results_come_before_the_final_ones(client: Client, expected: list[Segment]) -> None:
    segments = list(client.transcribe(DEMO, interim_results=True))
    final = [segment for segment in segments if segment.is_final]
    assert words_of(final) == words_of(expected)
    assert any(not segment.is_final for segment in segments)
    for segment in final:
        earlier = [
            other for other in segments if other.segment_id == segment.segment_id and other is not segment
        ]
        assert all(other.revision < segment.revision for other in earlier)


def test_the_first_segment_comes_before_all_was_sent(stub, messages: Messages) -> None:
    """Half a clip is sent, and no more until a segment has come back."""
    data, first_came, segments = DEMO.read_bytes(), threading.Event(), 0

    def halting() -> Iterator[lip_reading_pb2.StreamingRecognizeRequest]:
        half = len(data) // 2
        yield from messages(*(data[at : min(at + 8192, half)] for at in range(0, half, 8192)))
        assert first_came.wait(timeout=50)
        yield lip_reading_pb2.StreamingRecognizeRequest(media=data[half:])

    for response in stub.StreamingRecognize(halting(), timeout=60):
        if response.HasField("segment"):
            segments += 1
            first_came.set()
    assert segments >= 3


def test_two_faces_side_by_side_are_two_speakers(client: Client) -> None:
    clip = EXAMPLES / "two_speakers.mp4"
    truth = json.loads(clip.with_suffix(".json").read_text())
    segments = list(client.transcribe(clip))
    assert {segment.speaker for segment in segments} == {"face-1", "face-2"}
    right = 0
    names: dict[int, str] = {}
    for sentence in truth["sentences"]:
        middle_s = (sentence["start_s"] + sentence["end_s"]) / 2
        at = [segment for segment in segments if segment.start_s <= middle_s <= segment.end_s]
        assert len(at) == 1, sentence
        name = names.setdefault(sentence["speaker"], at[0].speaker)
        right += name == at[0].speaker
    assert right == len(truth["sentences"])
    assert len(set(names.values())) == 2


def test_more_faces_than_max_speakers_cause_a_warning(client: Client) -> None:
    events: list[object] = []
    list(client.transcribe(EXAMPLES / "two_speakers.mp4", max_speakers=1, on_event=events.append))
    assert any(
        "exceeds max_speakers (1)" in event.message for event in events if isinstance(event, StreamWarning)
    )


@pytest.mark.parametrize("size", [(640, 480), (1280, 720)])
@pytest.mark.parametrize("photograph", Photograph)
def test_a_talking_photograph_is_detected_and_tracked(
    client: Client, tmp_path: Path, size: tuple[int, int], photograph: Photograph
) -> None:
    voice = Voice.random(np.random.default_rng(5))
    scene = photo_scene(photograph, ["bin blue at f two now"], voice, size=size)
    clip = tmp_path / "photograph.mp4"
    write_clip(clip, scene.frames, scene.waveform)
    events: list[object] = []
    segments = list(client.transcribe(clip, modality="video", face_boxes=True, on_event=events.append))
    assert segments
    assert {segment.speaker for segment in segments} == {"face-1"}
    assert all(segment.face_boxes for segment in segments)
    assert [event.face_count for event in events if isinstance(event, Finished)] == [1]


def test_a_longer_endpoint_silence_gives_longer_segments(client: Client, expected) -> None:
    assert len(expected) == 3
    together = list(client.transcribe(DEMO, endpoint_silence_s=2.0, modality="audio"))
    assert len(together) == 1
