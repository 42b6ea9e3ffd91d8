"""The Moonshine network: limits, and errors of its files."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gorggle_server.errors import ModelFormatError, NotFoundError
from gorggle_server.moonshine import MODEL_FILES, GreedyDecoding, Model, find_model_folder
from tests.speech_model import needs_speech_model

pytestmark = needs_speech_model


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(find_model_folder())


@pytest.mark.parametrize(("samples", "frames"), [(0, 1), (895, 1), (1278, 1), (1279, 2), (16_000, 40)])
def test_there_is_one_frame_per_24_ms(model: Model, samples: int, frames: int) -> None:
    assert model.encode(np.zeros(samples, np.int16)).shape == (frames, 288)


def test_the_number_of_tokens_is_limited(model: Model) -> None:
    decoding = model.start_decoding(np.random.default_rng(0).normal(0, 1, (42, 288)).astype(np.float32))
    while not decoding.is_finished:
        decoding.step()
    assert len(decoding.tokens) == len(decoding.scores) <= 8 + 7


class LoopingModel:
    """Repeats tokens in a loop."""

    def __init__(self, prefix: list[int], loop: list[int]) -> None:
        self._tokens = itertools.chain(prefix, itertools.cycle(loop))

    def run_decoder(self, encoded: object, token: int, cache: object) -> tuple[np.ndarray, dict[str, Any]]:
        scores = np.full(100, -9.0, np.float32)
        scores[next(self._tokens)] = -0.1
        return scores, {}


@pytest.mark.parametrize("loop", [[7], [7, 8], list(range(7, 15))])
def test_a_phrase_that_is_repeated_in_a_loop_is_kept_once(loop: list[int]) -> None:
    decoding = GreedyDecoding(LoopingModel([3, 4, 7, 5], loop), np.zeros((800, 288), np.float32))  # type: ignore[arg-type]
    while not decoding.is_finished:
        decoding.step()
    assert decoding.tokens == [3, 4, 7, 5, *loop]
    assert len(decoding.scores) == len(decoding.tokens)
    assert decoding.is_loop_removed


def test_encoder_output_that_is_not_finite_is_a_model_format_error(model: Model) -> None:
    with pytest.raises(ModelFormatError, match="not finite"):
        model.start_decoding(np.full((10, 288), np.nan, np.float32)).step()


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_damaged_file_is_a_model_format_error(tmp_path: Path, name: str) -> None:
    folder = find_model_folder()
    for other in MODEL_FILES:
        (tmp_path / other).symlink_to(folder / other)
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(b"\x7fdamaged")
    with pytest.raises(ModelFormatError, match=name):
        Model(tmp_path)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("moonshine_voice", "pip install moonshine-voice==0.1.0"),
        ("onnxruntime", "onnxruntime is not installed"),
    ],
)
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, missing: str, message: str) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name)
    )
    with pytest.raises(NotFoundError, match=message):
        find_model_folder()
