"""Writes decoded audio as 16 kHz mono WAV, aligned with the media's timestamps."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
from numpy.typing import NDArray

from gorggle_lambdas.media.formats import SAMPLE_RATE_HZ

BYTES_PER_SAMPLE = 2
# Size of the WAV header written here.
WAV_HEADER_BYTES = 44
# A larger gap or overlap is not timestamp jitter.
MAX_JITTER_S = 0.04
# Longest gap filled with silence; a longer one is a clock error.
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

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, frame: Any) -> None:
        """Write the next frame, after silence if there is a gap; drop it if its time is already written."""
        if frame.time is not None:
            ahead_s = frame.time - self._zero_s - self.samples / SAMPLE_RATE_HZ
            if ahead_s < -max(MAX_JITTER_S, frame.samples / frame.sample_rate / 2):
                return
            if MAX_JITTER_S < ahead_s <= MAX_SILENCE_S:
                self._append(np.zeros(round(ahead_s * SAMPLE_RATE_HZ), np.int16))
        # The resampler would use its own timestamps; ours are counted in samples.
        frame.pts = None
        self._resample(frame)

    def flush(self) -> None:
        """Write the samples buffered by the resampler."""
        self._resample(None)

    def _resample(self, frame: Any) -> None:
        for resampled in self._resampler.resample(frame):
            self._append(resampled.to_ndarray().reshape(-1))

    def _append(self, samples: NDArray[Any]) -> None:
        self._file.writeframesraw(samples.astype("<i2").tobytes())
        self.samples += len(samples)


def read_waveform(path: Path) -> Samples:
    """Return the samples of a file written by ``WaveformWriter``, memory-mapped: int16 (S,)."""
    samples: Samples = np.memmap(path, dtype="<i2", mode="r", offset=WAV_HEADER_BYTES)
    return samples


def compute_byte_range(start_s: float, end_s: float) -> str:
    """Return the bytes of the samples from ``start_s`` to ``end_s`` in such a file, as an HTTP Range header."""
    first = WAV_HEADER_BYTES + round(start_s * SAMPLE_RATE_HZ) * BYTES_PER_SAMPLE
    last = WAV_HEADER_BYTES + round(end_s * SAMPLE_RATE_HZ) * BYTES_PER_SAMPLE - 1
    return f"bytes={first}-{max(first, last)}"
