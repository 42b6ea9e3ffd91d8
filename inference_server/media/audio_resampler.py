"""From FFmpeg's decoded sound to 16 kHz mono in runs without a break."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
import numpy as np

from gorggle_server.timebase import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# Timestamps jitter by their rounding, and browsers' by more. What is further off than one frame of 25 Hz is a gap.
JITTER_S = 0.04


@dataclass(frozen=True, eq=False)
class AudioSamples:
    """16 kHz mono sound.

    Attributes:
        time_s: when the first sample is heard, on the media's own clock.
        samples: int16 (S,).
    """

    time_s: float
    samples: NDArray[np.int16]


class AudioResampler:
    """Turns decoded sound of any rate and layout into 16 kHz mono.

    As long as the timestamps follow one another, small deviations aside, the sound is one run and its times are
    counted in samples; where they jump, or the format changes, a new run starts at the new time.
    """

    def __init__(self) -> None:
        self._resampler: av.AudioResampler | None = None
        self._format: tuple[str, str, int] | None = None
        self._start_s = 0.0
        self._input_samples = 0  # samples of the run, at the source's rate
        self._output_samples = 0  # samples of the run, at 16 kHz

    def push(self, frame: av.AudioFrame, time_s: float | None) -> Iterator[AudioSamples]:
        """Take in decoded sound, heard at ``time_s``; give what can be given at 16 kHz so far."""
        time_s = self._expected_time_s() if time_s is None else time_s
        sound_format = (frame.format.name, frame.layout.name, frame.sample_rate)
        if sound_format != self._format or abs(time_s - self._expected_time_s()) > JITTER_S:
            yield from self.flush()
            self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
            self._format, self._start_s, self._input_samples, self._output_samples = (
                sound_format,
                time_s,
                0,
                0,
            )
        self._input_samples += frame.samples
        frame.pts = None  # the run is counted here; the resampler would fill gaps of its own accord
        yield from self._resample(frame)

    def flush(self) -> Iterator[AudioSamples]:
        """End the run: give the last samples."""
        if self._resampler is not None:
            yield from self._resample(None)
        self._resampler = self._format = None

    def _expected_time_s(self) -> float:
        return (
            self._start_s if self._format is None else self._start_s + self._input_samples / self._format[2]
        )

    def _resample(self, frame: av.AudioFrame | None) -> Iterator[AudioSamples]:
        assert self._resampler is not None, "a run is open"
        # At the end PyAV's resampler gives None where it had nothing to change.
        for resampled in filter(None, self._resampler.resample(frame)):
            samples = resampled.to_ndarray().reshape(-1).astype(np.int16, copy=False)
            yield AudioSamples(self._start_s + self._output_samples / SAMPLE_RATE_HZ, samples)
            self._output_samples += len(samples)
