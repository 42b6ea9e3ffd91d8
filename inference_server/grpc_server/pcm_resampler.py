"""Resamples PCM from clients to the server's 16 kHz."""

from __future__ import annotations

from collections.abc import Iterable

import av
import numpy as np

from gorggle_server.grpc_server.request_decoding import PcmAudio
from gorggle_server.input_format import SAMPLE_RATE_HZ
from gorggle_server.media.audio_resampler import AudioResampler, AudioSamples
from gorggle_server.streaming.crop_input import AudioChunk


class PcmResampler:
    """Resamples one stream of PCM; audio at 16 kHz passes unchanged.

    The output lags the input by the length of the filter, about a millisecond.
    """

    def __init__(self) -> None:
        self._sample_rate_hz = 0
        self._resampler = AudioResampler()

    def push(self, audio: PcmAudio) -> AudioChunk:
        """Return the samples that are complete.

        Raises:
            InvalidRequestError: the sample rate changed.
        """
        audio.check_sample_rate(self._sample_rate_hz)
        self._sample_rate_hz = audio.sample_rate_hz
        if audio.sample_rate_hz == SAMPLE_RATE_HZ or not len(audio.samples):
            return AudioChunk(audio.samples)
        frame = av.AudioFrame.from_ndarray(audio.samples[None, :], format="s16", layout="mono")
        frame.sample_rate = audio.sample_rate_hz
        return _join(self._resampler.push(frame, None))

    def flush(self) -> AudioChunk:
        """Return the last samples, at the end of the stream."""
        return _join(self._resampler.flush())


def _join(pieces: Iterable[AudioSamples]) -> AudioChunk:
    return AudioChunk(np.concatenate([np.zeros(0, np.int16), *(piece.samples for piece in pieces)]))


def resample_clip(audio: PcmAudio) -> AudioChunk:
    """Resample the audio of a whole clip."""
    resampler = PcmResampler()
    return AudioChunk(np.concatenate([resampler.push(audio).samples, resampler.flush().samples]))
