"""Speech detection: whether audio contains a voice, as opposed to music, machines and noise.

``media.vad`` measures when audio is louder than its background, precisely and whatever the sound; this detector tells speech
from other sounds, with the network of Silero VAD (MIT).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gorggle_server.input_format import SAMPLES_PER_FRAME
from gorggle_server.onnx_session import open_session
from gorggle_server.waveform import validate_waveform

if TYPE_CHECKING:
    from numpy.typing import NDArray

NETWORK = Path(__file__).parents[1] / "assets" / "silero-vad-16k.onnx"

# The network's input: chunks of 32 ms, each with the end of the previous one.
CHUNK_SAMPLES, CONTEXT_SAMPLES = 512, 64
_STATE_SHAPE = (1, 1, 128)
_PCM_SCALE = 32_768.0

# Probabilities are averaged over 0.19 s. Of synthetic tunes, chords, drums, tones and pink noise the average reaches 0.45; the
# quietest words of real clips reach 0.96 (single words in their sentences), sentences in noise at 0 dB 0.79 and more.
AVERAGED_CHUNKS = 6
SPEECH_THRESHOLD = 0.6


class SpeechDetector:
    """Estimates the probability of speech in audio, frame by frame, with the state of one stream."""

    def __init__(self) -> None:
        self._network = load_network()
        self._state = {"h": np.zeros(_STATE_SHAPE, np.float32), "c": np.zeros(_STATE_SHAPE, np.float32)}
        self._samples = np.zeros(CONTEXT_SAMPLES, np.float32)  # the context, and less than a chunk
        self._recent = np.zeros(AVERAGED_CHUNKS)  # probabilities of the latest chunks
        self._chunk_count = self._frame_count = self._sample_count = 0

    def push(self, samples: NDArray[np.int16]) -> NDArray[np.float32]:
        """Add samples; return for each completed frame of 640 samples the average probability of the chunks before its end.

        Raises:
            InvalidRequestError: the samples are not one-dimensional int16.
        """
        validate_waveform(samples)
        self._samples = np.concatenate([self._samples, samples.astype(np.float32) / _PCM_SCALE])
        self._sample_count += len(samples)
        first_chunk = self._chunk_count
        averages = self._average(self._compute_probabilities())
        frames = range(self._frame_count, self._sample_count // SAMPLES_PER_FRAME)
        self._frame_count = frames.stop
        # A frame is longer than a chunk: at least one chunk ends within it, or ended with the previous push.
        last_chunks = [(frame + 1) * SAMPLES_PER_FRAME // CHUNK_SAMPLES for frame in frames]
        return np.array([averages[chunk - first_chunk] for chunk in last_chunks], np.float32)

    def flush(self) -> NDArray[np.float32]:
        """Return the value of the remaining samples, zero-padded to a frame."""
        return self.push(np.zeros(-self._sample_count % SAMPLES_PER_FRAME, np.int16))

    def _compute_probabilities(self) -> NDArray[np.float64]:
        """Run the network on the complete chunks; return their probabilities."""
        count = (len(self._samples) - CONTEXT_SAMPLES) // CHUNK_SAMPLES
        if not count:
            return np.zeros(0)
        width = CONTEXT_SAMPLES + CHUNK_SAMPLES
        chunks = np.lib.stride_tricks.sliding_window_view(self._samples, width)[::CHUNK_SAMPLES][:count]
        probabilities, self._state["h"], self._state["c"] = self._network.run(
            None, {"input": np.ascontiguousarray(chunks), **self._state}
        )
        self._samples = self._samples[count * CHUNK_SAMPLES :]
        self._chunk_count += count
        return np.asarray(probabilities, np.float64)

    def _average(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the running average: first the latest known one, then that after each new chunk."""
        history = np.concatenate([self._recent, probabilities])
        self._recent = history[-AVERAGED_CHUNKS:]
        return np.convolve(history, np.full(AVERAGED_CHUNKS, 1 / AVERAGED_CHUNKS), "valid")


@cache
def load_network() -> Any:
    """Load the network, once per process: it has no state of its own and may run in several threads."""
    return open_session(NETWORK)
