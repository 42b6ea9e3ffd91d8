"""Seeds of the fuzzer: valid calls with real clips, as serialized messages."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from benchmarks.command import DEMO
from gorggle.v1 import config_pb2, lip_reading_pb2, media_pb2, model_pb2, server_pb2
from gorggle_server.input_format import SAMPLE_RATE_HZ
from tests.clips import read_clip, remux, transcode

SMALL = (160, 120)
CHUNK_BYTES = 6000

_RECOGNITION = config_pb2.RecognitionConfig(
    beam_size=2, max_alternatives=1, enable_word_time_offsets=True, enable_face_boxes=True
)
_SERVICE = "/gorggle.v1.LipReading/"
Request = lip_reading_pb2.StreamingRecognizeRequest


@dataclass(frozen=True)
class Call:
    """One call: method, serialized request messages, and whether they contain media files."""

    method: str
    messages: tuple[bytes, ...]
    has_media: bool = False


STREAMING = _SERVICE + "StreamingRecognize"
RECOGNIZE = _SERVICE + "Recognize"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
REQUEST_TYPES: dict[str, type[Message]] = {
    STREAMING: Request,
    RECOGNIZE: lip_reading_pb2.RecognizeRequest,
    _SERVICE + "ListModels": model_pb2.ListModelsRequest,
    _SERVICE + "GetModel": model_pb2.GetModelRequest,
    _SERVICE + "GetServerInfo": server_pb2.GetServerInfoRequest,
    "/grpc.health.v1.Health/Check": health_pb2.HealthCheckRequest,
    REFLECTION: reflection_pb2.ServerReflectionRequest,
}


def make_clips() -> dict[str, bytes]:
    """Return short clips of the demo in common containers and codecs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        face = transcode(DEMO, folder / "face.mp4", max_s=1.6)
        small = transcode(face, folder / "small.mp4", size=SMALL, max_s=0.8)
        tiny = {"size": SMALL, "max_s": 0.4}
        vp9 = {"container": "webm", "video_codec": "libvpx-vp9", "audio_codec": "libopus"}
        made = {
            "MP4, index at the end": small,
            "MP4, index at the start": remux(small, folder / "fast.mp4", movflags="+faststart"),
            "MP4, fragmented": remux(small, folder / "fragments.mp4", movflags="+frag_keyframe+empty_moov"),
            "MPEG-TS": remux(small, folder / "small.ts", "mpegts"),
            "Matroska": remux(small, folder / "small.mkv", "matroska"),
            "WebM": transcode(small, folder / "small.webm", size=SMALL, **vp9),
            "MP4, rotated": transcode(small, folder / "rotated.mp4", rotation_degrees=90, **tiny),
            "MP4, audio only": transcode(face, folder / "audio.mp4", video_codec=None),
            "MP4, MJPEG": transcode(small, folder / "mjpeg.mp4", video_codec="mjpeg", **tiny),
            "MP4, talking face": face,
        }
        return {name: path.read_bytes() for name, path in made.items()}


def make_seeds() -> list[Call]:
    """Return valid calls of all methods."""
    calls = [Call(method, (kind().SerializeToString(),)) for method, kind in REQUEST_TYPES.items()]
    calls += [
        Call(REFLECTION, (reflection_pb2.ServerReflectionRequest(list_services="x").SerializeToString(),)),
        Call(_SERVICE + "GetModel", (model_pb2.GetModelRequest(name="gorggle-mini-1").SerializeToString(),)),
        Call(RECOGNIZE, (lip_reading_pb2.RecognizeRequest(uri="s3://clips/demo.mp4").SerializeToString(),)),
    ]
    calls += make_preprocessed_calls()
    for data in make_clips().values():
        whole = lip_reading_pb2.RecognizeRequest(config=_RECOGNITION, content=data)
        calls.append(Call(RECOGNIZE, (whole.SerializeToString(),), has_media=True))
        calls.append(Call(STREAMING, tuple(stream_messages(data)), has_media=True))
    return calls


def stream_messages(data: bytes) -> Iterator[bytes]:
    """Yield a stream's messages: the configuration, then the media in chunks."""
    config = config_pb2.StreamingConfig(
        recognition=_RECOGNITION, interim_results=True, enable_speech_activity_events=True
    )
    yield Request(config=config).SerializeToString()
    for at in range(0, len(data), CHUNK_BYTES):
        yield Request(media=data[at : at + CHUNK_BYTES]).SerializeToString()


def make_preprocessed_calls() -> list[Call]:
    """Return calls with half a second of mouth crops, audio, or both, streaming and unary."""
    frames, waveform, rate_hz = read_clip(DEMO)
    grey_crops = [frame[100:196, 100:196].mean(axis=2).astype(np.uint8) for frame in frames[:12]]
    crops = media_pb2.MouthCrops(
        pixels=b"".join(crop.tobytes() for crop in grey_crops),
        offsets=[Duration(nanos=40_000_000 * number) for number in range(len(grey_crops))],
    )
    pcm = media_pb2.Pcm(samples=waveform[: rate_hz // 2 : rate_hz // SAMPLE_RATE_HZ].astype("<i2").tobytes())
    config = Request(config=config_pb2.StreamingConfig(recognition=_RECOGNITION))
    calls = []
    for parts in ({"mouth_crops": crops, "pcm": pcm}, {"mouth_crops": crops}, {"pcm": pcm}):
        messages = [config, *(Request(**{name: part}) for name, part in parts.items())]
        calls.append(Call(STREAMING, tuple(message.SerializeToString() for message in messages)))
        crops_of_face = [crops] if "mouth_crops" in parts else []
        clip = lip_reading_pb2.PreprocessedClip(mouth_crops=crops_of_face, pcm=parts.get("pcm"))
        unary = lip_reading_pb2.RecognizeRequest(config=_RECOGNITION, preprocessed=clip)
        calls.append(Call(RECOGNIZE, (unary.SerializeToString(),)))
    return calls
