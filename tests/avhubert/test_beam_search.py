"""Clips can be added, removed and finish at any step of a running batch without affecting each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gorggle_server.avhubert import sparse_self_attention
from gorggle_server.avhubert.beam_search import (
    BeamSearch,
    Hypothesis,
    StepInput,
    beam_search,
    select_candidates,
)
from gorggle_server.avhubert.config import ModelConfig
from gorggle_server.avhubert.decoder import Decoder, _select_on_device
from gorggle_server.avhubert.sparse_self_attention import AncestorIndex
from gorggle_server.errors import ModelFormatError

WIDTH, VOCABULARY = 32, 40


def random_decoder(seed: int) -> Decoder:
    """Return a decoder with weights large enough for non-uniform attention and scores."""
    torch.manual_seed(seed)
    decoder = Decoder(ModelConfig(1, WIDTH, 64, 4, 2, WIDTH, 64, 2, VOCABULARY)).eval().requires_grad_(False)
    for weight in decoder.parameters():
        noise = torch.randn_like(weight)
        weight.copy_(1 + 0.2 * noise if weight.dim() == 1 else noise * 1.7 * weight.shape[-1] ** -0.5)
    decoder.embed_tokens.weight[1] = 0
    return decoder


def get_tokens(hypotheses: list[Hypothesis] | ModelFormatError) -> list[list[int]]:
    assert not isinstance(hypotheses, ModelFormatError)
    return [hypothesis.tokens for hypothesis in hypotheses]


clips = st.lists(
    st.tuples(st.integers(1, 90), st.integers(1, 45), st.integers(0, 12)), min_size=1, max_size=7
)


@settings(max_examples=40, deadline=None)
@given(
    clips=clips,
    beam=st.sampled_from([1, 2, 5, 11]),
    seed=st.integers(0, 3),
    removed=st.sets(st.integers(0, 6)),
)
def test_adding_and_removing_clips_does_not_change_results(
    clips: list[tuple[int, int, int]], beam: int, seed: int, removed: set[int]
) -> None:
    decoder = random_decoder(seed)
    sources = [torch.randn(1, frames, WIDTH) for frames, _, _ in clips]
    expected = [
        beam_search(BeamSearch(decoder, beam=beam, length_penalty=1.0), source, None, limits=[limit])[0]
        for source, (_, limit, _) in zip(sources, clips, strict=True)
    ]
    search = BeamSearch(decoder, beam=beam, length_penalty=1.0)
    found: dict[object, list[Hypothesis] | ModelFormatError] = {}
    for step in range(60):
        for number, (_, limit, start_step) in enumerate(clips):
            if start_step == step:
                search.add([number], sources[number], [limit])
            if number in removed and start_step + 3 == step and number in search.keys:
                search.remove(number)
        if search.keys:
            found.update(search.step())
    assert search.keys == []
    for number, hypotheses in found.items():
        assert isinstance(number, int)
        assert get_tokens(hypotheses) == get_tokens(expected[number])
    assert set(range(len(clips))) - set(found) <= removed


def test_non_finite_input_does_not_affect_other_clips() -> None:
    decoder = random_decoder(0)
    good, damaged = torch.randn(1, 20, WIDTH), torch.full((1, 20, WIDTH), float("nan"))
    alone = beam_search(BeamSearch(decoder, beam=4, length_penalty=1.0), good, None, limits=[12])[0]
    search = BeamSearch(decoder, beam=4, length_penalty=1.0)
    search.add(["damaged", "good"], torch.cat((damaged, good)), [12, 12])
    done = search.step()
    assert isinstance(done["damaged"], ModelFormatError)
    # The slots of the damaged clip are reused without a trace of its values.
    search.add(["next"], good, [12])
    while search.keys:
        done.update(search.step())
    assert get_tokens(done["good"]) == get_tokens(done["next"]) == get_tokens(alone)


def test_slots_of_abandoned_tokens_are_reused() -> None:
    decoder = random_decoder(1)
    decoder.embed_tokens.weight[2] = 0  # makes the end token improbable
    search = BeamSearch(decoder, beam=5, length_penalty=0.0)
    search.add(["clip"], torch.randn(1, 30, WIDTH), [40])
    max_slots = 0
    while search.keys:
        search.step()
        max_slots = max(max_slots, search._cache.table.slots)
    # Without reuse, forty steps of five hypotheses would need 200 slots.
    assert 40 <= max_slots < 160


def test_sparse_and_dense_self_attention_agree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder = random_decoder(2)
    sources = [torch.randn(1, frames, WIDTH) for frames in (40, 25, 60)]

    def decode_clips() -> list[list[Hypothesis]]:
        search = BeamSearch(decoder, beam=11, length_penalty=1.0)
        found: dict[object, list[Hypothesis]] = {}
        for step in range(40):
            if step % 4 == 0 and step < 12:  # the clips start at different steps
                search.add([step], sources[step // 4], [20])
            for key, hypotheses in search.step().items() if search.keys else ():
                assert not isinstance(hypotheses, ModelFormatError)
                found[key] = hypotheses
        return [found[key] for key in (0, 4, 8)]

    created: list[AncestorIndex] = []
    original = AncestorIndex.__init__

    def record_creation(self: AncestorIndex, *arguments: Any) -> None:
        created.append(self)
        original(self, *arguments)

    monkeypatch.setattr(AncestorIndex, "__init__", record_creation)
    monkeypatch.setattr(sparse_self_attention, "_SLOTS_PER_TOKEN", 0)
    sparse = decode_clips()
    assert len(created) >= 28
    monkeypatch.setattr(sparse_self_attention, "_SLOTS_PER_TOKEN", 10**9)
    created.clear()
    dense = decode_clips()
    assert created == []
    for found, expected in zip(sparse, dense, strict=True):
        assert get_tokens(found) == get_tokens(expected)
        assert [hypothesis.score for hypothesis in found] == pytest.approx(
            [hypothesis.score for hypothesis in expected], abs=1e-4
        )


def test_missing_torch_support_for_sparse_products_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sparse_self_attention._supports_products()
    sparse_self_attention._supports_products.cache_clear()
    monkeypatch.setattr(sparse_self_attention, "_compute_products", lambda *_: torch.zeros(3))
    try:
        assert not sparse_self_attention._supports_products()
    finally:
        sparse_self_attention._supports_products.cache_clear()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), clips=st.integers(1, 5), width=st.sampled_from([1, 3, 8]), data=st.data())
def test_candidates_selected_on_a_device_are_those_of_the_host(
    seed: int, clips: int, width: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((clips, width, VOCABULARY)).astype(np.float32)
    flags = st.lists(st.booleans(), min_size=clips, max_size=clips)
    step = StepInput(
        tokens=np.zeros((clips, width), np.int64),
        totals=np.where(rng.random((clips, width)) < 0.2, -np.inf, -rng.random((clips, width))).astype(
            np.float32
        ),
        is_first=np.array(data.draw(flags)),
        is_last=np.array(data.draw(flags)),
    )
    if data.draw(st.booleans()):
        logits[0, 0, 5] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    expected, found = select_candidates(logits, step), _select_on_device(torch.from_numpy(logits), step)
    assert found.is_finite.tolist() == expected.is_finite.tolist()
    for row in np.flatnonzero(expected.is_finite):
        np.testing.assert_allclose(found.scores[row], expected.scores[row], rtol=1e-5)
        # The order of equal scores is not specified, and impossible continuations all have minus infinity.
        possible = expected.scores[row] > -np.inf
        assert found.tokens[row, possible].tolist() == expected.tokens[row, possible].tolist()
        assert found.parents[row, possible].tolist() == expected.parents[row, possible].tolist()


@settings(max_examples=15, deadline=None)
@given(clips=clips, beam=st.sampled_from([1, 3, 7]), seed=st.integers(0, 3))
def test_static_shapes_do_not_change_results(clips: list[tuple[int, int, int]], beam: int, seed: int) -> None:
    decoder = random_decoder(seed)
    sources = [torch.randn(1, frames, WIDTH) for frames, _, _ in clips]

    def decode_clips() -> dict[object, list[Hypothesis] | ModelFormatError]:
        search, found = BeamSearch(decoder, beam=beam, length_penalty=1.0), {}
        for step in range(60):
            for number, (_, limit, start_step) in enumerate(clips):
                if start_step == step:
                    search.add([number], sources[number], [limit])
            if search.keys:
                found.update(search.step())
        return found

    expected = decode_clips()
    decoder.use_cuda_graphs = True
    found = decode_clips()
    assert found.keys() == expected.keys()
    for number, hypotheses in found.items():
        assert get_tokens(hypotheses) == get_tokens(expected[number])


def test_static_tensors_are_reused_until_the_cache_grows() -> None:
    decoder = random_decoder(1)
    decoder.use_cuda_graphs = True
    search = BeamSearch(decoder, beam=2, length_penalty=1.0)
    search.add(["first"], torch.randn(1, 30, WIDTH), [9])
    search.step()
    runner = search._cache.graph_runner
    assert runner is not None
    view = runner._view
    search.step()
    assert runner._view is view
    search.add(["second", "third"], [torch.randn(90, WIDTH), torch.randn(40, WIDTH)], [9, 9])
    search.step()
    assert runner._view is not view
