"""Recognition of one utterance."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gorggle_fusion.confidence import Calibration
from gorggle_server.avhubert import Hypothesis as TokenHypothesis
from gorggle_server.avhubert import load_model
from gorggle_server.errors import ModelFormatError
from gorggle_server.events import Hypothesis, Word
from gorggle_server.inference.interface import DecodingOptions, InferenceInput
from gorggle_server.inference.recognizer import DecodingBatch, EncodedWindow, Recognizer
from gorggle_server.recognition_options import Modality
from gorggle_server.settings import EMBEDDED_MODEL

OPTIONS = DecodingOptions(beam_size=3, length_penalty=1.0, max_alternatives=0, word_timestamps=True)


def make_window(frames: int = 30) -> InferenceInput:
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (frames, 96, 96)).astype(np.uint8)
    return InferenceInput(crops, rng.standard_normal((frames, 104)).astype(np.float32))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["decoder.embed_tokens.weight", "encoder.layer_norm.weight"])
def test_non_finite_weights_raise_a_model_format_error(name: str, value: float) -> None:
    recognizer = Recognizer(load_model(EMBEDDED_MODEL))
    assert len(recognizer.transcribe([make_window()], OPTIONS)) == 1
    with torch.no_grad():
        dict(recognizer.model.network.named_parameters())[name].fill_(value)
    with pytest.raises(ModelFormatError, match="not finite"):
        recognizer.transcribe([make_window()], OPTIONS)


class ScriptedModel:
    """Model whose search finishes at once with given texts; each word takes a second."""

    config = SimpleNamespace(max_target_size=64)

    def __init__(self, *texts: str, probabilities: Sequence[float] = ()) -> None:
        self._texts, self._probabilities = texts, probabilities
        self._keys: Sequence[Hashable] = ()

    def start_beam_search(self, **_: object) -> ScriptedModel:
        return self

    def add(self, keys: Sequence[Hashable], *_: object) -> None:
        self._keys = keys

    def step(self) -> dict[Hashable, list[TokenHypothesis]]:
        hypotheses = [TokenHypothesis([2], -1.0, [-0.1], text) for text in self._texts]
        return dict.fromkeys(self._keys, hypotheses)

    def compute_word_probabilities(self, hypothesis: TokenHypothesis) -> list[float]:
        return list(self._probabilities) or [0.9] * len(hypothesis.text.split())

    def align_words(self, _: torch.Tensor, hypothesis: TokenHypothesis) -> list[Word]:
        return [Word(word, at, at + 1, 0.9) for at, word in enumerate(hypothesis.text.split())]


def decode(
    model: Any, options: DecodingOptions, calibrations: Mapping[Modality, Calibration] | None = None
) -> Sequence[Hypothesis]:
    batch = DecodingBatch(model, options, calibrations or {})
    batch.add(["window"], [EncodedWindow(torch.zeros(100, 8), Modality.VIDEO_ONLY)])
    result = batch.step()["window"]
    assert not isinstance(result, ModelFormatError)
    return result


@pytest.mark.parametrize("word_timestamps", [True, False])
def test_a_phrase_in_a_loop_is_kept_once_with_its_times(word_timestamps: bool) -> None:
    loop = "so i said " * 6
    model: Any = ScriptedModel(f"{loop}goodbye", f"{loop}so i said goodbye", "so i said goodbye now")
    best, other = decode(model, DecodingOptions(3, 1.0, 5, word_timestamps))
    assert (best.text, best.is_loop_removed) == ("so i said goodbye", True)
    assert [word.start_s for word in best.words] == ([0, 1, 2, 18] if word_timestamps else [])
    assert (other.text, other.is_loop_removed) == ("so i said goodbye now", False)


@pytest.mark.parametrize("word_timestamps", [True, False])
def test_confidences_are_calibrated_for_the_modality(word_timestamps: bool) -> None:
    options = DecodingOptions(2, 1.0, max_alternatives=0, word_timestamps=word_timestamps)
    calibrations = {Modality.VIDEO_ONLY: Calibration(0.5, -1.0), Modality.AUDIO_ONLY: Calibration(9.0)}
    [plain] = decode(ScriptedModel("at f two"), options)
    [calibrated] = decode(ScriptedModel("at f two"), options, calibrations)
    # Odds of 9 to 1 for each word become 3 / e to 1.
    expected = 3 / (3 + math.e)
    assert (plain.confidence, calibrated.confidence) == (pytest.approx(0.9), pytest.approx(expected))
    assert [word.confidence for word in calibrated.words] == pytest.approx([expected] * 3 * word_timestamps)


def test_words_removed_from_a_loop_do_not_count_in_the_confidence() -> None:
    model = ScriptedModel("so i said " * 6, probabilities=[0.9] * 3 + [0.1] * 15)
    [best] = decode(model, OPTIONS)
    assert (best.text, best.confidence) == ("so i said", pytest.approx(0.9))
