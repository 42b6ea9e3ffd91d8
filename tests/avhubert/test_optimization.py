"""A network that is optimized for inference computes the same results."""

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
def test_the_encoder_and_the_logits_agree_with_the_reference(
    optimized: Model, encoded: dict[str, Tensor], name: str
) -> None:
    tokens, mask = golden.array(name, "prev_output_tokens"), golden.clip(name).padding_mask
    assert tokens is not None
    expected = golden.array(name, "encoder_out")
    assert expected is not None
    real = torch.ones(expected.shape[:2], dtype=torch.bool) if mask is None else ~mask
    golden.assert_agrees(encoded[name][real], expected[real])
    golden.assert_agrees(optimized.logits(encoded[name], mask, tokens), golden.array(name, "logits"))


@pytest.mark.parametrize(
    "case", golden.cases(), ids=lambda case: f"{case['input']}-beam{case['beam']}-penalty{case['lenpen']:g}"
)
def test_the_search_finds_the_same_units_as_the_reference(
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
        assert [one.tokens for one in hypotheses[: len(expected)]] == [one["tokens"] for one in expected]


def test_more_frames_than_are_worked_on_at_once_change_nothing(model: Model, optimized: Model) -> None:
    frames = 2 * optimization._CHUNK_FRAMES + 5
    video = torch.randn(2, frames, 88, 88, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(frames)[None] >= torch.tensor([[frames], [frames - 9]])
    found, expected = optimized.encode(video, None, mask), model.encode(video, None, mask)
    golden.assert_agrees(found[0], expected[0])
    golden.assert_agrees(found[1, : frames - 9], expected[1, : frames - 9])


def test_weights_of_eight_bits_come_close(model: Model) -> None:
    clip = golden.clip("av25")
    small = Model(golden.network(), golden.vocabulary()).optimize(int8=True)
    found, expected = small.encode(clip.video, clip.audio), model.encode(clip.video, clip.audio)
    # One part in 127 at each of ten layers, in random directions.
    assert float((found - expected).norm() / expected.norm()) < 0.05
    assert not torch.equal(found, expected)


def test_a_layer_of_eight_bits_does_not_hide_numbers_that_are_not_finite() -> None:
    layer = optimization.Int8Linear(torch.randn(24, 16), torch.zeros(24))
    x = torch.randn(3, 16)
    x[1, 5] = float("nan")
    found = layer(x)
    assert not torch.isfinite(found[1]).any()
    assert torch.isfinite(found[[0, 2]]).all()


def test_damaged_weights_are_noticed(model: Model) -> None:
    damaged = Model(golden.network(), golden.vocabulary())
    with torch.no_grad():
        damaged.network.decoder.layers[0].fc1.weight[0, 0] = float("nan")
    damaged.optimize()
    clip = golden.clip("v7")
    with pytest.raises(ModelFormatError, match="not finite"):
        damaged.beam_search(damaged.encode(clip.video), beam=3, max_len=5)


def test_the_number_of_parameters_stays_known(optimized: Model, model: Model) -> None:
    assert optimized.parameter_count == model.parameter_count > 100_000


def test_plain_layers_serve_where_weights_cannot_be_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimization, "_can_pack", lambda _: False)
    plain = Model(golden.network(), golden.vocabulary()).optimize()
    kinds = {type(module) for module in plain.network.modules()}
    assert optimization.PackedLinear not in kinds
    assert torch.nn.Linear in kinds
    clip = golden.clip("av7")
    found = plain.encode(clip.video, clip.audio)
    golden.assert_agrees(found, golden.array("av7", "encoder_out"))


def test_clips_in_a_batch_are_encoded_as_if_there_were_no_padding(optimized: Model) -> None:
    lengths = [9, 23, 1, 17]
    video = torch.randn(len(lengths), max(lengths), 88, 88, generator=torch.Generator().manual_seed(3))
    mask = torch.arange(max(lengths))[None] >= torch.tensor(lengths)[:, None]
    together = optimized.encode(video, None, mask)
    for row, length in enumerate(lengths):
        alone = optimized.encode(video[row : row + 1, :length], None)
        golden.assert_agrees(together[row, :length], alone[0])
        assert not together[row, length:].any()


def test_padding_before_a_clip_is_borne_too(model: Model, optimized: Model) -> None:
    video = torch.randn(2, 12, 88, 88, generator=torch.Generator().manual_seed(4))
    mask = torch.zeros(2, 12, dtype=torch.bool)
    mask[1, :4] = True
    found, expected = optimized.encode(video, None, mask), model.encode(video, None, mask)
    golden.assert_agrees(found[~mask], expected[~mask])
