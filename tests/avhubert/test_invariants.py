"""What must hold for every model, whatever its weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gorggle_server.avhubert.config import EOS
from gorggle_server.avhubert.model import Model
from tests.avhubert import golden


def padded(array: Tensor, frames: int, filling: float) -> Tensor:
    rest = torch.full((1, frames - array.shape[1], *array.shape[2:]), filling)
    return torch.cat((array, rest), dim=1)


@pytest.mark.parametrize("filling", [0.0, 7.5])
@pytest.mark.parametrize("name", ["v7", "a7", "av25"])
def test_padding_changes_nothing(model: Model, encoded: dict[str, Tensor], name: str, filling: float) -> None:
    clip, frames = golden.clip(name), encoded[name].shape[1]
    video = None if clip.video is None else padded(clip.video, frames + 9, filling)
    audio = None if clip.audio is None else padded(clip.audio, frames + 9, filling)
    mask = torch.arange(frames + 9)[None] >= frames
    with_padding = model.encode(video, audio, mask)
    torch.testing.assert_close(with_padding[:, :frames], encoded[name], atol=1e-5, rtol=0)
    alone = model.beam_search(encoded[name], beam=4, max_len=12)[0]
    together = model.beam_search(with_padding, mask, beam=4, max_len=12)[0]
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    assert [one.score for one in together] == pytest.approx([one.score for one in alone], abs=1e-4)


def test_a_batch_equals_its_singles(model: Model, encoded: dict[str, Tensor]) -> None:
    names = ["av7", "av25", "av60", "av1"]
    longest = 60
    clips = [golden.clip(name) for name in names]
    lengths = torch.tensor([encoded[name].shape[1] for name in names])
    mask = torch.arange(longest)[None] >= lengths[:, None]
    video = torch.cat([padded(clip.video, longest, 0.0) for clip in clips if clip.video is not None])
    audio = torch.cat([padded(clip.audio, longest, 0.0) for clip in clips if clip.audio is not None])
    batch = model.encode(video, audio, mask)
    # A limit for each: sentences end at different steps and leave the batch one by one.
    limits = [3, 9, 20, 6]
    found = model.beam_search(batch, mask, beam=3, max_len=limits)
    for row, (name, limit) in enumerate(zip(names, limits, strict=True)):
        torch.testing.assert_close(batch[row, : lengths[row]], encoded[name][0], atol=1e-5, rtol=0)
        alone = model.beam_search(encoded[name], beam=3, max_len=limit)[0]
        assert [one.tokens for one in found[row]] == [one.tokens for one in alone]
        assert [one.score for one in found[row]] == pytest.approx([one.score for one in alone], abs=1e-4)


@pytest.mark.parametrize("name", ["v7", "a25", "av60"])
def test_a_beam_of_one_is_greedy(model: Model, encoded: dict[str, Tensor], name: str) -> None:
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


def test_cached_steps_equal_teacher_forcing(model: Model, encoded: dict[str, Tensor]) -> None:
    tokens = golden.array("batch2", "prev_output_tokens")
    assert tokens is not None
    mask = golden.clip("batch2").padding_mask
    whole = model.logits(encoded["batch2"], mask, tokens)
    decoder = model.network.decoder
    with torch.inference_mode():
        cache = decoder.create_cache(1)
        decoder.prefill(encoded["batch2"], lengths_of(mask), cache)
        stepwise = torch.cat([decoder.step(column[:, None], cache) for column in tokens.unbind(1)], dim=1)
    torch.testing.assert_close(stepwise, whole, atol=2e-5, rtol=0)


def lengths_of(mask: Tensor | None) -> list[int]:
    assert mask is not None
    lengths: list[int] = (~mask).sum(1).tolist()
    return lengths


def test_neither_sources_nor_units_move_when_hypotheses_are_reordered(
    model: Model, encoded: dict[str, Tensor]
) -> None:
    decoder = model.network.decoder
    with torch.inference_mode():
        cache = decoder.create_cache(3)
        decoder.prefill(encoded["batch2"], lengths_of(golden.clip("batch2").padding_mask), cache)
        decoder.step(torch.full((2, 3), EOS), cache)
        before = cache.source.clone(), cache.past.clone(), cache.source.data_ptr(), cache.past.data_ptr()
        cache.reorder(torch.tensor([[1, 1, 0], [2, 0, 0]]))
    assert torch.equal(cache.source, before[0])
    assert torch.equal(cache.past, before[1])
    assert (cache.source.data_ptr(), cache.past.data_ptr()) == before[2:]
    assert cache.source.shape[2] == 2  # one row a clip, for all three hypotheses


def test_a_mixed_batch_equals_clips_of_one_kind(model: Model, encoded: dict[str, Tensor]) -> None:
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
def test_a_score_is_the_sum_over_the_length_to_the_penalty(
    model: Model, encoded: dict[str, Tensor], penalty: float
) -> None:
    for hypothesis in model.beam_search(encoded["v25"], beam=5, length_penalty=penalty, max_len=10)[0]:
        length = len(hypothesis.tokens)
        assert len(hypothesis.token_scores) == length
        assert hypothesis.score == pytest.approx(sum(hypothesis.token_scores) / length**penalty, abs=1e-4)
