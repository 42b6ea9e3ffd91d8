"""Invalid input gets the documented status and a helpful message in time, and the server stays usable."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration

from gorggle import Client
from gorggle.v1 import config_pb2, lip_reading_pb2, lip_reading_pb2_grpc, media_pb2, model_pb2
from tests.clips import transcode
from tests.integration.conftest import DEMO, Messages, running_server

Request = lip_reading_pb2.StreamingRecognizeRequest
Config = config_pb2.StreamingConfig
DEADLINE_S = 60


def call_and_expect_failure(stub, requests) -> tuple[grpc.StatusCode, str]:
    """Run a stream that must fail; return its status code and details."""
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.StreamingRecognize(iter(requests), timeout=DEADLINE_S))
    return caught.value.code(), caught.value.details()


def create_config(modality: config_pb2.Modality.ValueType, **fields) -> Config:
    return Config(recognition=config_pb2.RecognitionConfig(modality=modality, **fields))


@pytest.fixture(autouse=True)
def _assert_server_is_idle_and_serving(client: Client) -> Iterator[None]:
    yield
    deadline = time.monotonic() + 10
    # A cancelled call ends on the client before the server has released its slot.
    while client.server_info().capacity.active_streams and time.monotonic() < deadline:
        time.sleep(0.02)
    assert client.server_info().capacity.active_streams == 0
    assert client.models()


def test_a_stream_without_messages_is_refused(stub) -> None:
    code, text = call_and_expect_failure(stub, [])
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "configuration first" in text


def test_media_before_the_configuration_is_refused(stub) -> None:
    code, text = call_and_expect_failure(stub, [Request(media=b"abc")])
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "began with media" in text


def test_an_empty_first_message_is_refused(stub) -> None:
    assert call_and_expect_failure(stub, [Request()])[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_a_second_configuration_is_refused(stub, messages: Messages) -> None:
    code, text = call_and_expect_failure(
        stub, [*messages(DEMO.read_bytes()[:5000]), Request(config=Config())]
    )
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "a second configuration" in text


def test_a_configuration_without_media_is_refused(stub, messages: Messages) -> None:
    code, text = call_and_expect_failure(stub, messages())
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "the stream is empty" in text


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(os.urandom(50_000), id="random bytes"),
        pytest.param(b"Dear Sir or Madam, " * 2000, id="text"),
        pytest.param(b"\0" * 50_000, id="zeros"),
        pytest.param(b"", id="empty chunk"),
        pytest.param(b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", id="playlist"),
        pytest.param(b"ffconcat version 1.0\nfile /etc/passwd\n", id="concat script"),
        pytest.param(DEMO.read_bytes()[:600] if DEMO.exists() else b"", id="truncated in the index"),
    ],
)
def test_bytes_that_are_not_media_are_refused(stub, messages: Messages, data: bytes) -> None:
    code, text = call_and_expect_failure(stub, messages(data))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert len(text) > 20
    assert "/etc" not in text


def test_a_truncated_file_is_transcribed_to_its_end_with_a_warning(stub, messages: Messages) -> None:
    data = DEMO.read_bytes()
    responses = list(stub.StreamingRecognize(messages(data[: len(data) // 2]), timeout=DEADLINE_S))
    kinds = [response.WhichOneof("event") for response in responses]
    assert kinds[-1] == "finished"
    assert "segment" in kinds
    warnings = [response.warning.kind for response in responses if response.HasField("warning")]
    assert lip_reading_pb2.Warning.KIND_DAMAGED_MEDIA in warnings


def test_a_file_without_video_is_refused_in_video_only_mode(stub, messages: Messages, tmp_path: Path) -> None:
    clip = transcode(DEMO, tmp_path / "audio.mp4", video_codec=None, max_s=4)
    code, text = call_and_expect_failure(
        stub, messages(clip.read_bytes(), config=create_config(config_pb2.MODALITY_VIDEO_ONLY))
    )
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "no video stream" in text


def test_a_file_without_audio_is_refused_in_audio_only_mode(stub, messages: Messages, tmp_path: Path) -> None:
    clip = transcode(DEMO, tmp_path / "mute.mp4", audio_codec=None, max_s=4)
    code, text = call_and_expect_failure(
        stub, messages(clip.read_bytes(), config=create_config(config_pb2.MODALITY_AUDIO_ONLY))
    )
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "no audio stream" in text


def write_video(path: Path, frames: list[np.ndarray]) -> Path:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_a_video_without_a_face_is_refused_in_video_only_mode(
    stub, messages: Messages, tmp_path: Path
) -> None:
    random = np.random.default_rng(1)
    landscape = np.repeat(np.repeat(random.integers(0, 255, (12, 16, 3), np.uint8), 40, 0), 40, 1)
    clip = write_video(tmp_path / "landscape.mp4", [landscape] * 50)
    code, text = call_and_expect_failure(
        stub, messages(clip.read_bytes(), config=create_config(config_pb2.MODALITY_VIDEO_ONLY))
    )
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "no face" in text


def test_frames_above_the_size_limit_are_refused_with_their_size(
    stub, messages: Messages, tmp_path: Path
) -> None:
    clip = write_video(tmp_path / "8k.mp4", [np.zeros((4320, 7680, 3), np.uint8)] * 2)
    code, text = call_and_expect_failure(stub, messages(clip.read_bytes()))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "7680" in text
    assert "4320" in text


def crops_request(count: int, pixels: bytes | None = None, times_s: list[float] | None = None) -> Request:
    message = media_pb2.MouthCrops(pixels=b"\x80" * (96 * 96 * count) if pixels is None else pixels)
    for number in range(count):
        time_s = number / 25 if times_s is None else times_s[number]
        message.offsets.append(Duration(seconds=int(time_s), nanos=int(time_s % 1 * 1e9)))
    return Request(mouth_crops=message)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        pytest.param(crops_request(2, b"\0" * (88 * 88 * 2)), "96 x 96", id="wrong size"),
        pytest.param(crops_request(2, b""), "96 x 96", id="no pixels"),
        pytest.param(crops_request(2, times_s=[1.0, 0.5]), "order", id="times that fall"),
        pytest.param(Request(pcm=media_pb2.Pcm(samples=b"abc")), "whole samples", id="half a sample"),
        pytest.param(Request(), "empty", id="empty message"),
    ],
)
def test_invalid_crops_and_audio_are_refused(stub, request_: Request, words: str) -> None:
    code, text = call_and_expect_failure(stub, [Request(config=Config()), crops_request(5), request_])
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert words in text


def test_container_bytes_after_crops_are_refused(stub) -> None:
    code, text = call_and_expect_failure(
        stub, [Request(config=Config()), crops_request(5), Request(media=b"abc")]
    )
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "one kind of media" in text


@pytest.mark.parametrize(
    ("config", "code", "words"),
    [
        ({"model": "whisper"}, grpc.StatusCode.NOT_FOUND, "gorggle-mini-1"),
        ({"beam_size": 5000}, grpc.StatusCode.INVALID_ARGUMENT, "5000"),
        ({"max_alternatives": 11}, grpc.StatusCode.INVALID_ARGUMENT, "11"),
        ({"max_speakers": 999}, grpc.StatusCode.INVALID_ARGUMENT, "999"),
        ({"length_penalty": float("nan")}, grpc.StatusCode.INVALID_ARGUMENT, "nan"),
        ({"length_penalty": 1e9}, grpc.StatusCode.INVALID_ARGUMENT, "length_penalty"),
        ({"modality": 17}, grpc.StatusCode.INVALID_ARGUMENT, "17"),
        ({"start_offset": Duration(seconds=-1)}, grpc.StatusCode.INVALID_ARGUMENT, "start_offset"),
        ({"start_offset": Duration(seconds=1, nanos=-5)}, grpc.StatusCode.INVALID_ARGUMENT, "Duration"),
        (
            {"endpointing": {"min_silence": Duration(seconds=9)}},
            grpc.StatusCode.INVALID_ARGUMENT,
            "min_silence is 9 s",
        ),
        ({"endpointing": {"max_utterance": Duration(seconds=60)}}, grpc.StatusCode.INVALID_ARGUMENT, "20 s"),
        ({"endpointing": {"min_speech": Duration()}}, grpc.StatusCode.INVALID_ARGUMENT, "min_speech"),
        ({"endpointing": {"speech_threshold": 1.0}}, grpc.StatusCode.INVALID_ARGUMENT, "threshold is 1"),
        ({"endpointing": {"speech_threshold": float("nan")}}, grpc.StatusCode.INVALID_ARGUMENT, "nan"),
    ],
)
def test_a_configuration_outside_the_limits_is_refused(
    stub, config: dict, code: grpc.StatusCode, words: str
) -> None:
    recognition = config_pb2.RecognitionConfig(**config)
    actual_code, text = call_and_expect_failure(
        stub, [Request(config=Config(recognition=recognition)), Request(media=b"abc")]
    )
    assert actual_code is code
    assert words in text


def test_an_unknown_model_is_not_found(stub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetModel(model_pb2.GetModelRequest(name="unknown"), timeout=10)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_unary_call_without_a_clip_is_refused(stub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Recognize(lip_reading_pb2.RecognizeRequest(), timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_an_idle_client_is_disconnected_with_deadline_exceeded() -> None:
    ended = threading.Event()

    def stall() -> Iterator[Request]:
        yield Request(config=Config())
        yield Request(media=DEMO.read_bytes()[:10_000])
        ended.wait(DEADLINE_S)

    with running_server(idle_timeout_s=1) as running, grpc.insecure_channel(running.address) as channel:
        start_s = time.monotonic()
        code, text = call_and_expect_failure(lip_reading_pb2_grpc.LipReadingStub(channel), stall())
        ended.set()
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "no message for 1 s" in text
        assert time.monotonic() - start_s < 8


def test_a_client_that_disconnects_frees_its_slot(stub, client: Client, messages: Messages) -> None:
    cancelled = threading.Event()

    def send_and_wait() -> Iterator[Request]:
        yield from messages(DEMO.read_bytes()[:100_000])
        cancelled.wait(DEADLINE_S)

    call = stub.StreamingRecognize(send_and_wait(), timeout=DEADLINE_S)
    next(call)
    call.cancel()
    cancelled.set()
    deadline = time.monotonic() + 10
    while client.server_info().capacity.active_streams and time.monotonic() < deadline:
        time.sleep(0.05)
    assert client.server_info().capacity.active_streams == 0


def test_an_expired_deadline_ends_the_call(stub, messages: Messages) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.StreamingRecognize(messages(DEMO.read_bytes()), timeout=0.001))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
