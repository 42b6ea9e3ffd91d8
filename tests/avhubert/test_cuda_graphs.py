"""Steps in fixed shapes are only replayed as a graph where that gives the same; without a GPU the graph is played."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import pytest
import torch

from gorggle_server.avhubert.beam_search import BeamSearch
from gorggle_server.avhubert.cuda_graphs import CudaGraphRunner
from gorggle_server.avhubert.decoder import Decoder
from tests.avhubert.test_beam_search import WIDTH, random_decoder


class PlayedGraph:
    """What is recorded is the step's tensors; a replay changes nothing in them."""

    replays = 0

    def replay(self) -> None:
        PlayedGraph.replays += 1


@contextlib.contextmanager
def recording(graph: PlayedGraph) -> Iterator[None]:
    yield


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "CUDAGraph", PlayedGraph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(PlayedGraph, "replays", 0)


def begun(decoder: Decoder) -> tuple[BeamSearch, CudaGraphRunner]:
    decoder.use_cuda_graphs = True
    search = BeamSearch(decoder, beam=3, length_penalty=1.0)
    search.add(["clip"], torch.randn(1, 30, WIDTH), [30], [40])
    search.step()
    steps = search._cache.graph_runner
    assert steps is not None
    return search, steps


@torch.inference_mode()
def expected(steps: CudaGraphRunner) -> torch.Tensor:
    assert steps._view is not None
    return steps._step(steps._view.tokens, steps._view.positions, steps._view)


@torch.inference_mode()
@pytest.mark.usefixtures("played")
def test_a_graph_with_the_same_result_is_replayed() -> None:
    search, steps = begun(random_decoder(0))
    assert steps._view is not None
    steps._capture(steps._view, expected(steps)[:1])
    assert PlayedGraph.replays == 1
    search.step()
    assert PlayedGraph.replays == 2
    # It belongs to the tensors that it was recorded with.
    search.add(["another", "third"], torch.randn(2, 90, WIDTH), [90, 90], [4, 4])
    search.step()
    assert PlayedGraph.replays == 2


@torch.inference_mode()
@pytest.mark.usefixtures("played")
def test_a_graph_with_another_result_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    search, steps = begun(random_decoder(0))
    assert steps._view is not None
    with caplog.at_level(logging.WARNING):
        steps._capture(steps._view, expected(steps)[:1] + 1)
    assert "a replay differed by" in caplog.text
    search.step()
    assert PlayedGraph.replays == 1


@torch.inference_mode()
def test_the_search_continues_if_the_capture_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing() -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", failing)
    search, steps = begun(random_decoder(0))
    assert steps._view is not None
    with caplog.at_level(logging.WARNING):
        steps._capture(steps._view, expected(steps)[:1])
    assert "the capture failed" in caplog.text
    while search.keys:
        found = search.step()
    assert found["clip"]
