"""Recognize windows of mouth crops and audio features with AV-HuBERT: encode, beam search, word timestamps."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import torch

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
    from gorggle_server.avhubert import Hypothesis as TokenHypothesis
    from gorggle_server.avhubert import Model

# Published normalisation of grey levels (AV-HuBERT, appendix A.1 of the paper).
GREY_MEAN, GREY_STD = 0.421, 0.165

# A fast speaker says six words per second, about ten tokens with subword or character vocabularies.
MAX_TOKENS_PER_SECOND = 10
MIN_TOKEN_LIMIT = 8


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
        padding_mask = _create_padding_mask([window.frames for window in windows])
        device = self.model.device
        encoder_out = self.model.encode(
            video=_stack_crops(windows, padding_mask.shape[1], device),
            audio=_stack_features(windows, padding_mask.shape[1]),
            padding_mask=padding_mask if bool(padding_mask.any()) else None,
        )
        own = [row[: window.frames] for row, window in zip(encoder_out, windows, strict=True)]
        return [
            EncodedWindow(row, window.modality)
            if bool(torch.isfinite(row).all())
            else _create_non_finite_error()
            for row, window in zip(own, windows, strict=True)
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
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

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
    """Encoder output (T, D) of a window, and what it was encoded from."""

    features: torch.Tensor
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
    # On a CPU torch raises a bare RuntimeError that names its allocator; CTranslate2 raises one on a GPU.
    text = str(error)
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or "DefaultCPUAllocator" in text
        or "CUDA failed with error out of memory" in text
    )


def max_output_tokens(frames: int) -> int:
    """Return the maximum number of tokens in speech of this many frames."""
    return MIN_TOKEN_LIMIT + math.ceil(frames / FRAME_RATE_HZ * MAX_TOKENS_PER_SECOND)


def normalise_crops(crops: torch.Tensor) -> torch.Tensor:
    """Scale uint8 crops to the model's float32 input, on their device."""
    # One new tensor, then in place: a large batch is not written three times into newly allocated memory.
    return (crops / 255).sub_(GREY_MEAN).div_(GREY_STD)


def _create_padding_mask(lengths: Sequence[int]) -> torch.Tensor:
    longest = max(lengths)
    return torch.arange(longest)[None, :] >= torch.tensor(lengths)[:, None]


def _stack_crops(windows: Sequence[InferenceInput], frames: int, device: torch.device) -> torch.Tensor | None:
    """Return the centres of the crops, (B, T, 88, 88). They are copied to the device as bytes, a quarter of the size of floats."""
    if windows[0].crops is None:
        return None
    margin = (MOUTH_CROP_SIZE_PX - MODEL_INPUT_SIZE_PX) // 2
    centre = slice(margin, margin + MODEL_INPUT_SIZE_PX)
    batch = torch.zeros(len(windows), frames, MODEL_INPUT_SIZE_PX, MODEL_INPUT_SIZE_PX, dtype=torch.uint8)
    for row, window in zip(batch.numpy(), windows, strict=True):
        assert window.crops is not None, "a batch holds one modality"
        row[: window.frames] = window.crops[:, centre, centre]
    if device.type == "cuda":
        # Only a copy from pinned memory can overlap with computation.
        batch = batch.pin_memory().to(device, non_blocking=True)
    return normalise_crops(batch)


def _stack_features(windows: Sequence[InferenceInput], frames: int) -> torch.Tensor | None:
    if windows[0].features is None:
        return None
    batch = torch.zeros(len(windows), frames, windows[0].features.shape[1])
    for row, window in zip(batch, windows, strict=True):
        assert window.features is not None, "a batch holds one modality"
        row[: window.frames] = torch.from_numpy(window.features)
    return batch


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
