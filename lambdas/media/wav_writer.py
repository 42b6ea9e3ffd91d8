"""Sound out of a video: 16 kHz mono, on the media's own time, written as it is decoded."""

from __future__ import annotations

import wave
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
BYTES_PER_SAMPLE = 2
# The header of the WAV files written here.
WAV_HEADER_BYTES = 44
# Timestamps jitter; a gap or an overlap of more than this is one.
MAX_JITTER_S = 0.04
# A gap is filled with silence up to this: more is a clock that leapt.
MAX_SILENCE_S = 600.0

Samples = NDArray[np.int16]


class WaveformWriter:
    """Writes decoded frames as a WAV file whose second ``t`` is the media's second ``t``."""

    def __init__(self, path: Path, zero_s: float) -> None:
        self._file = wave.open(str(path), "wb")  # noqa: SIM115 - closed by __exit__
        self._file.setnchannels(1)
        self._file.setsampwidth(BYTES_PER_SAMPLE)
        self._file.setframerate(SAMPLE_RATE_HZ)
        self._zero_s = zero_s
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
        self.samples = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, frame: Any) -> None:
        """Add the next frame: after silence where one is missing, not at all where its time has been heard."""
        if frame.time is not None:
            ahead_s = frame.time - self._zero_s - self.samples / SAMPLE_RATE_HZ
            if ahead_s < -max(MAX_JITTER_S, frame.samples / frame.sample_rate / 2):
                return
            if MAX_JITTER_S < ahead_s <= MAX_SILENCE_S:
                self._append(np.zeros(round(ahead_s * SAMPLE_RATE_HZ), np.int16))
        # The resampler takes times of its own from the first frame; ours are counted in samples.
        frame.pts = None
        self._resample(frame)

    def flush(self) -> None:
        """Write what the resampler still holds."""
        self._resample(None)

    def _resample(self, frame: Any) -> None:
        for piece in self._resampler.resample(frame):
            self._append(piece.to_ndarray().reshape(-1))

    def _append(self, samples: NDArray[Any]) -> None:
        self._file.writeframesraw(samples.astype("<i2").tobytes())
        self.samples += len(samples)


def read_waveform(path: Path) -> Samples:
    """The samples of a file that ``WaveformWriter`` wrote, without holding them in memory: int16 (S,)."""
    samples: Samples = np.memmap(path, dtype="<i2", mode="r", offset=WAV_HEADER_BYTES)
    return samples


def compute_byte_range(start_s: float, end_s: float) -> str:
    """Where the samples from ``start_s`` to ``end_s`` lie in such a file, as HTTP's Range header says it."""
    first = WAV_HEADER_BYTES + round(start_s * SAMPLE_RATE_HZ) * BYTES_PER_SAMPLE
    last = WAV_HEADER_BYTES + round(end_s * SAMPLE_RATE_HZ) * BYTES_PER_SAMPLE - 1
    return f"bytes={first}-{max(first, last)}"
