"""Recognize windows of mouth crops and audio features with AV-HuBERT: encode, beam search, word timestamps."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gorggle_fusion.confidence import Calibration
from gorggle_server.errors import ModelFormatError
from gorggle_server.events import Hypothesis, Word
from gorggle_server.inference.interface import DecodingOptions, InferenceInput, transcribe
from gorggle_server.input_format import (
    FRAME_RATE_HZ,
    MODEL_INPUT_SIZE_PX,
    MOUTH_CROP_SIZE_PX,
    frames_to_seconds,
)
from gorggle_server.recognition_options import Modality, RecognitionOptions
from gorggle_server.repetition import remove_loops

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gorggle_server.avhubert.beam_search import BeamSearch
    from gorggle_server.avhubert.beam_search import Hypothesis as TokenHypothesis
    from gorggle_server.avhubert.config import ModelConfig

# A fast speaker says six words per second, about ten tokens with subword or character vocabularies.
MAX_TOKENS_PER_SECOND = 10
MIN_TOKEN_LIMIT = 8

# Texts of errors of other classes than MemoryError.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",  # torch
    "CUDA failed with error out of memory",  # CTranslate2
    "Failed to allocate memory",  # onnxruntime
    "bad allocation",
)


class Model(Protocol):
    """An AV-HuBERT model, computed by torch (``avhubert.model``) or by onnxruntime (``avhubert.onnx_model``)."""

    card: dict[str, Any]
    parameter_count: int

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""

    def encode_clips(
        self, crops: Sequence[NDArray[np.uint8]] | None, features: Sequence[NDArray[np.float32]] | None
    ) -> list[Any]:
        """Encode clips of one modality.

        Args:
            crops: of each clip, uint8 (T, 88, 88); None without video.
            features: of each clip, float32 (T, 104); None without audio.

        Returns:
            For each clip (T, D), in the model's type of array; None if the output is not finite.
        """

    def start_beam_search(self, *, beam: int, length_penalty: float) -> BeamSearch:
        """Return an empty ``BeamSearch`` for encoded clips."""

    def align_words(self, encoder_out: Any, hypothesis: TokenHypothesis) -> list[Word]:
        """Compute the timestamps of each word of a hypothesis of an encoded clip."""

    def compute_word_probabilities(self, hypothesis: TokenHypothesis) -> list[float]:
        """Return the probability of each word given the previous ones."""

    def release_memory(self) -> None:
        """Release cached device memory."""


class Recognizer:
    """Recognizes windows with one AV-HuBERT model; see ``interface.SpeechRecognizer``.

    Args:
        model: the model.
        calibrations: of the words' confidences, by modality.
    """

    def __init__(self, model: Model, calibrations: Mapping[Modality, Calibration] | None = None) -> None:
        self.model = model
        self.calibrations = dict(calibrations or {})

    def encode(self, windows: Sequence[InferenceInput]) -> list[EncodedWindow | ModelFormatError]:
        """Encode windows of one modality together; an error stands for a window whose encoder output is not finite."""
        clips = self.model.encode_clips(_get_crops(windows), _get_features(windows))
        return [
            _create_non_finite_error() if clip is None else EncodedWindow(clip, window.modality)
            for clip, window in zip(clips, windows, strict=True)
        ]

    def start_decoding(self, options: DecodingOptions) -> DecodingBatch:
        """Return an empty batch that windows join and leave between two search steps."""
        return DecodingBatch(self.model, options, self.calibrations)

    def transcribe(
        self, windows: Sequence[InferenceInput], options: DecodingOptions
    ) -> list[list[Hypothesis]]:
        """Recognize windows of one modality completely; see ``interface.transcribe``."""
        return transcribe(self, windows, options)

    def release_memory(self) -> None:
        """Release cached device memory."""
        self.model.release_memory()

    def measure_cost(self) -> float:
        """Measure device seconds per second of media, on two seconds at the default beam size.

        Returns the minimum of several runs: on a busy machine a single run may take many times as long.
        """
        frames = 2 * FRAME_RATE_HZ
        search = DecodingOptions(RecognitionOptions.beam_size, 1.0, 0, word_timestamps=True)
        window = self._create_blank_window(frames)
        taken_s = []
        for _ in range(3):
            began = time.perf_counter()
            self.transcribe([window], search)
            taken_s.append(time.perf_counter() - began)
        return min(taken_s) / frames_to_seconds(frames)

    def warm_up(self) -> None:
        """Run every modality once, so that the first caller does not pay for lazy initialization."""
        both = self._create_blank_window(FRAME_RATE_HZ)
        search = DecodingOptions(beam_size=2, length_penalty=1.0, max_alternatives=0, word_timestamps=True)
        for window in (both, replace(both, features=None), replace(both, crops=None)):
            self.transcribe([window], search)

    def _create_blank_window(self, frames: int) -> InferenceInput:
        crops = np.zeros((frames, MOUTH_CROP_SIZE_PX, MOUTH_CROP_SIZE_PX), np.uint8)
        return InferenceInput(crops, np.zeros((frames, self.model.config.audio_dim), np.float32))


@dataclass(frozen=True, eq=False)
class EncodedWindow:
    """Encoder output (T, D) of a window, in the model's type of array, and what it was encoded from."""

    features: Any
    modality: Modality


