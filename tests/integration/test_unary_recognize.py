"""Transcripts do not depend on the container, codec, frame rate, rotation, chunk size or request type."""

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
from gorggle_training.clips import photo_scene, write_clip
from gorggle_training.photo_animation import Photograph
from gorggle_training.speech_synthesis import Voice
from tests.clips import EXAMPLES, remux, transcode
from tests.integration.conftest import DEMO, LONG_DEMO, Messages

Clip = Callable[[Path], Path]


def get_words(segments: list[Segment]) -> list[str]:
    return [word.text for segment in segments for word in segment.words]


def word_error_rate(reference: list[str], hypothesis: list[str]) -> float:
    return jiwer.wer(" ".join(reference), " ".join(hypothesis) or "-")


@pytest.fixture(scope="module")
def expected(server) -> list[Segment]:
    """Return the segments of the unmodified demo clip."""
    with Client(server.address) as client:
        return list(client.transcribe(DEMO))


def test_the_demo_clip_is_transcribed(
    expected: list[Segment], reference_sentences: list[str], truth: dict
) -> None:
    assert word_error_rate(" ".join(reference_sentences).split(), get_words(expected)) < 0.15
    assert len(expected) == len(reference_sentences)
    assert {segment.speaker for segment in expected} == {"face-1"}
    for segment, sentence in zip(expected, truth["sentences"], strict=True):
        assert segment.start_s == pytest.approx(sentence["start_s"], abs=0.25)
        assert segment.end_s == pytest.approx(sentence["end_s"], abs=0.25)
        assert 0 < segment.confidence <= 1
        times = [time for word in segment.words for time in (word.start_s, word.end_s)]
        assert times == sorted(times)


def test_video_only_is_recognized(client: Client, reference_sentences: list[str]) -> None:
    segments = list(client.transcribe(DEMO, modality="video"))
    assert word_error_rate(" ".join(reference_sentences).split(), get_words(segments)) < 0.5
    assert {segment.modality for segment in segments} == {"video"}


def test_audio_only_is_recognized(client: Client, reference_sentences: list[str]) -> None:
    segments = list(client.transcribe(DEMO, modality="audio"))
    assert word_error_rate(" ".join(reference_sentences).split(), get_words(segments)) < 0.3
    assert {segment.speaker for segment in segments} == {"voice"}


REMUXED: dict[str, Clip] = {
    "index first": lambda folder: remux(DEMO, folder / "first.mp4", movflags="+faststart"),
    "index last": lambda folder: remux(DEMO, folder / "last.mp4"),
    "fragmented": lambda folder: remux(
        DEMO, folder / "fragmented.mp4", movflags="frag_keyframe+empty_moov+default_base_moof"
    ),
    "MPEG-TS": lambda folder: remux(DEMO, folder / "clip.ts", container="mpegts"),
    "Matroska": lambda folder: remux(DEMO, folder / "clip.mkv", container="matroska"),
}


@pytest.mark.parametrize("name", REMUXED)
def test_the_transcript_does_not_depend_on_the_container(
    client: Client, expected: list[Segment], tmp_path: Path, name: str
) -> None:
    segments = list(client.transcribe(REMUXED[name](tmp_path)))
    assert get_words(segments) == get_words(expected)
    for segment, other in zip(segments, expected, strict=True):
        assert segment.start_s == pytest.approx(other.start_s, abs=0.09)


TRANSCODED: dict[str, Clip] = {
    "VP9 and Opus in WebM": lambda folder: transcode(
        DEMO, folder / "clip.webm", container="webm", video_codec="libvpx-vp9", audio_codec="libopus"
    ),
    "30 frames a second": lambda folder: transcode(DEMO, folder / "30.mp4", frame_rate_hz=30),
    "60 frames a second": lambda folder: transcode(DEMO, folder / "60.mp4", frame_rate_hz=60),
    "turned a quarter": lambda folder: transcode(DEMO, folder / "90.mp4", rotation_degrees=90),
    "upside down": lambda folder: transcode(DEMO, folder / "180.mp4", rotation_degrees=180),
}


@pytest.mark.parametrize("name", TRANSCODED)
def test_the_transcript_does_not_depend_on_codec_frame_rate_or_rotation(
    client: Client, expected: list[Segment], tmp_path: Path, name: str
) -> None:
    segments = list(client.transcribe(TRANSCODED[name](tmp_path)))
    assert [segment.text for segment in segments] == [segment.text for segment in expected]
    for segment, other in zip(segments, expected, strict=True):
        assert segment.start_s == pytest.approx(other.start_s, abs=0.09)


