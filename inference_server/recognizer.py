"""From windows of mouth crops and audio features to readings with word times: the model's whole work on an utterance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from inference_server.errors import ModelFormatError
from inference_server.transcript import (
    AUDIO_SAMPLE_RATE_HZ,
    MOUTH_CROP_SIZE_PX,
    VIDEO_FRAME_RATE_HZ,
    Modality,
    Reading,
    Word,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inference_server.avhubert import Hypothesis, Model

MODEL_CROP_PX = 88
# The published normalisation of grey levels (AV-HuBERT, appendix A.1 of the paper).
GREY_MEAN, GREY_DEVIATION = 0.421, 0.165

# A fast talker says six words a second; sub-words and single letters come to about ten units.
MAX_UNITS_PER_SECOND = 10
MIN_UNITS_LIMIT = 8


@dataclass(frozen=True, eq=False)
class Window:
    """What the device is given of an utterance: pictures, sound features, or both, of the same T frames at 25 Hz.

    Attributes:
        crops: uint8 (T, 96, 96), mouth crops; None where only the sound is read.
        features: float32 (T, 104), stacked log mel energies; None where only the lips are read.
    """

    crops: NDArray[np.uint8] | None
    features: NDArray[np.float32] | None

    @property
    def frames(self) -> int:
        """T, the number of frames at 25 Hz."""
        present = self.crops if self.crops is not None else self.features
        return 0 if present is None else len(present)

    @property
    def modality(self) -> Modality:
        """What the window can be read from."""
        if self.crops is None:
            return Modality.AUDIO_ONLY
        return Modality.VIDEO_ONLY if self.features is None else Modality.AUDIO_VISUAL


@dataclass(frozen=True)
class SearchOptions:
    """How to search. Windows are batched only with others that share these."""

    beam_size: int
    length_penalty: float
    alternatives: int
    word_times: bool


class Recognizer:
    """Reads batches of windows with one model, on the calling thread."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def read(self, windows: Sequence[Window], search: SearchOptions) -> list[list[Reading]]:
        """Read every window; all must have the same modality.

        Returns:
            For each window its readings, best first: one, and up to ``search.alternatives`` more. Word times are in
            seconds from the window's first frame.

        Raises:
            ModelFormatError: the model's numbers are not finite: not the caller's fault.
        """
        padding_mask = _padding_mask([window.frames for window in windows])
        encoder_out = self.model.encode(
            video=_batch_of_crops(windows, padding_mask.shape[1]),
            audio=_batch_of_features(windows, padding_mask.shape[1]),
            padding_mask=padding_mask,
        )
        if not torch.isfinite(encoder_out).all():
            raise ModelFormatError(
                "the encoder's output is not finite: its weights or the device are damaged"
            )
        hypotheses = self.model.beam_search(
            encoder_out,
            padding_mask,
            beam=search.beam_size,
            length_penalty=search.length_penalty,
            max_len=[unit_limit(window.frames) for window in windows],
        )
        return [
            [
                self._reading(encoder_out[index, : window.frames], hypothesis, search.word_times)
                for hypothesis in _distinct(found, 1 + search.alternatives)
            ]
            for index, (window, found) in enumerate(zip(windows, hypotheses, strict=True))
        ]

    def warm_up(self) -> None:
        """Run every modality once, so that the first caller does not pay for lazy initialisation."""
        crops = np.zeros((VIDEO_FRAME_RATE_HZ, MOUTH_CROP_SIZE_PX, MOUTH_CROP_SIZE_PX), np.uint8)
        features = np.zeros((VIDEO_FRAME_RATE_HZ, 104), np.float32)
        search = SearchOptions(beam_size=2, length_penalty=1.0, alternatives=0, word_times=True)
        for window in (Window(crops, features), Window(crops, None), Window(None, features)):
            self.read([window], search)

    def _reading(self, encoder_out: torch.Tensor, hypothesis: Hypothesis, word_times: bool) -> Reading:
        confidence = _geometric_mean(hypothesis.token_scores)
        if not word_times:
            return Reading(hypothesis.text, confidence)
        words = self.model.word_times(encoder_out, hypothesis)
        return Reading(
            hypothesis.text,
            confidence,
            tuple(Word(word.text, word.start_s, word.end_s, word.confidence) for word in words),
        )


def unit_limit(frames: int) -> int:
    """The most units that speech of so many frames can hold."""
    return MIN_UNITS_LIMIT + math.ceil(frames / VIDEO_FRAME_RATE_HZ * MAX_UNITS_PER_SECOND)


def normalised_crops(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Cut out the centre of each crop and scale its grey levels as the model was trained: (T, 88, 88)."""
    margin = (MOUTH_CROP_SIZE_PX - MODEL_CROP_PX) // 2
    centre = crops[:, margin : margin + MODEL_CROP_PX, margin : margin + MODEL_CROP_PX]
    return ((centre / np.float32(255) - np.float32(GREY_MEAN)) / np.float32(GREY_DEVIATION)).astype(
        np.float32
    )


def _padding_mask(lengths: Sequence[int]) -> torch.Tensor:
    longest = max(lengths)
    return torch.arange(longest)[None, :] >= torch.tensor(lengths)[:, None]


def _batch_of_crops(windows: Sequence[Window], frames: int) -> torch.Tensor | None:
    if windows[0].crops is None:
        return None
    batch = torch.zeros(len(windows), frames, MODEL_CROP_PX, MODEL_CROP_PX)
    for row, window in zip(batch, windows, strict=True):
        assert window.crops is not None, "a batch holds one modality"
        row[: window.frames] = torch.from_numpy(normalised_crops(window.crops))
    return batch


def _batch_of_features(windows: Sequence[Window], frames: int) -> torch.Tensor | None:
    if windows[0].features is None:
        return None
    batch = torch.zeros(len(windows), frames, windows[0].features.shape[1])
    for row, window in zip(batch, windows, strict=True):
        assert window.features is not None, "a batch holds one modality"
        row[: window.frames] = torch.from_numpy(window.features)
    return batch


def _distinct(hypotheses: Sequence[Hypothesis], most: int) -> list[Hypothesis]:
    """The best hypotheses whose texts differ: different units can spell the same words."""
    seen: dict[str, Hypothesis] = {}
    for hypothesis in hypotheses:
        seen.setdefault(hypothesis.text, hypothesis)
    return list(seen.values())[:most]


def _geometric_mean(log_probabilities: Sequence[float]) -> float:
    return math.exp(sum(log_probabilities) / len(log_probabilities)) if log_probabilities else 0.0


def seconds_of(frames: int) -> float:
    """How long so many frames last."""
    return frames / VIDEO_FRAME_RATE_HZ


def samples_of(frames: int) -> int:
    """How many samples of sound so many frames last."""
    return frames * (AUDIO_SAMPLE_RATE_HZ // VIDEO_FRAME_RATE_HZ)
