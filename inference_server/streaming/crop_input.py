"""Mouth crops and sound that a client has already cut: from its times to the server's 25 frames a second."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gorggle_server.timebase import FRAME_RATE_HZ, SAMPLE_RATE_HZ

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


# A crop covers a frame whose time it misses by so little: clients round their times.
TIMESTAMP_TOLERANCE_S = 0.005
# Over a longer hole nothing is repeated: the face was away.
MAX_REPEAT_S = 1.0


@dataclass(frozen=True)
class MouthCropChunk:
    """Mouth crops of one face: uint8 (T, 96, 96) and T times in seconds that never fall."""

    face: int
    pixels: NDArray[np.uint8]
    times_s: list[float]

    @property
    def size_bytes(self) -> int:
        """What it weighs in a queue."""
        return self.pixels.nbytes


@dataclass(frozen=True)
class AudioChunk:
    """Samples that continue the ones before: int16 (S,), 16 kHz mono."""

    samples: NDArray[np.int16]

    @property
    def size_bytes(self) -> int:
        """What it weighs in a queue."""
        return self.samples.nbytes


PreprocessedInput = MouthCropChunk | AudioChunk


def interleave(clip: Iterable[PreprocessedInput]) -> Iterator[PreprocessedInput]:
    """Cut a whole clip into pieces of a second and give them in order of time, as a stream would bring them."""
    pieces: list[tuple[float, PreprocessedInput]] = []
    samples_before = 0
    for item in clip:
        if isinstance(item, AudioChunk):
            for first in range(0, len(item.samples), SAMPLE_RATE_HZ):
                time_s = (samples_before + first) / SAMPLE_RATE_HZ
                pieces.append((time_s, AudioChunk(item.samples[first : first + SAMPLE_RATE_HZ])))
            samples_before += len(item.samples)
        else:
            for first in range(0, len(item.times_s), FRAME_RATE_HZ):
                part = slice(first, first + FRAME_RATE_HZ)
                pieces.append(
                    (item.times_s[first], MouthCropChunk(item.face, item.pixels[part], item.times_s[part]))
                )
    return (piece for _, piece in sorted(pieces, key=lambda placed: placed[0]))


class CropResampler:
    """Puts one face's crops onto the grid of 25 frames a second: each frame takes the crop nearest in time."""

    def __init__(self) -> None:
        self._last: tuple[float, NDArray[np.uint8]] | None = None
        self._next_frame = 0

    @property
    def available_end(self) -> int:
        """The frame before which every frame has its crop."""
        return self._next_frame

    def push(self, time_s: float, crop: NDArray[np.uint8]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Take in the next crop; yield the frames that are decided by it, with their crops."""
        if self._last is None:
            # A face that comes late begins with its first crop.
            self._next_frame = round(time_s * FRAME_RATE_HZ)
            self._last = (time_s, crop)
        last_time_s, last_crop = self._last
        if time_s - last_time_s > MAX_REPEAT_S:
            self._next_frame = max(self._next_frame, round(time_s * FRAME_RATE_HZ))
        while (frame_s := self._next_frame / FRAME_RATE_HZ) <= time_s:
            nearer_to_last = frame_s - last_time_s < time_s - frame_s
            yield self._next_frame, last_crop if nearer_to_last else crop
            self._next_frame += 1
        self._last = (time_s, crop)

    def flush(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """No more crops come: yield the frame that the last crop still covers, if any."""
        if self._last is not None:
            time_s, crop = self._last
            if self._next_frame / FRAME_RATE_HZ - time_s <= TIMESTAMP_TOLERANCE_S:
                yield self._next_frame, crop
                self._next_frame += 1
