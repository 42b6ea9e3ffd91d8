"""CUDA graphs: capture, verification and fallback, tested without a GPU with a fake graph."""

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


class FakeCudaGraph:
    """Counts replays; a replay leaves all tensors unchanged."""

    replays = 0

    def replay(self) -> None:
        FakeCudaGraph.replays += 1


@contextlib.contextmanager
def fake_capture(graph: FakeCudaGraph) -> Iterator[None]:
    yield


@pytest.fixture
def fake_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeCudaGraph)
    monkeypatch.setattr(torch.cuda, "graph", fake_capture)
    monkeypatch.setattr(FakeCudaGraph, "replays", 0)


def start_search(decoder: Decoder) -> tuple[BeamSearch, CudaGraphRunner]:
    decoder.use_cuda_graphs = True
    search = BeamSearch(decoder, beam=3, length_penalty=1.0)
    search.add(["clip"], torch.randn(1, 30, WIDTH), [40])
    search.step()
    runner = search._cache.graph_runner
    assert runner is not None
    return search, runner


@torch.inference_mode()
def compute_logits(runner: CudaGraphRunner) -> torch.Tensor:
    assert runner._view is not None
    return runner._step(runner._view.tokens, runner._view.positions, runner._view)


@torch.inference_mode()
@pytest.mark.usefixtures("fake_graphs")
def test_a_graph_with_the_same_result_is_replayed() -> None:
    search, runner = start_search(random_decoder(0))
    assert runner._view is not None
    runner._capture(runner._view, compute_logits(runner)[:1])
    assert FakeCudaGraph.replays == 1
    search.step()
    assert FakeCudaGraph.replays == 2
    # A graph is valid only for the tensors with which it was captured.
    search.add(["another", "third"], torch.randn(2, 90, WIDTH), [4, 4])
    search.step()
    assert FakeCudaGraph.replays == 2


@torch.inference_mode()
@pytest.mark.usefixtures("fake_graphs")
def test_a_graph_with_a_different_result_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    search, runner = start_search(random_decoder(0))
    assert runner._view is not None
    with caplog.at_level(logging.WARNING):
        runner._capture(runner._view, compute_logits(runner)[:1] + 1)
    assert "a replay differed by" in caplog.text
    search.step()
    assert FakeCudaGraph.replays == 1


@torch.inference_mode()
def test_the_search_continues_if_the_capture_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def raise_capture_error() -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", raise_capture_error)
    search, runner = start_search(random_decoder(0))
    assert runner._view is not None
    with caplog.at_level(logging.WARNING):
        runner._capture(runner._view, compute_logits(runner)[:1])
    assert "the capture failed" in caplog.text
    while search.keys:
        found = search.step()
    assert found["clip"]
