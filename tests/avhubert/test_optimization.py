"""Inference optimizations do not change results beyond rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gorggle_server.avhubert import optimization
from gorggle_server.avhubert.model import Model
from gorggle_server.errors import ModelFormatError
from tests.avhubert import golden


@pytest.fixture(scope="module")
def optimized() -> Model:
    return Model(golden.network(), golden.vocabulary()).optimize()


@pytest.fixture(scope="module")
def encoded(optimized: Model) -> dict[str, Tensor]:
    clips = {name: golden.clip(name) for name in golden.INPUTS}
    return {name: optimized.encode(clip.video, clip.audio, clip.padding_mask) for name, clip in clips.items()}


@pytest.mark.parametrize("name", golden.INPUTS)
def test_encoder_output_and_logits_match_the_reference(
    optimized: Model, encoded: dict[str, Tensor], name: str
) -> None:
    tokens, mask = golden.array(name, "prev_output_tokens"), golden.clip(name).padding_mask
    assert tokens is not None
    expected = golden.array(name, "encoder_out")
    assert expected is not None
    is_valid = torch.ones(expected.shape[:2], dtype=torch.bool) if mask is None else ~mask
    golden.assert_close(encoded[name][is_valid], expected[is_valid])
    golden.assert_close(optimized.logits(encoded[name], mask, tokens), golden.array(name, "logits"))


@pytest.mark.parametrize(
    "case", golden.cases(), ids=lambda case: f"{case['input']}-beam{case['beam']}-penalty{case['lenpen']:g}"
)
def test_beam_search_finds_the_reference_tokens(
    optimized: Model, encoded: dict[str, Tensor], case: dict[str, Any]
) -> None:
    found = optimized.beam_search(
        encoded[case["input"]],
        golden.clip(case["input"]).padding_mask,
        beam=case["beam"],
        length_penalty=case["lenpen"],
        max_len=case["max_len"],
    )
    for hypotheses, expected in zip(found, case["hypotheses"], strict=True):
        assert [hypothesis.tokens for hypothesis in hypotheses[: len(expected)]] == [
            case_hypothesis["tokens"] for case_hypothesis in expected
        ]


def test_encoding_in_chunks_does_not_change_results(model: Model, optimized: Model) -> None:
    frames = 2 * optimization._CHUNK_FRAMES + 5
    video = torch.randn(2, frames, 88, 88, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(frames)[None] >= torch.tensor([[frames], [frames - 9]])
    found, expected = optimized.encode(video, None, mask), model.encode(video, None, mask)
    golden.assert_close(found[0], expected[0])
    golden.assert_close(found[1, : frames - 9], expected[1, : frames - 9])


def test_int8_output_is_close_to_float32(model: Model) -> None:
    clip = golden.clip("av25")
    quantized = Model(golden.network(), golden.vocabulary()).optimize(int8=True)
    found, expected = quantized.encode(clip.video, clip.audio), model.encode(clip.video, clip.audio)
    # A relative error of 1/127 in each of ten layers, in random directions.
    assert float((found - expected).norm() / expected.norm()) < 0.05
    assert not torch.equal(found, expected)


def test_an_int8_layer_propagates_non_finite_values() -> None:
    layer = optimization.Int8Linear(torch.randn(24, 16), torch.zeros(24))
    x = torch.randn(3, 16)
    x[1, 5] = float("nan")
    found = layer(x)
    assert not torch.isfinite(found[1]).any()
    assert torch.isfinite(found[[0, 2]]).all()


def test_non_finite_weights_are_detected(model: Model) -> None:
    damaged = Model(golden.network(), golden.vocabulary())
    with torch.no_grad():
        damaged.network.decoder.layers[0].fc1.weight[0, 0] = float("nan")
    damaged.optimize()
    clip = golden.clip("v7")
    with pytest.raises(ModelFormatError, match="not finite"):
        damaged.beam_search(damaged.encode(clip.video), beam=3, max_len=5)


def test_optimization_keeps_the_parameter_count(optimized: Model, model: Model) -> None:
    assert optimized.parameter_count == model.parameter_count > 100_000


def test_linear_layers_are_kept_if_weights_cannot_be_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimization, "_can_pack", lambda _: False)
    plain = Model(golden.network(), golden.vocabulary()).optimize()
    layer_types = {type(module) for module in plain.network.modules()}
    assert optimization.PackedLinear not in layer_types
    assert torch.nn.Linear in layer_types
    clip = golden.clip("av7")
    found = plain.encode(clip.video, clip.audio)
    golden.assert_close(found, golden.array("av7", "encoder_out"))


def test_padding_in_a_batch_does_not_change_results(optimized: Model) -> None:
    lengths = [9, 23, 1, 17]
    video = torch.randn(len(lengths), max(lengths), 88, 88, generator=torch.Generator().manual_seed(3))
    mask = torch.arange(max(lengths))[None] >= torch.tensor(lengths)[:, None]
    batched = optimized.encode(video, None, mask)
    for row, length in enumerate(lengths):
        single = optimized.encode(video[row : row + 1, :length], None)
        golden.assert_close(batched[row, :length], single[0])
        assert not batched[row, length:].any()


def test_leading_padding_is_supported(model: Model, optimized: Model) -> None:
    video = torch.randn(2, 12, 88, 88, generator=torch.Generator().manual_seed(4))
    mask = torch.zeros(2, 12, dtype=torch.bool)
    mask[1, :4] = True
    found, expected = optimized.encode(video, None, mask), model.encode(video, None, mask)
    golden.assert_close(found[~mask], expected[~mask])
