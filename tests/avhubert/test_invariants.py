"""Invariants that hold for every model, independent of its weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gorggle_server.avhubert.config import EOS
from gorggle_server.avhubert.model import Model
from tests.avhubert import golden


def pad(array: Tensor, frames: int, fill_value: float) -> Tensor:
    padding = torch.full((1, frames - array.shape[1], *array.shape[2:]), fill_value)
    return torch.cat((array, padding), dim=1)


@pytest.mark.parametrize("fill_value", [0.0, 7.5])
@pytest.mark.parametrize("name", ["v7", "a7", "av25"])
def test_padding_does_not_change_results(
    model: Model, encoded: dict[str, Tensor], name: str, fill_value: float
) -> None:
    clip, frames = golden.clip(name), encoded[name].shape[1]
    video = None if clip.video is None else pad(clip.video, frames + 9, fill_value)
    audio = None if clip.audio is None else pad(clip.audio, frames + 9, fill_value)
    mask = torch.arange(frames + 9)[None] >= frames
    with_padding = model.encode(video, audio, mask)
    torch.testing.assert_close(with_padding[:, :frames], encoded[name], atol=1e-5, rtol=0)
    single = model.beam_search(encoded[name], beam=4, max_len=12)[0]
    batched = model.beam_search(with_padding, mask, beam=4, max_len=12)[0]
    assert [hypothesis.tokens for hypothesis in batched] == [hypothesis.tokens for hypothesis in single]
    assert [hypothesis.score for hypothesis in batched] == pytest.approx(
        [hypothesis.score for hypothesis in single], abs=1e-4
    )


def test_batching_does_not_change_results(model: Model, encoded: dict[str, Tensor]) -> None:
    names = ["av7", "av25", "av60", "av1"]
    longest = 60
    clips = [golden.clip(name) for name in names]
    lengths = torch.tensor([encoded[name].shape[1] for name in names])
    mask = torch.arange(longest)[None] >= lengths[:, None]
    video = torch.cat([pad(clip.video, longest, 0.0) for clip in clips if clip.video is not None])
    audio = torch.cat([pad(clip.audio, longest, 0.0) for clip in clips if clip.audio is not None])
    batch = model.encode(video, audio, mask)
    # Different limits, so that the clips leave the batch at different steps.
    limits = [3, 9, 20, 6]
    found = model.beam_search(batch, mask, beam=3, max_len=limits)
    for row, (name, limit) in enumerate(zip(names, limits, strict=True)):
        torch.testing.assert_close(batch[row, : lengths[row]], encoded[name][0], atol=1e-5, rtol=0)
        single = model.beam_search(encoded[name], beam=3, max_len=limit)[0]
        assert [hypothesis.tokens for hypothesis in found[row]] == [
            hypothesis.tokens for hypothesis in single
        ]
        assert [hypothesis.score for hypothesis in found[row]] == pytest.approx(
            [hypothesis.score for hypothesis in single], abs=1e-4
        )


@pytest.mark.parametrize("name", ["v7", "a25", "av60"])
def test_a_beam_of_one_is_greedy_search(model: Model, encoded: dict[str, Tensor], name: str) -> None:
    limit = 15
    tokens = [EOS]
    for step in range(limit + 1):
        scores = model.logits(encoded[name], None, torch.tensor([tokens]))[0, -1].log_softmax(-1)
        scores[1] = -math.inf
        if step == 0:
            scores[EOS] = -math.inf
        tokens.append(EOS if step == limit else int(scores.argmax()))
        if tokens[-1] == EOS:
            break
    assert model.beam_search(encoded[name], beam=1, max_len=limit)[0][0].tokens == tokens[1:]


def test_incremental_decoding_equals_teacher_forcing(model: Model, encoded: dict[str, Tensor]) -> None:
    tokens = golden.array("batch2", "prev_output_tokens")
    assert tokens is not None
    mask = golden.clip("batch2").padding_mask
    expected = model.logits(encoded["batch2"], mask, tokens)
    decoder = model.network.decoder
    with torch.inference_mode():
        cache = decoder.create_cache(1)
        decoder.prefill(split_clips(encoded["batch2"], mask), cache)
        stepwise = torch.cat([decoder.step(column[:, None], cache) for column in tokens.unbind(1)], dim=1)
    torch.testing.assert_close(stepwise, expected, atol=2e-5, rtol=0)


def split_clips(encoder_out: Tensor, mask: Tensor | None) -> list[Tensor]:
    assert mask is not None
    lengths = (~mask).sum(1).tolist()
    return [clip[:length] for clip, length in zip(encoder_out, lengths, strict=True)]


def test_reordering_hypotheses_does_not_copy_the_cache(model: Model, encoded: dict[str, Tensor]) -> None:
    decoder = model.network.decoder
    with torch.inference_mode():
        cache = decoder.create_cache(3)
        decoder.prefill(split_clips(encoded["batch2"], golden.clip("batch2").padding_mask), cache)
        decoder.step(torch.full((2, 3), EOS), cache)
        before = cache.source.clone(), cache.past.clone(), cache.source.data_ptr(), cache.past.data_ptr()
        cache.reorder(np.array([[1, 1, 0], [2, 0, 0]]))
    assert torch.equal(cache.source, before[0])
    assert torch.equal(cache.past, before[1])
    assert (cache.source.data_ptr(), cache.past.data_ptr()) == before[2:]
    assert cache.source.shape[2] == 2  # one row per clip, shared by all three hypotheses


def test_a_batch_of_mixed_modalities_does_not_change_results(
    model: Model, encoded: dict[str, Tensor]
) -> None:
    clip = golden.clip("av7")
    assert clip.video is not None
    assert clip.audio is not None
    video, audio = clip.video.repeat(3, 1, 1, 1), clip.audio.repeat(3, 1, 1)
    mixed = model.encode(
        video,
        audio,
        has_video=torch.tensor([True, False, True]),
        has_audio=torch.tensor([True, True, False]),
    )
    only_audio, only_video = model.encode(None, clip.audio), model.encode(clip.video, None)
    torch.testing.assert_close(mixed[0:1], encoded["av7"], atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed[1:2], only_audio, atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed[2:3], only_video, atol=1e-5, rtol=0)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_scores_are_normalized_by_length_and_penalty(
    model: Model, encoded: dict[str, Tensor], penalty: float
) -> None:
    for hypothesis in model.beam_search(encoded["v25"], beam=5, length_penalty=penalty, max_len=10)[0]:
        length = len(hypothesis.tokens)
        assert len(hypothesis.token_scores) == length
        assert hypothesis.score == pytest.approx(sum(hypothesis.token_scores) / length**penalty, abs=1e-4)