class DecodingBatch:
    """Encoded windows being decoded together; see ``Recognizer.start_decoding``."""

    def __init__(
        self, model: Model, options: DecodingOptions, calibrations: Mapping[Modality, Calibration]
    ) -> None:
        self._model, self._options = model, options
        self._calibrations = calibrations
        self._search = model.start_beam_search(beam=options.beam_size, length_penalty=options.length_penalty)
        self._encoded: dict[Hashable, EncodedWindow] = {}

    @property
    def windows(self) -> int:
        """Number of windows being decoded."""
        return len(self._encoded)

    def add(self, keys: Sequence[Hashable], encoded: Sequence[EncodedWindow]) -> None:
        """Add encoded windows, of ``Recognizer.encode``, under the caller's keys."""
        clips, limit = [window.features for window in encoded], self._model.config.max_target_size - 1
        self._search.add(keys, clips, [min(max_output_tokens(len(clip)), limit) for clip in clips])
        self._encoded.update(zip(keys, encoded, strict=True))

    def remove(self, key: Hashable) -> None:
        """Remove a window in the middle of its search."""
        self._search.remove(key)
        del self._encoded[key]

    def step(self) -> dict[Hashable, list[Hypothesis] | ModelFormatError]:
        """Run one search step.

        Returns:
            The windows that finished with this step and have left: hypotheses of each, best first, or an error if the decoder
            output was not finite.
        """
        return {
            key: result if isinstance(result, ModelFormatError) else self._to_hypotheses(key, result)
            for key, result in self._search.step().items()
        }

    def _to_hypotheses(self, key: Hashable, found: Sequence[TokenHypothesis]) -> list[Hypothesis]:
        window, limit = self._encoded.pop(key), 1 + self._options.max_alternatives
        return [self._to_hypothesis(window, hypothesis) for hypothesis in _deduplicate(found, limit)]

    def _to_hypothesis(self, window: EncodedWindow, hypothesis: TokenHypothesis) -> Hypothesis:
        texts = hypothesis.text.split()
        kept = remove_loops(texts)
        calibration = self._calibrations.get(window.modality, Calibration())
        probabilities = self._model.compute_word_probabilities(hypothesis)
        confidences = [calibration.probability(probabilities[index]) for index in kept]
        words: tuple[Word, ...] = ()
        if self._options.word_timestamps:
            aligned = self._model.align_words(window.features, hypothesis)
            words = tuple(
                replace(aligned[index], confidence=confidence)
                for index, confidence in zip(kept, confidences, strict=True)
            )
        return Hypothesis(
            " ".join(texts[index] for index in kept),
            _geometric_mean(confidences),
            words,
            is_loop_removed=len(kept) < len(texts),
            log_probability=sum(hypothesis.token_scores),
        )


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means that the device or this machine lacked memory."""
    # On a CPU torch raises a bare RuntimeError that names its allocator; CTranslate2 raises one on a GPU. torch is not imported
    # here: only its own models need it.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(text in str(error) for text in _OUT_OF_MEMORY)
    )


def max_output_tokens(frames: int) -> int:
    """Return the maximum number of tokens in speech of this many frames."""
    return MIN_TOKEN_LIMIT + math.ceil(frames / FRAME_RATE_HZ * MAX_TOKENS_PER_SECOND)


def _get_crops(windows: Sequence[InferenceInput]) -> list[NDArray[np.uint8]] | None:
    """Return the centres of the crops of each window, (T, 88, 88)."""
    margin = (MOUTH_CROP_SIZE_PX - MODEL_INPUT_SIZE_PX) // 2
    centre = slice(margin, margin + MODEL_INPUT_SIZE_PX)
    crops = [window.crops[:, centre, centre] for window in windows if window.crops is not None]
    assert len(crops) in (0, len(windows)), "a batch holds one modality"
    return crops or None


def _get_features(windows: Sequence[InferenceInput]) -> list[NDArray[np.float32]] | None:
    features = [window.features for window in windows if window.features is not None]
    assert len(features) in (0, len(windows)), "a batch holds one modality"
    return features or None


def _deduplicate(hypotheses: Sequence[TokenHypothesis], limit: int) -> list[TokenHypothesis]:
    """Return the best hypotheses with distinct words: different tokens can spell the same ones."""
    seen: dict[tuple[str, ...], TokenHypothesis] = {}
    for hypothesis in hypotheses:
        texts = hypothesis.text.split()
        seen.setdefault(tuple(texts[index] for index in remove_loops(texts)), hypothesis)
    return list(seen.values())[:limit]


def _create_non_finite_error() -> ModelFormatError:
    return ModelFormatError("the encoder's output is not finite: its weights or the device are damaged")


def _geometric_mean(probabilities: Sequence[float]) -> float:
    return math.exp(fmean(map(math.log, probabilities))) if probabilities else 0.0
