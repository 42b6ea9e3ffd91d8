"""Conformance of a minimal backend: the suite requires nothing beyond the ``InferenceBackend`` contract."""

from __future__ import annotations

from collections.abc import Hashable
from concurrent.futures import Future

import pytest

from gorggle_server.errors import NotFoundError
from gorggle_server.events import Hypothesis
from gorggle_server.inference.interface import (
    DecodingOptions,
    InferenceInput,
    SpeechRecognizer,
    transcribe,
)
from gorggle_server.inference.scheduler import InferenceBackend
from tests.server import backend_conformance
from tests.server.backend_conformance import BackendConformance


class SequentialBackend:
    """Transcribes every window synchronously in the calling thread."""

    def __init__(self, recognizers: dict[str, SpeechRecognizer]) -> None:
        self._recognizers = recognizers

    def submit(
        self,
        model: str,
        window: InferenceInput,
        options: DecodingOptions,
        *,
        interim: bool = False,
        stream: Hashable = None,
    ) -> Future[list[Hypothesis]]:
        if model not in self._recognizers:
            raise NotFoundError(f"model {model!r} does not exist; available: {', '.join(self._recognizers)}")
        future: Future[list[Hypothesis]] = Future()
        try:
            future.set_result(transcribe(self._recognizers[model], [window], options)[0])
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture(scope="module")
def backend() -> InferenceBackend:
    return SequentialBackend(backend_conformance.create_recognizers())


class TestSequentialBackend(BackendConformance):
    pass
