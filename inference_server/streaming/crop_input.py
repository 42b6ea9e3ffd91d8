"""Mouth crops and audio prepared by the client, resampled from its timestamps to 25 fps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gorggle_server.input_format import FRAME_RATE_HZ, SAMPLE_RATE_HZ

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


# Tolerance between a crop's timestamp and the frame it covers: clients round timestamps.
TIMESTAMP_TOLERANCE_S = 0.005
# A crop is not repeated over a longer gap: the face was absent.
MAX_REPEAT_S = 1.0


@dataclass(frozen=True)
class MouthCropChunk:
    """Mouth crops of one face: uint8 (T, 96, 96), and T non-decreasing times in seconds."""

    face: int
    pixels: NDArray[np.uint8]
    times_s: list[float]

    @property
    def size_bytes(self) -> int:
        """Size in a queue."""
        return self.pixels.nbytes


@dataclass(frozen=True)
class AudioChunk:
    """Consecutive samples: int16 (S,), 16 kHz mono."""

    samples: NDArray[np.int16]

    @property
    def size_bytes(self) -> int:
        """Size in a queue."""
        return self.samples.nbytes


PreprocessedInput = MouthCropChunk | AudioChunk


def interleave(clip: Iterable[PreprocessedInput]) -> Iterator[PreprocessedInput]:
    """Split a whole clip into chunks of one second and return them in order of time, as a stream would send them."""
    chunks: list[tuple[float, PreprocessedInput]] = []
    samples_before = 0
    for item in clip:
        if isinstance(item, AudioChunk):
            for first in range(0, len(item.samples), SAMPLE_RATE_HZ):
                time_s = (samples_before + first) / SAMPLE_RATE_HZ
                chunks.append((time_s, AudioChunk(item.samples[first : first + SAMPLE_RATE_HZ])))
            samples_before += len(item.samples)
        else:
            for first in range(0, len(item.times_s), FRAME_RATE_HZ):
                part = slice(first, first + FRAME_RATE_HZ)
                chunks.append(
                    (item.times_s[first], MouthCropChunk(item.face, item.pixels[part], item.times_s[part]))
                )
    return (chunk for _, chunk in sorted(chunks, key=lambda item: item[0]))


class CropResampler:
    """Resamples one face's crops to 25 fps: each frame takes the crop nearest in time."""

    def __init__(self) -> None:
        self._last: tuple[float, NDArray[np.uint8]] | None = None
        self.available_end = 0  # every frame before has its crop

    def push(self, time_s: float, crop: NDArray[np.uint8]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Add the next crop; yield the frames it decides, with their crops."""
        if self._last is None:
            # A face that appears late begins with its first crop.
            self.available_end = round(time_s * FRAME_RATE_HZ)
            self._last = (time_s, crop)
        last_time_s, last_crop = self._last
        if time_s - last_time_s > MAX_REPEAT_S:
            self.available_end = max(self.available_end, round(time_s * FRAME_RATE_HZ))
        while (frame_s := self.available_end / FRAME_RATE_HZ) <= time_s:
            nearer_to_last = frame_s - last_time_s < time_s - frame_s
            yield self.available_end, last_crop if nearer_to_last else crop
            self.available_end += 1
        self._last = (time_s, crop)

    def flush(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield the frame that the last crop still covers, if any."""
        if self._last is not None:
            time_s, crop = self._last
            if self.available_end / FRAME_RATE_HZ - time_s <= TIMESTAMP_TOLERANCE_S:
                yield self.available_end, crop
                self.available_end += 1
