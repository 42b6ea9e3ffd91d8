"""Arrays as sources: mouth crops and audio are sent unchanged, frames as an encoded video file."""

from __future__ import annotations

import io
import sys
from typing import Any

import av
import numpy as np
import pytest

import gorggle
from gorggle.v1 import lip_reading_pb2
from tests.sdk.conftest import AsyncAdapter, ClientAdapter
from tests.sdk.fake_service import FakeLipReading

RANDOM = np.random.default_rng(7)


def make_smooth_frames(frames: int, height: int, width: int, *colours: int) -> np.ndarray[Any, Any]:
    """Make frames that vary slowly in space and time, like natural video."""
    t, y, x = np.meshgrid(np.arange(frames), np.arange(height), np.arange(width), indexing="ij")
    grey = 127 + 60 * np.sin(x / 17 + t / 5) + 60 * np.cos(y / 13)
    frames = np.stack([np.roll(grey, 20 * c, axis=2) for c in range(*colours)], -1) if colours else grey
    return frames.clip(0, 255).astype(np.uint8)


def test_mouth_crops_and_audio_are_interleaved(
    adapter: ClientAdapter, service: FakeLipReading, target: str
) -> None:
    crops = RANDOM.integers(0, 256, (60, 96, 96), dtype=np.uint8)
    waveform = RANDOM.integers(-(2**15), 2**15, 2 * 16_000 + 5, dtype=np.int16)
    adapter.transcribe(target, crops, input_format="mouth_crops", frame_rate_hz=30, audio=waveform)
    pixels = b"".join(request.mouth_crops.pixels for request in service.requests)
    assert pixels == crops.tobytes()
    times_s = [t.ToNanoseconds() / 1e9 for r in service.requests for t in r.mouth_crops.offsets]
    assert times_s == pytest.approx([index / 30 for index in range(60)], abs=1e-6)
    assert b"".join(request.pcm.samples for request in service.requests) == waveform.tobytes()
    # In audio-visual mode, audio and video must be sent at the same pace.
    sent_video_s = sent_audio_s = 0.0
    for request in service.requests:
        sent_video_s += len(request.mouth_crops.offsets) / 30
        sent_audio_s += len(request.pcm.samples) / 32_000
        assert abs(sent_video_s - sent_audio_s) < 0.5


def test_crop_timestamps_are_exact_at_29_97_hz(
    adapter: ClientAdapter, service: FakeLipReading, target: str
) -> None:
    crops = np.zeros((3000, 96, 96), np.uint8)
    adapter.transcribe(
        target, crops, input_format="mouth_crops", frame_rate_hz=30_000 / 1001, chunk_bytes=2**20
    )
    last = service.requests[-1].mouth_crops.offsets[-1]
    assert last.ToMicroseconds() == round(2999 * 1001 / 30_000 * 1e6)


def test_audio_can_be_sent_without_video(
    adapter: ClientAdapter, service: FakeLipReading, target: str
) -> None:
    waveform = RANDOM.integers(-100, 100, 40_001, dtype=np.int16)
    for audio in (waveform, waveform.tobytes()):
        service.requests.clear()
        adapter.transcribe(target, None, audio=audio, modality="audio", chunk_bytes=999)
        assert b"".join(request.pcm.samples for request in service.requests) == waveform.tobytes()
        assert {len(request.pcm.samples) for request in service.requests[:-1]} == {998}


def test_mouth_crops_are_recognized_in_one_call(
    adapter: ClientAdapter, service: FakeLipReading, target: str
) -> None:
    requests: list[lip_reading_pb2.RecognizeRequest] = []
    recognize = service.clip
    service.clip = lambda request, context: (requests.append(request), recognize(request, context))[1]
    crops = RANDOM.integers(0, 256, (20, 96, 96), dtype=np.uint8)
    adapter.call(
        target, "recognize", crops, input_format="mouth_crops", frame_rate_hz=25, audio=b"\1\0" * 8000
    )
    clip = requests[0].preprocessed
    assert b"".join(part.pixels for part in clip.mouth_crops) == crops.tobytes()
    assert clip.pcm.samples == b"\1\0" * 8000


