"""Resamples decoded audio to 16 kHz mono."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
import numpy as np

from gorggle_server.input_format import FRAME_S, SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# Timestamps jitter by rounding, those of browsers by more. A larger deviation is a gap.
JITTER_S = FRAME_S


@dataclass(frozen=True, eq=False)
class AudioSamples:
    """16 kHz mono audio: int16 (S,), and the media timestamp of the first sample."""

    time_s: float
    samples: NDArray[np.int16]


class AudioResampler:
    """Resamples decoded audio of any rate and layout to 16 kHz mono.

    While timestamps are continuous, apart from jitter, times are counted in samples. A gap in the timestamps or a
    change of format starts a new run at the new timestamp.
    """

    def __init__(self) -> None:
        self._resampler: av.AudioResampler | None = None
        self._format: tuple[str, str, int] | None = None
        self._start_s = 0.0
        self._input_samples = 0  # samples of the run, at the source's rate
        self._output_samples = 0  # samples of the run, at 16 kHz

    def push(self, frame: av.AudioFrame, time_s: float | None) -> Iterator[AudioSamples]:
        """Resample a decoded frame with timestamp ``time_s``; yield the available audio."""
        time_s = self._expected_time_s() if time_s is None else time_s
        audio_format = (frame.format.name, frame.layout.name, frame.sample_rate)
        if audio_format != self._format or abs(time_s - self._expected_time_s()) > JITTER_S:
            yield from self.flush()
            self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
            self._format, self._start_s = audio_format, time_s
            self._input_samples = self._output_samples = 0
        self._input_samples += frame.samples
        frame.pts = None  # otherwise the resampler would fill gaps itself
        yield from self._resample(frame)

    def flush(self) -> Iterator[AudioSamples]:
        """End the run; yield the last samples."""
        if self._resampler is not None:
            yield from self._resample(None)
        self._resampler = self._format = None

    def _expected_time_s(self) -> float:
        return (
            self._start_s if self._format is None else self._start_s + self._input_samples / self._format[2]
        )

    def _resample(self, frame: av.AudioFrame | None) -> Iterator[AudioSamples]:
        assert self._resampler is not None, "a run is open"
        # When flushed, PyAV's resampler returns None if it had passed frames through unchanged.
        for resampled in filter(None, self._resampler.resample(frame)):
            samples = resampled.to_ndarray().reshape(-1).astype(np.int16, copy=False)
            yield AudioSamples(self._start_s + self._output_samples / SAMPLE_RATE_HZ, samples)
            self._output_samples += len(samples)
