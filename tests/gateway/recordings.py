"""Recordings as browsers make them: live WebM of VP8 and Opus, a key frame each second, no index."""

from __future__ import annotations

import functools
import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from tests.clips import read_clip

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PICTURES_A_SECOND = 25
# Small: how a recording is cut does not depend on it.
SIZE = (160, 120)


@functools.cache
def recording(clip: str = "demo", *, max_s: float = 1e9, video: bool = True, audio: bool = True) -> bytes:
    """A clip of ``examples/`` as such a recording."""
    pictures, waveform, rate_hz = read_clip(EXAMPLES / f"{clip}.mp4")
    pictures, waveform = pictures[: int(max_s * PICTURES_A_SECOND)], waveform[: int(max_s * rate_hz)]
    file = io.BytesIO()
    file.seekable = lambda: False  # type: ignore[method-assign]
    with av.open(file, "w", format="webm", options={"live": "1", "cluster_time_limit": "1000"}) as made:
        packets: list[Any] = []
        if video:
            packets += _pictures(made, pictures)
        if audio:
            packets += _sound(made, waveform, rate_hz)
        timed = [packet for packet in packets if packet.dts is not None]
        for packet in sorted(timed, key=lambda packet: packet.dts * packet.time_base):
            made.mux(packet)
    return file.getvalue()


def pcm(clip: str = "demo", max_s: float = 1e9) -> bytes:
    """A clip's sound: 16-bit samples, mono, 16 kHz."""
    samples = bytearray()
    with av.open(str(EXAMPLES / f"{clip}.mp4")) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=16_000)
        for frame in container.decode(audio=0):
            for made in resampler.resample(frame):
                samples += made.to_ndarray().tobytes()
    return bytes(samples[: int(max_s * 16_000) * 2])


def decoded(media: bytes) -> tuple[list[float], float]:
    """The times of a recording's pictures, and the seconds of its sound."""
    times, sound_s = [], 0.0
    with av.open(io.BytesIO(media)) as container:
        for frame in container.decode():
            if isinstance(frame, av.VideoFrame):
                times.append(float(frame.time or 0))
            else:
                sound_s += frame.samples / frame.sample_rate
    return times, sound_s


def _pictures(made: Any, pictures: list[Any]) -> list[Any]:
    stream = made.add_stream(
        "libvpx", rate=PICTURES_A_SECOND, options={"deadline": "realtime", "cpu-used": "12"}
    )
    stream.width, stream.height = SIZE
    stream.pix_fmt, stream.bit_rate = "yuv420p", 1_000_000
    stream.codec_context.gop_size = PICTURES_A_SECOND
    stream.codec_context.thread_count = 1
    frames = [
        av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(*SIZE, "yuv420p") for picture in pictures
    ]
    return [packet for frame in [*frames, None] for packet in stream.encode(frame)]


def _sound(made: Any, waveform: Any, rate_hz: int) -> list[Any]:
    stream = made.add_stream("libopus", rate=rate_hz, layout="mono")
    frame = av.AudioFrame.from_ndarray(waveform[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate_hz, frame_size=960)
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    return [packet for piece in [*frames, None] for packet in stream.encode(piece)]
