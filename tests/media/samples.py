"""Small clips whose every image carries its number, encoded by PyAV, and readers that deliver them in pieces."""

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
    "libvpx": {"cpu-used": "8", "deadline": "realtime"},
    "libvpx-vp9": {"cpu-used": "8", "deadline": "realtime"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
}


class Pieces:
    """A reader that gives at most ``chunk`` bytes at a time, and cannot seek."""

    def __init__(self, data: bytes, chunk: int = 2**20) -> None:
        self._data, self._chunk, self.position = data, chunk, 0

    def read(self, size: int) -> bytes:
        piece = self._data[self.position : self.position + min(size, self._chunk)]
        self.position += len(piece)
        return piece


def numbered_image(
    number: int, size: tuple[int, int] = (320, 240), *, noisy: bool = False
) -> NDArray[np.uint8]:
    """RGB; the number stands in eight blocks, black or white, across the middle; a grey ramp or noise is the rest."""
    width, height = size
    image = np.tile(np.linspace(40, 200, width).astype(np.uint8)[None, :, None], (height, 1, 3))
    if noisy:
        image = np.random.default_rng(number).integers(0, 255, image.shape).astype(np.uint8)
    for bit in range(CODE_BITS):
        left, right = width * bit // CODE_BITS, width * (bit + 1) // CODE_BITS
        image[height // 3 : 2 * height // 3, left:right] = 235 if number >> bit & 1 else 16
    return image


def number_on(grey: NDArray[np.uint8]) -> int:
    """Read the number from a decoded image."""
    height, width = grey.shape
    middle = grey[height // 2 - 4 : height // 2 + 4]
    centres = [width * (2 * bit + 1) // (2 * CODE_BITS) for bit in range(CODE_BITS)]
    return sum(
        1 << bit for bit, centre in enumerate(centres) if middle[:, centre - 2 : centre + 3].mean() > 128
    )


def bursts(duration_s: float, rate_hz: int = AUDIO_RATE_HZ) -> NDArray[np.int16]:
    """Silence with a tone of 100 ms at 0.5 s and at 1.3 s."""
    time_s = np.arange(int(duration_s * rate_hz)) / rate_hz
    audio_mask = np.zeros(len(time_s), bool)
    for start_s in BURSTS_S:
        audio_mask |= (time_s >= start_s) & (time_s < start_s + BURST_S)
    return (np.where(audio_mask, np.sin(2 * np.pi * 440 * time_s), 0) * 12_000).astype(np.int16)


def onsets_s(waveform: NDArray[np.int16]) -> list[float]:
    """When the bursts begin in 16 kHz audio."""
    frames = np.abs(waveform[: len(waveform) // 80 * 80].astype(int)).reshape(-1, 80).max(axis=1) > 3000
    quiet = 4  # a tone is never silent for 20 ms
    starts = [i for i in np.flatnonzero(frames) if not frames[max(0, i - quiet) : i].any()]
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
    turned: int = 0,
    times_s: tuple[float, ...] | None = None,
    audio_delay_s: float = 0.0,
    video_delay_s: float = 0.0,
    pixel_format: str = "yuv420p",
    noisy: bool = False,
    options: tuple[tuple[str, str], ...] = (),
    codec_options: tuple[tuple[str, str], ...] = (("preset", "ultrafast"), ("g", "12")),
) -> bytes:
    """A whole file.

    Args:
        noisy: images that compress badly, for a file of some hundred kilobytes a second.
        turned: degrees anticlockwise by which metadata turns the stored image; it is stored turned the other way.
        times_s: when each image is shown; default: evenly, at ``rate``.
    """
    times_s = times_s or tuple(number / rate for number in range(round(duration_s * rate)))
    images = [numbered_image(number, size, noisy=noisy) for number in range(len(times_s))]
    stored = [np.ascontiguousarray(np.rot90(image, -turned // 90)) for image in images]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip")
        with av.open(str(path), "w", format=container, options=dict(options)) as made:
            streams = []
            if video:
                shown_s = [time_s + video_delay_s for time_s in times_s]
                streams.append(
                    _video(made, stored, shown_s, video, rate, pixel_format, dict(codec_options), turned)
                )
            if audio:
                streams.append(_audio(made, bursts(duration_s), audio, audio_delay_s))
            _interleaved(made, streams)
        return path.read_bytes()


Encoded = tuple[av.stream.Stream, list[av.frame.Frame]]


def _video(
    made: av.container.OutputContainer,
    images: Sequence[NDArray[np.uint8]],
    times_s: Sequence[float],
    codec: str,
    rate: int,
    pixel_format: str,
    options: dict[str, str],
    turned: int,
) -> Encoded:
    stream = made.add_stream(codec, rate=rate, options=FAST.get(codec, options if codec == "libx264" else {}))
    stream.height, stream.width = images[0].shape[:2]
    stream.pix_fmt = pixel_format
    ticks_hz = 1000 if codec.startswith(("libx264", "libvpx")) else rate
    stream.codec_context.time_base = Fraction(1, ticks_hz)
    stream.bit_rate = 600_000
    if turned:
        stream.set_display_rotation(turned)
    frames: list[av.frame.Frame] = []
    for image, time_s in zip(images, times_s, strict=True):
        frame = av.VideoFrame.from_ndarray(image, "rgb24")
        frame.pts, frame.time_base = round(time_s * ticks_hz), Fraction(1, ticks_hz)
        frames.append(frame)
    return stream, frames


def _audio(
    made: av.container.OutputContainer, waveform: NDArray[np.int16], codec: str, delay_s: float
) -> Encoded:
    stream = made.add_stream(codec, rate=AUDIO_RATE_HZ, layout="mono")
    frames: list[av.frame.Frame] = []
    for start in range(0, len(waveform), 960):
        frame = av.AudioFrame.from_ndarray(waveform[None, start : start + 960], "s16", "mono")
        frame.rate, frame.time_base = AUDIO_RATE_HZ, Fraction(1, AUDIO_RATE_HZ)
        frame.pts = start + round(delay_s * AUDIO_RATE_HZ)
        frames.append(frame)
    return stream, frames


def _interleaved(made: av.container.OutputContainer, streams: Sequence[Encoded]) -> None:
    in_order = sorted(
        ((frame.time or 0.0, index, frame) for index, (_, frames) in enumerate(streams) for frame in frames),
        key=lambda entry: entry[:2],
    )
    for _, index, frame in in_order:
        made.mux(streams[index][0].encode(frame))
    for stream, _ in streams:
        made.mux(stream.encode(None))


class Seen:
    """Everything that came out of a clip."""

    def __init__(self, data: bytes, chunk: int = 2**20, limits: MediaLimits = LIMITS, **choice: bool) -> None:
        items = list(resample(decode(Pieces(data, chunk), limits, **choice), limits))
        self.info, self.end = items[0], items[-1]
        assert isinstance(self.end, EndOfStream)
        self.frames = [item for item in items if isinstance(item, GrayFrame)]
        pieces = [item for item in items if isinstance(item, Waveform)]
        self.waveform = np.concatenate([np.zeros(0, np.int16), *(piece.samples for piece in pieces)])
        assert [frame.index for frame in self.frames] == list(range(self.end.frames))
        assert [piece.start for piece in pieces] == list(
            np.cumsum([0, *map(len, (p.samples for p in pieces))])[:-1]
        )
        assert len(self.waveform) == self.end.samples

    @property
    def numbers(self) -> list[int]:
        return [number_on(frame.pixels) for frame in self.frames]
