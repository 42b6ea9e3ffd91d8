"""Recognition of one utterance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gorggle_server.avhubert import load_model
from gorggle_server.errors import ModelFormatError
from gorggle_server.inference.interface import DecodingOptions, InferenceInput
from gorggle_server.inference.recognizer import Recognizer
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
