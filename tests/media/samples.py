"""Small clips encoded by PyAV, with the frame number visible in every frame, and a reader that yields them in chunks."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from gorggle_server.input_format import SAMPLE_RATE_HZ
from gorggle_server.media.demuxer import decode
from gorggle_server.media.resampling import EndOfStream, GrayFrame, Waveform, resample
from gorggle_server.recognition_options import MediaLimits

CODE_BITS = 8
BURSTS_S = (0.5, 1.3)
BURST_S = 0.1
AUDIO_RATE_HZ = 48_000
LIMITS = MediaLimits()
FAST = {
    # With "realtime", the encoding would depend on the speed of the machine.
    "libvpx": {"cpu-used": "5", "deadline": "good"},
    "libvpx-vp9": {"cpu-used": "8", "deadline": "realtime"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
}


class ChunkedReader:
    """Reader that returns at most ``chunk`` bytes per call and cannot seek."""

    def __init__(self, data: bytes, chunk: int = 2**20) -> None:
        self._data, self._chunk, self.position = data, chunk, 0

    def read(self, size: int) -> bytes:
        data = self._data[self.position : self.position + min(size, self._chunk)]
        self.position += len(data)
        return data


def numbered_image(
    number: int, size: tuple[int, int] = (320, 240), *, noisy: bool = False
) -> NDArray[np.uint8]:
    """Return an RGB image with the number in eight black or white blocks, on a grey ramp or on noise."""
    width, height = size
    image = np.tile(np.linspace(40, 200, width).astype(np.uint8)[None, :, None], (height, 1, 3))
    if noisy:
        image = np.random.default_rng(number).integers(0, 255, image.shape).astype(np.uint8)
    for bit in range(CODE_BITS):
        left, right = width * bit // CODE_BITS, width * (bit + 1) // CODE_BITS
        image[height // 3 : 2 * height // 3, left:right] = 235 if number >> bit & 1 else 16
    return image


def read_number(grey: NDArray[np.uint8]) -> int:
    """Return the number shown in a decoded image."""
    height, width = grey.shape
    middle = grey[height // 2 - 4 : height // 2 + 4]
    centres = [width * (2 * bit + 1) // (2 * CODE_BITS) for bit in range(CODE_BITS)]
    return sum(
        1 << bit for bit, centre in enumerate(centres) if middle[:, centre - 2 : centre + 3].mean() > 128
    )


def make_tone_bursts(duration_s: float, rate_hz: int = AUDIO_RATE_HZ) -> NDArray[np.int16]:
    """Return silence with tones of 100 ms at 0.5 s and 1.3 s."""
    time_s = np.arange(int(duration_s * rate_hz)) / rate_hz
    is_tone = np.zeros(len(time_s), bool)
    for start_s in BURSTS_S:
        is_tone |= (time_s >= start_s) & (time_s < start_s + BURST_S)
    return (np.where(is_tone, np.sin(2 * np.pi * 440 * time_s), 0) * 12_000).astype(np.int16)


def find_onsets_s(waveform: NDArray[np.int16]) -> list[float]:
    """Return the start times of the tones in 16 kHz audio."""
    is_loud = np.abs(waveform[: len(waveform) // 80 * 80].astype(int)).reshape(-1, 80).max(axis=1) > 3000
    min_gap = 4  # chunks of 5 ms; a tone has no gap of 20 ms
    starts = [i for i in np.flatnonzero(is_loud) if not is_loud[max(0, i - min_gap) : i].any()]
    return [start * 80 / SAMPLE_RATE_HZ for start in starts]


@functools.cache
def clip(
    container: str = "mp4",
    video: str | None = "libx264",
    audio: str | None = "aac",
    *,
    rate: int = 25,
    duration_s: float = 2.0,
    size: tuple[int, int] = (320, 240),
    rotation: int = 0,
    times_s: tuple[float, ...] | None = None,
    audio_delay_s: float = 0.0,
    video_delay_s: float = 0.0,
    pixel_format: str = "yuv420p",
    noisy: bool = False,
    options: tuple[tuple[str, str], ...] = (),
    codec_options: tuple[tuple[str, str], ...] = (("preset", "ultrafast"), ("g", "12")),
) -> bytes:
    """Return the content of a media file.

    Args:
        noisy: use images that compress badly, for a file of several hundred kilobytes per second.
        rotation: degrees anticlockwise by which the metadata rotates the stored image, which is stored rotated the other way.
        times_s: presentation time of each image; by default evenly spaced at ``rate``.
    """
    times_s = times_s or tuple(number / rate for number in range(round(duration_s * rate)))
    images = [numbered_image(number, size, noisy=noisy) for number in range(len(times_s))]
    stored = [np.ascontiguousarray(np.rot90(image, -rotation // 90)) for image in images]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip")
        with av.open(str(path), "w", format=container, options=dict(options)) as container_file:
            streams = []
            if video:
                presentation_times_s = [time_s + video_delay_s for time_s in times_s]
                streams.append(
                    _encode_video(
                        container_file,
                        stored,
                        presentation_times_s,
                        video,
                        rate,
                        pixel_format,
                        dict(codec_options),
                        rotation,
                    )
                )
            if audio:
                streams.append(
                    _encode_audio(container_file, make_tone_bursts(duration_s), audio, audio_delay_s)
                )
            _mux_interleaved(container_file, streams)
        return path.read_bytes()


EncodedStream = tuple[av.stream.Stream, list[av.frame.Frame]]


def _encode_video(
    container: av.container.OutputContainer,
    images: Sequence[NDArray[np.uint8]],
    times_s: Sequence[float],
    codec: str,
    rate: int,
    pixel_format: str,
    options: dict[str, str],
    rotation: int,
) -> EncodedStream:
    stream = container.add_stream(
        codec, rate=rate, options=FAST.get(codec, options if codec == "libx264" else {})
    )
    stream.height, stream.width = images[0].shape[:2]
    stream.pix_fmt = pixel_format
    ticks_hz = 1000 if codec.startswith(("libx264", "libvpx")) else rate
    stream.codec_context.time_base = Fraction(1, ticks_hz)
    stream.bit_rate = 600_000
    if rotation:
        stream.set_display_rotation(rotation)
    frames: list[av.frame.Frame] = []
    for image, time_s in zip(images, times_s, strict=True):
        frame = av.VideoFrame.from_ndarray(image, "rgb24")
        frame.pts, frame.time_base = round(time_s * ticks_hz), Fraction(1, ticks_hz)
        frames.append(frame)
    return stream, frames


def _encode_audio(
    container: av.container.OutputContainer, waveform: NDArray[np.int16], codec: str, delay_s: float
) -> EncodedStream:
    stream = container.add_stream(codec, rate=AUDIO_RATE_HZ, layout="mono")
    frames: list[av.frame.Frame] = []
    for start in range(0, len(waveform), 960):
        frame = av.AudioFrame.from_ndarray(waveform[None, start : start + 960], "s16", "mono")
        frame.rate, frame.time_base = AUDIO_RATE_HZ, Fraction(1, AUDIO_RATE_HZ)
        frame.pts = start + round(delay_s * AUDIO_RATE_HZ)
        frames.append(frame)
    return stream, frames


def _mux_interleaved(container: av.container.OutputContainer, streams: Sequence[EncodedStream]) -> None:
    in_order = sorted(
        ((frame.time or 0.0, index, frame) for index, (_, frames) in enumerate(streams) for frame in frames),
        key=lambda entry: entry[:2],
    )
    for _, index, frame in in_order:
        container.mux(streams[index][0].encode(frame))
    for stream, _ in streams:
        container.mux(stream.encode(None))


class DecodedClip:
    """The decoded and resampled content of a clip."""

    def __init__(
        self, data: bytes, chunk: int = 2**20, limits: MediaLimits = LIMITS, **options: bool
    ) -> None:
        items = list(resample(decode(ChunkedReader(data, chunk), limits, **options), limits))
        self.info, self.end = items[0], items[-1]
        assert isinstance(self.end, EndOfStream)
        self.frames = [item for item in items if isinstance(item, GrayFrame)]
        chunks = [item for item in items if isinstance(item, Waveform)]
        self.waveform = np.concatenate([np.zeros(0, np.int16), *(part.samples for part in chunks)])
        assert [frame.index for frame in self.frames] == list(range(self.end.frames))
        assert [part.start for part in chunks] == list(
            np.cumsum([0, *map(len, (part.samples for part in chunks))])[:-1]
        )
        assert len(self.waveform) == self.end.samples

    @property
    def numbers(self) -> list[int]:
        return [read_number(frame.pixels) for frame in self.frames]