@pytest.mark.parametrize("shape", [(30, 120, 160), (30, 121, 161), (12, 120, 160, 3), (12, 97, 99, 3)])
def test_frames_are_sent_as_a_video_file_with_little_loss(
    adapter: ClientAdapter, service: FakeLipReading, target: str, shape: tuple[int, ...]
) -> None:
    frames = make_smooth_frames(*shape)
    waveform = (8000 * np.sin(np.arange(int(16_000 * len(frames) / 12.5)) / 5)).astype(np.int16)
    adapter.transcribe(target, frames, frame_rate_hz=12.5, audio=waveform)
    with av.open(io.BytesIO(service.media)) as container:
        assert container.format.name == "matroska,webm"
        assert container.streams.video[0].codec_context.name == "h264"
        images, audio, times_s = [], [], []
        for frame in container.decode(video=0, audio=0):
            if isinstance(frame, av.VideoFrame):
                times_s.append(frame.time)
                images.append(frame.to_ndarray(format="rgb24" if frames.ndim == 4 else "gray"))
            else:
                audio.append(frame.to_ndarray()[0])
    assert times_s == pytest.approx([index / 12.5 for index in range(len(frames))], abs=1e-3)
    decoded = np.stack(images)[:, : shape[1], : shape[2]].astype(int)
    assert np.abs(decoded - frames).mean() < 3
    assert np.array_equal(np.concatenate(audio), waveform)


def test_long_arrays_are_encoded_while_they_are_sent() -> None:
    from fractions import Fraction

    from gorggle import arrays

    sizes = [
        len(chunk)
        for chunk in arrays.encode_matroska(make_smooth_frames(300, 64, 64), Fraction(25), None, 16_000)
    ]
    assert len(sizes) > 5
    assert max(sizes) < sum(sizes) / 2


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (np.zeros((5, 96, 96), np.uint8), {"input_format": "mouth_crops"}, "frame_rate_hz="),
        (
            np.zeros((5, 96, 96), np.uint8),
            {"input_format": "mouth_crops", "frame_rate_hz": 0},
            "frame_rate_hz is 0",
        ),
        (
            np.zeros((5, 96, 96), np.uint8),
            {"input_format": "mouth_crops", "frame_rate_hz": float("inf")},
            "inf",
        ),
        (
            np.zeros((5, 88, 88), np.uint8),
            {"input_format": "mouth_crops", "frame_rate_hz": 25},
            r"\(5, 88, 88\)",
        ),
        (
            np.zeros((0, 96, 96), np.uint8),
            {"input_format": "mouth_crops", "frame_rate_hz": 25},
            r"\(0, 96, 96\)",
        ),
        (np.zeros((5, 96, 96), np.float32), {"input_format": "mouth_crops", "frame_rate_hz": 25}, "float32"),
        (np.zeros((480, 640, 3), np.uint8), {"frame_rate_hz": 25}, r"\(480, 640, 3\)"),
        (np.zeros((5, 64, 64, 4), np.uint8), {"frame_rate_hz": 25}, r"\(5, 64, 64, 4\)"),
        (np.zeros((0, 64, 64), np.uint8), {"frame_rate_hz": 25}, r"\(0, 64, 64\)"),
        (np.zeros((5, 64, 64), np.int16), {"frame_rate_hz": 25}, "int16"),
        (np.zeros((5, 64, 64), np.uint8), {"frame_rate_hz": 25, "audio": np.zeros(9, np.float64)}, "float64"),
        (
            np.zeros((5, 64, 64), np.uint8),
            {"frame_rate_hz": 25, "audio": np.zeros((9, 2, 1), np.int16)},
            r"\(9, 2, 1\)",
        ),
        (np.zeros((5, 64, 64), np.uint8), {"frame_rate_hz": 25, "audio": b"odd"}, "3 bytes"),
    ],
)
def test_invalid_arrays_are_refused_before_a_call(
    adapter: ClientAdapter, source: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(gorggle.InvalidRequestError, match=message):
        adapter.transcribe("127.0.0.1:1", source, **options)


def test_frames_without_pyav_installed_are_refused_with_the_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(gorggle.ConfigurationError, match=r"pip install 'gorggle\[server\]'"):
        AsyncAdapter().transcribe("127.0.0.1:1", np.zeros((5, 64, 64), np.uint8), frame_rate_hz=25)
