"""Clips can be added, removed and finish at any step of a running batch without affecting each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gorggle_server.avhubert import sparse_self_attention
from gorggle_server.avhubert.beam_search import BeamSearch, Hypothesis, beam_search
from gorggle_server.avhubert.config import ModelConfig
from gorggle_server.avhubert.decoder import Decoder
from gorggle_server.avhubert.sparse_self_attention import AncestorIndex
from gorggle_server.errors import ModelFormatError

WIDTH, VOCABULARY = 32, 40


def random_decoder(seed: int) -> Decoder:
    """Weights large enough for attention and scores to be far from even."""
    torch.manual_seed(seed)
    decoder = Decoder(ModelConfig(1, WIDTH, 64, 4, 2, WIDTH, 64, 2, VOCABULARY)).eval().requires_grad_(False)
    for weight in decoder.parameters():
        noise = torch.randn_like(weight)
        weight.copy_(1 + 0.2 * noise if weight.dim() == 1 else noise * 1.7 * weight.shape[-1] ** -0.5)
    decoder.embed_tokens.weight[1] = 0
    return decoder


def tokens(hypotheses: list[Hypothesis] | ModelFormatError) -> list[list[int]]:
    assert not isinstance(hypotheses, ModelFormatError)
    return [one.tokens for one in hypotheses]


clips = st.lists(
    st.tuples(st.integers(1, 90), st.integers(1, 45), st.integers(0, 12)), min_size=1, max_size=7
)


@settings(max_examples=40, deadline=None)
@given(
    clips=clips,
    beam=st.sampled_from([1, 2, 5, 11]),
    seed=st.integers(0, 3),
    leaving=st.sets(st.integers(0, 6)),
)
def test_adding_and_removing_clips_does_not_change_results(
    clips: list[tuple[int, int, int]], beam: int, seed: int, leaving: set[int]
) -> None:
    decoder = random_decoder(seed)
    sources = [torch.randn(1, frames, WIDTH) for frames, _, _ in clips]
    expected = [
        beam_search(BeamSearch(decoder, beam=beam, length_penalty=1.0), source, None, limits=[limit])[0]
        for source, (_, limit, _) in zip(sources, clips, strict=True)
    ]
    together = BeamSearch(decoder, beam=beam, length_penalty=1.0)
    found: dict[object, list[Hypothesis] | ModelFormatError] = {}
    for step in range(60):
        for number, (frames, limit, begins) in enumerate(clips):
            if begins == step:
                together.add([number], sources[number], [frames], [limit])
            if number in leaving and begins + 3 == step and number in together.keys:
                together.remove(number)
        if together.keys:
            found.update(together.step())
    assert together.keys == []
    for number, hypotheses in found.items():
        assert isinstance(number, int)
        assert tokens(hypotheses) == tokens(expected[number])
    assert set(range(len(clips))) - set(found) <= leaving


def test_a_clip_that_is_damaged_leaves_the_others_whole() -> None:
    decoder = random_decoder(0)
    good, damaged = torch.randn(1, 20, WIDTH), torch.full((1, 20, WIDTH), float("nan"))
    alone = beam_search(BeamSearch(decoder, beam=4, length_penalty=1.0), good, None, limits=[12])[0]
    together = BeamSearch(decoder, beam=4, length_penalty=1.0)
    together.add(["damaged", "good"], torch.cat((damaged, good)), [20, 20], [12, 12])
    done = together.step()
    assert isinstance(done["damaged"], ModelFormatError)
    # One that takes the place of the damaged one meets nothing of it.
    together.add(["next"], good, [20], [12])
    while together.keys:
        done.update(together.step())
    assert tokens(done["good"]) == tokens(done["next"]) == tokens(alone)


def test_slots_of_abandoned_tokens_are_reused() -> None:
    decoder = random_decoder(1)
    decoder.embed_tokens.weight[2] = 0  # an end that is hardly ever likely
    search = BeamSearch(decoder, beam=5, length_penalty=0.0)
    search.add(["clip"], torch.randn(1, 30, WIDTH), [30], [40])
    most = 0
    while search.keys:
        search.step()
        most = max(most, search._cache.slots)
    # Forty steps of five hypotheses would take 200, were nothing ever freed.
    assert 40 <= most < 160


def test_units_looked_up_one_by_one_give_what_a_product_with_all_slots_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder = random_decoder(2)
    sources = [torch.randn(1, frames, WIDTH) for frames in (40, 25, 60)]

    def read() -> list[list[Hypothesis]]:
        together = BeamSearch(decoder, beam=11, length_penalty=1.0)
        found: dict[object, list[Hypothesis]] = {}
        for step in range(40):
            if step % 4 == 0 and step < 12:  # each at a step of its own
                together.add([step], sources[step // 4], [sources[step // 4].shape[1]], [20])
            for key, hypotheses in together.step().items() if together.keys else ():
                assert not isinstance(hypotheses, ModelFormatError)
                found[key] = hypotheses
        return [found[key] for key in (0, 4, 8)]

    made: list[AncestorIndex] = []
    original = AncestorIndex.__init__

    def counted(self: AncestorIndex, *arguments: Any) -> None:
        made.append(self)
        original(self, *arguments)

    monkeypatch.setattr(AncestorIndex, "__init__", counted)
    monkeypatch.setattr(sparse_self_attention, "_SLOTS_PER_TOKEN", 0)
    one_by_one = read()
    assert len(made) >= 28
    monkeypatch.setattr(sparse_self_attention, "_SLOTS_PER_TOKEN", 10**9)
    made.clear()
    with_all = read()
    assert made == []
    for found, expected in zip(one_by_one, with_all, strict=True):
        assert tokens(found) == tokens(expected)
        assert [one.score for one in found] == pytest.approx([one.score for one in expected], abs=1e-4)


def test_another_version_of_torch_without_the_product_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sparse_self_attention._supports_products()
    sparse_self_attention._supports_products.cache_clear()
    monkeypatch.setattr(sparse_self_attention, "_compute_products", lambda *_: torch.zeros(3))
    try:
        assert not sparse_self_attention._supports_products()
    finally:
        sparse_self_attention._supports_products.cache_clear()


@settings(max_examples=15, deadline=None)
@given(clips=clips, beam=st.sampled_from([1, 3, 7]), seed=st.integers(0, 3))
def test_steps_with_static_shapes_yield_the_same(
    clips: list[tuple[int, int, int]], beam: int, seed: int
) -> None:
    decoder = random_decoder(seed)
    sources = [torch.randn(1, frames, WIDTH) for frames, _, _ in clips]

    def read() -> dict[object, list[Hypothesis] | ModelFormatError]:
        search, found = BeamSearch(decoder, beam=beam, length_penalty=1.0), {}
        for step in range(60):
            for number, (frames, limit, begins) in enumerate(clips):
                if begins == step:
                    search.add([number], sources[number], [frames], [limit])
            if search.keys:
                found.update(search.step())
        return found

    expected = read()
    decoder.use_cuda_graphs = True
    found = read()
    assert found.keys() == expected.keys()
    for number, hypotheses in found.items():
        assert tokens(hypotheses) == tokens(expected[number])


def test_a_step_in_fixed_shapes_uses_the_same_tensors_until_the_cache_grows() -> None:
    decoder = random_decoder(1)
    decoder.use_cuda_graphs = True
    search = BeamSearch(decoder, beam=2, length_penalty=1.0)
    search.add(["first"], torch.randn(1, 30, WIDTH), [30], [9])
    search.step()
    steps = search._cache.graph_runner
    assert steps is not None
    view = steps._view
    search.step()
    assert steps._view is view
    search.add(["second", "third"], torch.randn(2, 90, WIDTH), [90, 40], [9, 9])
    search.step()
    assert steps._view is not view
