"""Recordings like those of browsers: live WebM with VP8 and Opus, one key frame per second, no index."""

from __future__ import annotations

import functools
import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from tests.clips import read_clip

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FRAME_RATE_HZ = 25
# Small, to encode quickly: parsing does not depend on the frame size.
SIZE = (160, 120)


@functools.cache
def make_recording(
    clip: str = "demo", *, max_s: float = 1e9, video: bool = True, audio: bool = True
) -> bytes:
    """Encode a clip of ``examples/`` as a browser recording."""
    images, waveform, rate_hz = read_clip(EXAMPLES / f"{clip}.mp4")
    images, waveform = images[: int(max_s * FRAME_RATE_HZ)], waveform[: int(max_s * rate_hz)]
    file = io.BytesIO()
    file.seekable = lambda: False  # type: ignore[method-assign]
    with av.open(file, "w", format="webm", options={"live": "1", "cluster_time_limit": "1000"}) as container:
        packets: list[Any] = []
        if video:
            packets += _encode_video(container, images)
        if audio:
            packets += _encode_audio(container, waveform, rate_hz)
        with_timestamps = [packet for packet in packets if packet.dts is not None]
        for packet in sorted(with_timestamps, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return file.getvalue()


def pcm(clip: str = "demo", max_s: float = 1e9) -> bytes:
    """Return a clip's audio: 16-bit samples, mono, 16 kHz."""
    samples = bytearray()
    with av.open(str(EXAMPLES / f"{clip}.mp4")) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=16_000)
        for frame in container.decode(audio=0):
            for resampled in resampler.resample(frame):
                samples += resampled.to_ndarray().tobytes()
    return bytes(samples[: int(max_s * 16_000) * 2])


def decode_recording(media: bytes) -> tuple[list[float], float]:
    """Return the timestamps of a recording's frames, and the duration of its audio."""
    timestamps_s, audio_s = [], 0.0
    with av.open(io.BytesIO(media)) as container:
        for frame in container.decode():
            if isinstance(frame, av.VideoFrame):
                timestamps_s.append(float(frame.time or 0))
            else:
                audio_s += frame.samples / frame.sample_rate
    return timestamps_s, audio_s


def _encode_video(container: Any, images: list[Any]) -> list[Any]:
    # Not "realtime": that depends on the speed of the machine. Equal intervals: no key frames in between.
    options = {"deadline": "good", "cpu-used": "5", "keyint_min": str(FRAME_RATE_HZ)}
    stream = container.add_stream("libvpx", rate=FRAME_RATE_HZ, options=options)
    stream.width, stream.height = SIZE
    stream.pix_fmt, stream.bit_rate = "yuv420p", 1_000_000
    stream.codec_context.gop_size = FRAME_RATE_HZ
    stream.codec_context.thread_count = 1
    frames = [
        av.VideoFrame.from_ndarray(image, format="rgb24").reformat(*SIZE, "yuv420p") for image in images
    ]
    return [packet for frame in [*frames, None] for packet in stream.encode(frame)]


def _encode_audio(container: Any, waveform: Any, rate_hz: int) -> list[Any]:
    stream = container.add_stream("libopus", rate=rate_hz, layout="mono")
    frame = av.AudioFrame.from_ndarray(waveform[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate_hz, frame_size=960)
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    return [packet for frame in [*frames, None] for packet in stream.encode(frame)]