@pytest.mark.parametrize("chunk_bytes", [64, 2**20])
def test_the_transcript_does_not_depend_on_the_chunk_size(
    client: Client, expected: list[Segment], chunk_bytes: int
) -> None:
    assert get_words(list(client.transcribe(DEMO, chunk_bytes=chunk_bytes))) == get_words(expected)


def test_the_transcript_does_not_depend_on_random_chunk_sizes(
    client: Client, expected: list[Segment]
) -> None:
    data, sizes = DEMO.read_bytes(), random.Random(7)

    def chunks() -> Iterator[bytes]:
        start = 0
        while start < len(data):
            end = start + sizes.choice([1, 17, 4096, 100_000])
            yield data[start:end]
            start = end

    assert get_words(list(client.transcribe(chunks()))) == get_words(expected)


def crop_locally() -> tuple[np.ndarray, np.ndarray]:
    """Return the demo clip's mouth crops and audio, as a client with its own face tracking prepares them."""
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


def test_mouth_crops_with_audio_give_the_same_transcript_as_video(
    client: Client, expected: list[Segment]
) -> None:
    crops, audio = crop_locally()
    segments = list(client.transcribe(crops, input_format="mouth_crops", frame_rate_hz=25, audio=audio))
    assert get_words(segments) == get_words(expected)
    crops_only = list(
        client.transcribe(crops, input_format="mouth_crops", frame_rate_hz=25, modality="video")
    )
    from_video = list(client.transcribe(DEMO, modality="video"))
    assert word_error_rate(get_words(from_video), get_words(crops_only)) < 0.2


def test_a_unary_call_returns_the_same_as_a_stream(client: Client, expected: list[Segment]) -> None:
    transcript = client.recognize(DEMO)
    assert get_words(list(transcript.segments)) == get_words(expected)


def test_a_start_offset_shifts_all_timestamps(client: Client, expected: list[Segment]) -> None:
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


def test_interim_results_precede_final_results(client: Client, expected: list[Segment]) -> None:
    segments = list(client.transcribe(DEMO, interim_results=True))
    final = [segment for segment in segments if segment.is_final]
    assert get_words(final) == get_words(expected)
    assert any(not segment.is_final for segment in segments)
    for segment in final:
        earlier = [
            other for other in segments if other.segment_id == segment.segment_id and other is not segment
        ]
        assert all(other.revision < segment.revision for other in earlier)


def test_the_first_segment_arrives_before_all_media_is_sent(stub, messages: Messages) -> None:
    """The client sends the second half of the clip only after it received a segment."""
    data, received_first, segments = LONG_DEMO.read_bytes(), threading.Event(), 0

    def send_in_two_halves() -> Iterator[lip_reading_pb2.StreamingRecognizeRequest]:
        half = len(data) // 2
        yield from messages(*(data[at : min(at + 8192, half)] for at in range(0, half, 8192)))
        assert received_first.wait(timeout=50)
        yield lip_reading_pb2.StreamingRecognizeRequest(media=data[half:])

    for response in stub.StreamingRecognize(send_in_two_halves(), timeout=60):
        if response.HasField("segment"):
            segments += 1
            received_first.set()
    assert segments >= 3


def test_two_faces_side_by_side_are_two_speakers(client: Client) -> None:
    clip = EXAMPLES / "two_speakers.mp4"
    truth = json.loads(clip.with_suffix(".json").read_text())
    segments = list(client.transcribe(clip))
    assert {segment.speaker for segment in segments} == {"face-1", "face-2"}
    matched = 0
    names: dict[int, str] = {}
    for sentence in truth["sentences"]:
        middle_s = (sentence["start_s"] + sentence["end_s"]) / 2
        overlapping = [segment for segment in segments if segment.start_s <= middle_s <= segment.end_s]
        assert len(overlapping) == 1, sentence
        name = names.setdefault(sentence["speaker"], overlapping[0].speaker)
        matched += name == overlapping[0].speaker
    assert matched == len(truth["sentences"])
    assert len(set(names.values())) == 2


def test_more_faces_than_max_speakers_cause_a_warning(client: Client) -> None:
    events: list[object] = []
    list(client.transcribe(EXAMPLES / "two_speakers.mp4", max_speakers=1, on_event=events.append))
    assert any(
        "exceeds max_speakers (1)" in event.message for event in events if isinstance(event, StreamWarning)
    )


@pytest.mark.parametrize(
    ("photograph", "size"), [(Photograph.ASTRONAUT, (640, 480)), (Photograph.GRACE_HOPPER, (1280, 720))]
)
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


def test_a_longer_endpoint_silence_merges_segments(client: Client, expected) -> None:
    assert len(expected) == 2
    segments = list(client.transcribe(DEMO, endpoint_silence_s=2.0, modality="audio"))
    assert len(segments) == 1
