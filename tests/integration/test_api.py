"""API tests on a real server: frames, PCM formats, languages, paging and error details."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import grpc
import jiwer
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

import gorggle
from gorggle import AudioChunk, Client, VideoFrame
from gorggle.v1 import config_pb2, lip_reading_pb2, media_pb2, model_pb2
from gorggle_server.grpc_server.pcm_resampler import PcmResampler
from gorggle_server.grpc_server.request_decoding import decode_pcm
from gorggle_server.vision.mouth_cropper import STABLE_POINTS, load_mean_face
from tests import speech_model
from tests.clips import cut_demo
from tests.integration.conftest import DEMO, ROOT, RunningServer, running_server

Request = lip_reading_pb2.StreamingRecognizeRequest
JPEG = cv2.imencode(".jpg", np.full((120, 160, 3), 127, np.uint8))[1].tobytes()


def decode_demo(format_name: str = "rgb24", clip: Path = DEMO) -> tuple[list[np.ndarray], np.ndarray, int]:
    """Return the frames of the demo clip or a cut of it, its audio as int16 (S, C), and the sample rate."""
    audio = []
    with av.open(str(clip)) as container:
        rate = container.streams.audio[0].rate
        frames = [image.to_ndarray(format=format_name) for image in container.decode(video=0)]
    with av.open(str(clip)) as container:
        resampler = av.AudioResampler("s16", "stereo", rate)
        for frame in container.decode(audio=0):
            audio += [part.to_ndarray().reshape(-1, 2) for part in resampler.resample(frame)]
    return frames, np.concatenate(audio), rate


def interleave(frames: list[Any], audio: np.ndarray, rate: int) -> Iterator[Any]:
    """Yield frames at 25 Hz, each followed by its audio."""
    step = Fraction(rate, 25)
    for index, frame in enumerate(frames):
        yield frame
        yield AudioChunk(audio[int(index * step) : int((index + 1) * step)], rate)


def get_words(segments: Any) -> list[str]:
    return [word for segment in segments if segment.is_final for word in segment.text.split()]


def count_errors(expected: list[str], words: list[str]) -> int:
    """Return the edit distance in words."""
    compared = jiwer.process_words(" ".join(expected), " ".join(words))
    return compared.substitutions + compared.insertions + compared.deletions


@pytest.fixture(scope="module")
def sandboxed_server() -> Iterator[RunningServer]:
    with running_server(sandbox_decoding=True) as running:
        yield running


@pytest.fixture(scope="module")
def expected_words(sandboxed_server: RunningServer) -> list[str]:
    with Client(sandboxed_server.address) as client:
        return get_words(client.transcribe(DEMO))


# ------------------------------------------------------------------------------------------------------------- frames


def test_jpeg_frames_with_stereo_audio_give_the_same_words_as_the_file(
    sandboxed_server: RunningServer, expected_words: list[str]
) -> None:
    frames, audio, rate = decode_demo("bgr24")
    jpegs = [cv2.imencode(".jpg", frame)[1].tobytes() for frame in frames]
    events: list[Any] = []
    with Client(sandboxed_server.address) as client:
        segments = list(
            client.transcribe(
                interleave(jpegs, audio, rate), frame_rate_hz=25, on_event=events.append, face_boxes=True
            )
        )
    assert count_errors(expected_words, get_words(segments)) <= 1
    assert all(segment.face_boxes for segment in segments)
    (info,) = [event for event in events if isinstance(event, gorggle.MediaInfo)]
    assert (info.container, info.video_codec, info.width_px, info.height_px) == ("", "mjpeg", 640, 480)


def test_frames_without_audio_are_transcribed_from_the_lips(
    sandboxed_server: RunningServer, tmp_path: Path
) -> None:
    clip = cut_demo(tmp_path, sentence_count=2)
    frames, _, _ = decode_demo(clip=clip)
    with Client(sandboxed_server.address) as client:
        expected = get_words(client.transcribe(clip, modality="video"))
        arrays = get_words(client.transcribe(iter(frames), frame_rate_hz=25, modality="video"))
        # One sentence.
        timed = (VideoFrame(frame, 5 + index / 25) for index, frame in enumerate(frames[:100]))
        transcript = client.transcribe(timed).transcript()
    assert count_errors(expected, arrays) <= len(expected) // 5
    assert "no_audio" in [warning.kind for warning in transcript.warnings]
    assert all(segment.start_s >= 5 for segment in transcript.segments)


def test_audio_before_the_first_frame_is_buffered(sandboxed_server: RunningServer) -> None:
    def media() -> Iterator[Any]:
        yield AudioChunk(np.zeros(8000, np.float32))
        for _ in range(25):
            yield np.zeros((64, 64), np.uint8)

    with Client(sandboxed_server.address) as client:
        transcript = client.transcribe(media(), frame_rate_hz=25).transcript()
    assert transcript.duration_s == pytest.approx(1, abs=0.1)


def frame(offset_s: float = 0.0, **image: Any) -> Request:
    offset = Duration(nanos=round(offset_s * 1e9))
    return Request(frame=media_pb2.VideoFrame(offset=offset, **(image or {"jpeg": JPEG})))


def i420(width_px: int, height_px: int, size: int) -> Request:
    return frame(i420=media_pb2.I420Image(width_px=width_px, height_px=height_px, data=bytes(size)))


PCM = Request(pcm=media_pb2.Pcm(samples=bytes(3200)))


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        ([Request(frame=media_pb2.VideoFrame())], "frame"),
        ([frame(jpeg=b"")], "frame.jpeg"),
        ([frame(jpeg=b"\x89PNG")], "frame.jpeg"),
        ([frame(-0.5)], "frame.offset"),
        ([frame(0.5), frame(0.5)], "frame.offset"),
        (
            [frame(), Request(frame=media_pb2.VideoFrame(offset=Duration(seconds=61), jpeg=JPEG))],
            "frame.offset",
        ),
        ([i420(63, 64, 6048)], "frame.i420.width_px"),
        ([i420(64, 0, 0)], "frame.i420.height_px"),
        ([i420(64, 64, 6143)], "frame.i420.data"),
        ([i420(65534, 65534, 9)], "frame.i420"),
        ([i420(64, 64, 6144), frame(0.04)], "frame"),
        ([frame(), Request(media=b"abc")], "media"),
        ([PCM, frame()], "frame"),
        (
            [frame(), PCM, Request(pcm=media_pb2.Pcm(samples=b"ab", sample_rate_hertz=8000))],
            "pcm.sample_rate_hertz",
        ),
        ([Request(pcm=media_pb2.Pcm(samples=b"ab", sample_rate_hertz=7999))], "pcm.sample_rate_hertz"),
        ([Request(pcm=media_pb2.Pcm(samples=b"ab", channel_count=9))], "pcm.channel_count"),
        ([Request(pcm=media_pb2.Pcm(samples=b"abcdef", channel_count=2))], "pcm.samples"),
        ([Request(pcm=media_pb2.Pcm(samples=b"abcdef", encoding=2))], "pcm.samples"),
        ([Request(pcm=media_pb2.Pcm(samples=b"ab", encoding=9))], "pcm.encoding"),
        ([PCM, Request(pcm=media_pb2.Pcm(samples=b"ab", sample_rate_hertz=8000))], "pcm.sample_rate_hertz"),
    ],
)
def test_invalid_media_messages_are_refused_with_the_field_name(
    stub, requests: list[Request], field: str
) -> None:
    config = Request(config=config_pb2.StreamingConfig())
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.StreamingRecognize(iter([config, *requests]), timeout=30))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert unpack(caught.value, error_details_pb2.BadRequest()).field_violations[0].field == field


def test_damaged_jpeg_frames_release_their_slots(sandboxed_server: RunningServer) -> None:
    random = np.random.default_rng(3)
    with Client(sandboxed_server.address) as client:
        for _ in range(3):
            damaged = [JPEG[:4] + random.bytes(2000) for _ in range(30)]
            with contextlib.suppress(gorggle.GorggleError):
                list(client.transcribe(iter(damaged), frame_rate_hz=25))
        assert client.server_info().capacity.active_streams == 0


# --------------------------------------------------------------------------------------------------------------- PCM


def encode_sine(rate: int, encoding: int, channels: int) -> np.ndarray:
    """Return three seconds of a 440 Hz sine in a PCM format."""
    sine = 0.5 * np.sin(2 * np.pi * 440 * np.arange(3 * rate) / rate)
    samples = np.repeat(sine[:, None], channels, axis=1)
    return samples.astype("<f4") if encoding == 2 else np.rint(samples * 32767).astype("<i2")


FORMATS = [(16_000, 0, 1), (16_000, 2, 1), (48_000, 2, 2), (44_100, 1, 6), (8000, 1, 1), (192_000, 1, 1)]


@pytest.mark.parametrize(("rate", "encoding", "channels"), FORMATS)
def test_pcm_of_any_format_is_resampled_to_16_khz_mono(rate: int, encoding: int, channels: int) -> None:
    encoded, resampler, parts = encode_sine(rate, encoding, channels), PcmResampler(), []
    for start in range(0, len(encoded), 1000):
        message = media_pb2.Pcm(
            samples=encoded[start : start + 1000].tobytes(),
            encoding=encoding,
            sample_rate_hertz=rate,
            channel_count=channels,
        )
        parts.append(resampler.push(decode_pcm(message)).samples)
    samples = np.concatenate([*parts, resampler.flush().samples])
    assert samples.dtype == np.int16
    assert len(samples) == pytest.approx(48_000, abs=1)
    expected = 0.5 * 32767 * np.sin(2 * np.pi * 440 * np.arange(len(samples)) / 16_000)
    assert np.abs(samples - expected)[200:-200].max() < 300


@pytest.mark.parametrize(("rate", "encoding", "channels"), FORMATS)
def test_the_duration_of_a_stream_is_correct_for_any_pcm_format(
    stub, rate: int, encoding: int, channels: int
) -> None:
    encoded = encode_sine(rate, encoding, channels)
    requests = [
        Request(config=config_pb2.StreamingConfig(recognition={"modality": config_pb2.MODALITY_AUDIO_ONLY}))
    ]
    for number, start in enumerate(range(0, len(encoded), rate // 5), 1):
        pcm = media_pb2.Pcm(
            samples=encoded[start : start + rate // 5].tobytes(),
            encoding=encoding,
            sample_rate_hertz=rate,
            channel_count=channels,
        )
        requests.append(Request(pcm=pcm, sequence=number))
    responses = list(stub.StreamingRecognize(iter(requests), timeout=60))
    assert responses[-1].finished.media_duration.ToMilliseconds() == pytest.approx(3000, abs=45)


def test_the_sdk_sends_audio_of_any_sample_rate(client: Client) -> None:
    transcript = client.recognize(
        None, audio=np.zeros(96_000, np.float32), audio_sample_rate_hz=48_000, modality="audio"
    )
    assert transcript.duration_s == pytest.approx(2, abs=0.05)


# ------------------------------------------------------------------------------------------------- models, languages


@pytest.mark.parametrize("code", ["en", "EN", "en-GB", "auto"])
def test_languages_of_the_model_are_accepted(client: Client, code: str) -> None:
    client.recognize(None, audio=bytes(3200), modality="audio", language_codes=[code])


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"language_codes": ["en", "de-DE"]}, "language_codes"),
        ({"language_codes": [""]}, "language_codes"),
        ({"phrase_hints": ["bin blue"]}, "adaptation"),
        ({"automatic_punctuation": True}, "enable_automatic_punctuation"),
    ],
)
def test_options_that_the_model_does_not_support_are_refused(
    client: Client, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(gorggle.InvalidRequestError, match=f"model gorggle-mini-1.*{field}|{field}.*en"):
        client.recognize(None, audio=bytes(3200), modality="audio", **options)
    with pytest.raises(gorggle.InvalidRequestError):
        list(client.transcribe(None, audio=bytes(3200), modality="audio", **options))
    assert not client.model().supports_adaptation
    assert not client.model().supports_automatic_punctuation


def test_models_are_paged(stub, client: Client) -> None:
    page = stub.ListModels(model_pb2.ListModelsRequest(page_size=1), timeout=10)
    assert ([model.name for model in page.models], page.next_page_token) == (
        ["gorggle-mini-1"],
        "1" if speech_model.IS_INSTALLED else "",
    )
    expected = ["gorggle-mini-1"] + ["moonshine-tiny-en"] * speech_model.IS_INSTALLED
    assert [model.name for model in client.models()] == expected
    for request in ({"page_size": -1}, {"page_token": "7"}, {"page_token": "x"}, {"page_token": "²"}):
        with pytest.raises(grpc.RpcError) as caught:
            stub.ListModels(model_pb2.ListModelsRequest(**request), timeout=10)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


# ------------------------------------------------------------------------------------------------------------- errors


def unpack(error: Any, message: Any) -> Any:
    """Return a detail of an error's google.rpc.Status."""
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    assert any(detail.Unpack(message) for detail in status.details)
    return message


def test_media_before_the_configuration_is_an_invalid_request(stub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.StreamingRecognize(iter([Request(media=b"abc")]), timeout=10))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    info = unpack(caught.value, error_details_pb2.ErrorInfo())
    assert (info.reason, info.domain) == ("INVALID_REQUEST", "gorggle")
    assert unpack(caught.value, error_details_pb2.BadRequest()).field_violations[0].field == "config"


def test_a_call_refused_by_authentication_has_a_request_id(tmp_path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"alice {'0' * 64}\n")
    with (
        running_server(load=False, token_file=str(tokens)) as running,
        Client(running.address) as client,
        pytest.raises(gorggle.AuthenticationError) as caught,
    ):
        client.server_info()
    assert re.fullmatch("[0-9a-f]{32}", caught.value.request_id)


def test_the_proto_documents_the_mean_face() -> None:
    text = (ROOT / "protos/gorggle/v1/media.proto").read_text()
    documented = [tuple(map(float, pair)) for pair in re.findall(r"\((\d+\.\d+), (\d+\.\d+)\)", text)]
    assert np.allclose(documented, load_mean_face()[STABLE_POINTS], atol=0.005)
