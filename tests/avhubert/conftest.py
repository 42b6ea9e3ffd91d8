from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gorggle_server.avhubert.model import Model
from tests.avhubert import golden, reference_files


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Run torch on one thread: the arrays of the tests are too small to benefit from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def model() -> Model:
    """Return the golden model, built from its weights without a file."""
    return Model(golden.network(), golden.vocabulary())


@pytest.fixture(scope="session")
def encoded(model: Model) -> dict[str, torch.Tensor]:
    """Return the encoder output of every golden input."""
    clips = {name: golden.clip(name) for name in golden.INPUTS}
    return {name: model.encode(clip.video, clip.audio, clip.padding_mask) for name, clip in clips.items()}


@pytest.fixture(scope="session")
def full_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the complete golden checkpoint in the format of fairseq."""
    path = tmp_path_factory.mktemp("reference") / "whole.pt"
    reference_files.save(reference_files.make_checkpoint(golden.reference_state()), path)
    return path
