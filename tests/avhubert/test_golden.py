"""The network and the beam search compute what the reference implementation computed.

The tolerances are derived from float32 rounding, so that these tests pass on every instruction set;
``test_instruction_sets`` runs them with other instruction sets than the native one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gorggle_server.avhubert.model import Model
from tests.avhubert import golden

# For each recorded name: the module that computes it, and the conversion of its output to the recorded layout.
INTERMEDIATES: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "frontend3d": ("feature_extractor_video.resnet.frontend3D", lambda x: x[:, :8]),
    "resnet": ("feature_extractor_video.resnet", lambda x: x.transpose(1, 2)),
    "video_features": ("feature_extractor_video", lambda x: x.transpose(1, 2)),
    "audio_features": ("feature_extractor_audio", lambda x: x.transpose(1, 2)),
    "post_extract_proj": ("post_extract_proj", lambda x: x),
    "pos_conv": ("encoder.pos_conv", lambda x: x),
    "encoder_layer_0": ("encoder.layers.0", lambda x: x.transpose(0, 1)),
    "encoder_layer_1": ("encoder.layers.1", lambda x: x.transpose(0, 1)),
}


@pytest.mark.parametrize("name", golden.INPUTS)
def test_encoder_output_matches_the_reference(encoded: dict[str, Tensor], name: str) -> None:
    golden.assert_close(encoded[name], golden.array(name, "encoder_out"))


@pytest.mark.parametrize("name", golden.INPUTS)
def test_logits_match_the_reference(model: Model, encoded: dict[str, Tensor], name: str) -> None:
    tokens = golden.array(name, "prev_output_tokens")
    assert tokens is not None
    golden.assert_close(
        model.logits(encoded[name], golden.clip(name).padding_mask, tokens), golden.array(name, "logits")
    )


@pytest.mark.parametrize("name", golden.INPUTS)
def test_cross_attention_matches_the_reference(model: Model, encoded: dict[str, Tensor], name: str) -> None:
    tokens = golden.array(name, "prev_output_tokens")
    assert tokens is not None
    with torch.inference_mode():
        logits, attention = model.network.decode_with_attention(
            encoded[name], golden.clip(name).padding_mask, tokens
        )
    golden.assert_close(logits, golden.array(name, "logits"))
    golden.assert_close(attention, golden.array(name, "cross_attention"))


@pytest.mark.parametrize("name", ["v1", "a1", "av1", "v7", "a7", "av7", "v25", "a25", "av25"])
def test_intermediate_outputs_match_the_reference(model: Model, name: str) -> None:
    outputs: dict[str, Tensor] = {}
    hooks = [
        model.network.encoder.get_submodule(module).register_forward_hook(
            lambda _module, _inputs, output, key=key: outputs.update({key: output})
        )
        for key, (module, _) in INTERMEDIATES.items()
    ]
    clip = golden.clip(name)
    model.encode(clip.video, clip.audio)
    for hook in hooks:
        hook.remove()
    recorded = [key for key in INTERMEDIATES if golden.array(name, key) is not None]
    assert len(recorded) >= 5
    for key in recorded:
        golden.assert_close(INTERMEDIATES[key][1](outputs[key]), golden.array(name, key))


@pytest.mark.parametrize(
    "case", golden.cases(), ids=lambda case: f"{case['input']}-beam{case['beam']}-penalty{case['lenpen']:g}"
)
def test_beam_search_finds_the_reference_hypotheses(
    model: Model, encoded: dict[str, Tensor], case: dict[str, Any]
) -> None:
    results = model.beam_search(
        encoded[case["input"]],
        golden.clip(case["input"]).padding_mask,
        beam=case["beam"],
        length_penalty=case["lenpen"],
        max_len=case["max_len"],
    )
    logits = golden.array(case["input"], "logits")
    assert logits is not None
    token_tolerance = golden.tolerance(logits)
    assert len(results) == len(case["hypotheses"])
    for hypotheses, expected in zip(results, case["hypotheses"], strict=True):
        best = hypotheses[: len(expected)]
        assert [hypothesis.tokens for hypothesis in best] == [one["tokens"] for one in expected]
        assert [hypothesis.text for hypothesis in best] == [one["text"] for one in expected]
        for hypothesis, one in zip(best, expected, strict=True):
            # A token score is a difference of logits. A hypothesis score is the sum of token scores, with independent
            # errors, divided by the length to the power of the penalty.
            score_tolerance = (
                token_tolerance * math.sqrt(len(one["tokens"])) / len(one["tokens"]) ** case["lenpen"]
            )
            assert hypothesis.token_scores == pytest.approx(one["positional_scores"], abs=token_tolerance)
            assert hypothesis.score == pytest.approx(one["score"], abs=score_tolerance)
