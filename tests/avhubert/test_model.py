"""The ``Model`` class: input validation, inference and word alignment."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gorggle_server.avhubert.model import Model
from gorggle_server.errors import InvalidRequestError, ModelFormatError
from tests.avhubert import golden

VIDEO = np.zeros((1, 4, 88, 88), np.float32)
AUDIO = np.zeros((1, 4, 104), np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "video and audio are both None"),
        ({"video": VIDEO[0]}, r"video has shape \(4, 88, 88\); expected \(B, T, 88, 88\)"),
        ({"video": VIDEO[:, :, :80]}, r"video has shape \(1, 4, 80, 88\)"),
        ({"video": VIDEO[:, :0]}, "all above 0"),
        ({"video": VIDEO.astype(np.uint8)}, "video has type torch.uint8"),
        ({"video": VIDEO * np.nan}, "video has values that are not finite"),
        ({"video": np.array([["x"]])}, "video cannot be converted to an array of numbers"),
        ({"audio": AUDIO[..., :26]}, r"audio has shape \(1, 4, 26\); expected \(B, T, 104\)"),
        ({"video": VIDEO, "audio": AUDIO[:, :3]}, r"audio has shape \(1, 3, 104\); expected \(1, 4, 104\)"),
        (
            {"audio": AUDIO, "padding_mask": np.zeros((1, 3), bool)},
            r"padding_mask has shape \(1, 3\); expected \(1, 4\)",
        ),
        (
            {"audio": AUDIO, "padding_mask": np.zeros((1, 4))},
            "padding_mask has type torch.float64; expected bool",
        ),
        ({"audio": AUDIO, "padding_mask": np.ones((1, 4), bool)}, "at least one valid frame"),
        ({"audio": AUDIO, "has_video": np.ones(2, bool)}, r"has_video has shape \(2,\)"),
        ({"audio": AUDIO, "has_audio": np.ones(1)}, "has_audio has type"),
    ],
)
def test_arrays_of_wrong_shape_or_type_are_rejected(
    model: Model, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        model.encode(**arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, e: m.beam_search(e, beam=0, max_len=3), "beam is 0"),
        (lambda m, e: m.beam_search(e, beam=1, max_len=0), "max_len is 0; expected at least 1"),
        (lambda m, e: m.beam_search(e, beam=1, max_len=[3, 4]), "max_len has 2 limits"),
        (lambda m, e: m.beam_search(e[0], beam=1, max_len=3), r"expected \(B, T, 64\)"),
        (lambda m, e: m.logits(e, None, np.array([[2, 37]])), "ids from 2 to 37; expected 0 to 36"),
        (lambda m, e: m.logits(e, None, np.array([[-1]])), "ids from -1"),
        (lambda m, e: m.logits(e, None, np.array([[2.0]])), "expected integers"),
        (lambda m, e: m.logits(e, None, np.array([2])), "prev_output_tokens has shape"),
        (lambda m, e: m.logits(e, np.zeros((1, 9), bool), np.array([[2]])), "padding_mask has shape"),
    ],
)
def test_arguments_out_of_range_are_rejected(
    model: Model, encoded: dict[str, Tensor], call: Callable[[Model, Tensor], object], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        call(model, encoded["v7"])


def test_numpy_arrays_and_tensors_give_the_same_results(model: Model, encoded: dict[str, Tensor]) -> None:
    clip = golden.clip("batch2")
    assert clip.video is not None
    assert clip.audio is not None
    assert clip.padding_mask is not None
    read_only = clip.video.numpy().copy()
    read_only.flags.writeable = False
    found = model.encode(read_only, clip.audio.numpy().astype(np.float64), clip.padding_mask.numpy())
    torch.testing.assert_close(found, encoded["batch2"], atol=1e-6, rtol=0)
    first = model.beam_search(
        found.numpy(), clip.padding_mask.numpy(), beam=2, max_len=np.array([5, 6]).tolist()
    )
    assert first == model.beam_search(found, clip.padding_mask, beam=2, max_len=[5, 6])


def test_a_model_is_in_evaluation_mode(model: Model) -> None:
    assert not model.network.training
    assert not any(module.training for module in model.network.modules())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_non_finite_input_value_is_rejected(model: Model, value: float) -> None:
    video = VIDEO.copy()
    video[0, 2, 40, 40] = value
    with pytest.raises(InvalidRequestError, match="video has values that are not finite"):
        model.encode(video=video)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_scores_raise_model_format_error(encoded: dict[str, Tensor], value: float) -> None:
    network = golden.network()
    with torch.no_grad():
        network.decoder.layer_norm.bias[3] = value
    damaged = Model(network, golden.vocabulary())
    with pytest.raises(ModelFormatError, match="not finite: the weights are damaged"):
        damaged.beam_search(encoded["v7"], beam=2, max_len=5)


def test_max_len_is_capped_at_the_decoder_positions(encoded: dict[str, Tensor]) -> None:
    network = copy.deepcopy(golden.network())
    object.__setattr__(
        network, "config", type(network.config)(**{**network.config.to_dict(), "max_target_size": 5})
    )
    model = Model(network, golden.vocabulary())
    found = model.beam_search(encoded["v60"], beam=3, max_len=1000)[0]
    assert max(len(hypothesis.tokens) for hypothesis in found) <= 5


def test_a_beam_wider_than_the_vocabulary_is_supported(model: Model, encoded: dict[str, Tensor]) -> None:
    found = model.beam_search(encoded["v7"], beam=60, max_len=3)[0]
    assert len(found) == 60
    assert len({tuple(hypothesis.tokens) for hypothesis in found}) == 60
    assert all(1 not in hypothesis.tokens for hypothesis in found)
    assert [hypothesis.score for hypothesis in found] == sorted(
        (hypothesis.score for hypothesis in found), reverse=True
    )


def test_beam_search_with_max_len_one_is_exhaustive(model: Model, encoded: dict[str, Tensor]) -> None:
    # All possible hypotheses can be enumerated: 37 tokens except <pad> and </s>.
    found = model.beam_search(encoded["v7"], beam=60, max_len=1)[0]
    assert len(found) == 35
    first = model.logits(encoded["v7"], None, torch.tensor([[2]]))[0, 0].log_softmax(-1)
    for hypothesis in found:
        token, end = hypothesis.tokens
        last = model.logits(encoded["v7"], None, torch.tensor([[2, token]]))[0, 1].log_softmax(-1)
        assert end == 2
        assert hypothesis.score == pytest.approx(float(first[token] + last[2]) / 2, abs=1e-4)


def test_aligned_words_have_the_text_and_ordered_timestamps(model: Model, encoded: dict[str, Tensor]) -> None:
    for name in ("v1", "a7", "av25", "v60"):
        frames = encoded[name].shape[1]
        for hypothesis in model.beam_search(encoded[name], beam=3, max_len=30)[0]:
            words = model.align_words(encoded[name][0], hypothesis)
            assert " ".join(word.text for word in words) == " ".join(hypothesis.text.split())
            times = [time for word in words for time in (word.start_s, word.end_s)]
            assert times == sorted(times)
            assert all(0 <= time <= frames * 0.04 + 1e-9 for time in times)
            assert all(0 <= word.confidence <= 1 for word in words)


def test_configured_alignment_heads_are_averaged(encoded: dict[str, Tensor]) -> None:
    tokens = golden.array("v25", "prev_output_tokens")
    assert tokens is not None
    averages = []
    for heads in (((0, 1),), ((1, 2),), ((1, 2), (0, 1))):
        network = golden.network()
        network.decoder.alignment_heads = heads
        with torch.inference_mode():
            logits, weights = network.decode_with_attention(encoded["v25"], None, tokens)
        golden.assert_close(logits, golden.array("v25", "logits"))
        torch.testing.assert_close(weights.sum(-1), torch.ones(1, 10), atol=1e-5, rtol=0)
        averages.append(weights)
    torch.testing.assert_close(averages[2], (averages[0] + averages[1]) / 2)
    assert not torch.allclose(averages[0], averages[1], atol=1e-3)
