"""The example clips, and their conversion to other containers, codecs, frame rates and rotations."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.resampler import AudioResampler

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
DEMO = EXAMPLES / "demo.mp4"
# The index first, as in the demo clip: a truncated file can be decoded.
FASTSTART = {"movflags": "+faststart"}


def cut_demo(folder: Path, sentence_count: int) -> Path:
    """Write the first sentences of the demo clip and their reference transcript; return the clip's path."""
    truth = json.loads(DEMO.with_suffix(".json").read_text())
    kept, following = truth["sentences"][:sentence_count], truth["sentences"][sentence_count]
    end_s = (kept[-1]["end_s"] + following["start_s"]) / 2
    folder.mkdir(exist_ok=True)
    clip = folder / DEMO.name
    clip.with_suffix(".json").write_text(json.dumps({**truth, "duration_s": end_s, "sentences": kept}))
    with av.open(str(DEMO)) as source, av.open(str(clip), "w", options=FASTSTART) as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.pts is not None and packet.pts * packet.time_base < end_s:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    return clip


def remux(source: Path, target: Path, container: str = "mp4", **options: str) -> Path:
    """Copy the packets into another container."""
    with (
        av.open(str(source)) as input_,
        av.open(str(target), "w", format=container, options=options) as output,
    ):
        streams = {stream.index: output.add_stream_from_template(stream) for stream in input_.streams}
        for packet in input_.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    return target


def transcode(
    source: Path,
    target: Path,
    *,
    container: str = "mp4",
    video_codec: str | None = "libx264",
    audio_codec: str | None = "aac",
    frame_rate_hz: int = 25,
    size: tuple[int, int] | None = None,
    rotation_degrees: int = 0,
    max_s: float = 1e9,
) -> Path:
    """Encode video and audio again; a codec of None omits the stream.

    ``rotation_degrees`` stores the video rotated anticlockwise, with metadata (MP4 only) that rotates it upright.
    """
    frames, waveform, rate_hz = read_clip(source)
    frames, waveform = frames[: int(max_s * 25)], waveform[: int(max_s * rate_hz)]
    with av.open(str(target), "w", format=container) as output:
        packets = []
        if video_codec:
            packets += _encode_video(output, frames, video_codec, frame_rate_hz, size, rotation_degrees)
        if audio_codec:
            packets += _encode_audio(output, waveform, audio_codec, rate_hz)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)
    if rotation_degrees:
        _set_mp4_rotation(target, rotation_degrees)
    return target


def read_clip(source: Path) -> tuple[list[np.ndarray], np.ndarray, int]:
    """Return a clip's 25 fps RGB frames, mono int16 waveform and sample rate."""
    rate_hz = 48_000
    resampler = AudioResampler(format="s16", layout="mono", rate=rate_hz)
    pieces = []
    with av.open(str(source)) as input_:
        frames = [frame.to_ndarray(format="rgb24") for frame in input_.decode(video=0)]
    with av.open(str(source)) as input_:
        if input_.streams.audio:
            for frame in input_.decode(audio=0):
                pieces += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
            pieces += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    return frames, np.concatenate(pieces) if pieces else np.zeros(0, np.int16), rate_hz


def read_demo_audio() -> np.ndarray:
    """Return the demo clip's audio, int16 at 16 kHz."""
    resampler = AudioResampler(format="s16", layout="mono", rate=16_000)
    with av.open(str(DEMO)) as input_:
        pieces = [piece for frame in input_.decode(audio=0) for piece in resampler.resample(frame)]
    return np.concatenate([piece.to_ndarray()[0] for piece in [*pieces, *resampler.resample(None)]])


def _encode_video(output, frames, codec, frame_rate_hz, size, rotation_degrees) -> Iterator[av.Packet]:
    quality = {
        "libx264": {"crf": "20", "preset": "ultrafast"},
        "libvpx-vp9": {"crf": "30", "cpu-used": "8", "deadline": "realtime"},
    }
    stream = output.add_stream(codec, rate=frame_rate_hz, options=quality.get(codec, {}))
    turns = rotation_degrees // 90
    height, width = np.rot90(frames[0], turns).shape[:2]
    stream.width, stream.height = size or (width, height)
    stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    stream.time_base = Fraction(1, frame_rate_hz)
    if codec == "libvpx-vp9":
        stream.bit_rate = 1_500_000
    for number in range(len(frames) * frame_rate_hz // 25):
        image = frames[min(number * 25 // frame_rate_hz, len(frames) - 1)]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(image, turns)), format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, frame_rate_hz)
        yield from stream.encode(frame)
    yield from stream.encode()


def _encode_audio(output, waveform, codec, rate_hz) -> Iterator[av.Packet]:
    stream = output.add_stream(codec, rate=rate_hz, layout="mono")
    resampler = AudioResampler(
        format=stream.format.name,
        layout="mono",
        rate=rate_hz,
        frame_size=stream.codec_context.frame_size or 1024,
    )
    frame = av.AudioFrame.from_ndarray(waveform[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        yield from stream.encode(piece)
    yield from stream.encode()


def _set_mp4_rotation(path: Path, degrees: int) -> None:
    """Write a rotation into the video track's header (ISO/IEC 14496-12, 8.3.2: the matrix of `tkhd`)."""
    data = bytearray(path.read_bytes())
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    matrix = struct.pack(">9i", cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30)
    start = 0
    while (start := data.find(b"tkhd", start)) >= 0:
        body = start + 4
        at = body + 4 + (32 if data[body] == 1 else 20) + 16
        if struct.unpack(">I", data[at + 36 : at + 40])[0]:  # a width: the video track
            data[at : at + 36] = matrix
        start = body
    path.write_bytes(data)
