"""Conformance tests of ``InferenceBackend`` and of the models behind it; the test module of a backend inherits the class.

Results are compared with those of the same windows processed one at a time: optimizations must not change them.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gorggle_server.avhubert import Model
from gorggle_server.errors import NotFoundError
from gorggle_server.events import Hypothesis
from gorggle_server.inference.interface import (
    DecodingOptions,
    InferenceInput,
    SpeechRecognizer,
    transcribe,
)
from gorggle_server.inference.moonshine_recognizer import MoonshineRecognizer
from gorggle_server.inference.recognizer import Recognizer
from gorggle_server.inference.scheduler import InferenceBackend
from gorggle_server.inference.whisper_recognizer import WhisperRecognizer
from gorggle_server.input_format import frames_to_samples
from gorggle_server.model_catalogue.catalogue import find_missing_extra
from gorggle_server.moonshine import find_model_folder
from gorggle_server.recognition_options import Modality
from gorggle_server.whisper import Model as WhisperModel
from gorggle_server.whisper import check_folder
from tests import speech_model
from tests.avhubert import golden
from tests.avhubert.onnx_models import make_onnx_model
from tests.clips import read_demo_audio
from tests.whisper.tiny_model import write_model

MODEL, ONNX_MODEL, SPEECH_MODEL, WHISPER_MODEL = "golden", "golden-onnx", "speech", "whisper"
OPTIONS = (
    DecodingOptions(4, 1.0, 2, True),
    DecodingOptions(1, 1.0, 0, False),
    DecodingOptions(3, 0.5, 0, True),
)
LENGTHS = (1, 6, 25)


def golden_recognizer() -> Recognizer:
    """Return a recognizer for the small golden model."""
    return Recognizer(Model(golden.network(), golden.vocabulary()))


@functools.cache
def onnx_recognizer() -> Recognizer:
    """Return a recognizer for the small golden model, run by onnxruntime."""
    with tempfile.TemporaryDirectory() as folder:
        return Recognizer(make_onnx_model(golden.network(), Path(folder)))


def make_window(frames: int, modality: Modality = Modality.AUDIO_VISUAL, seed: int = 0) -> InferenceInput:
    """Return an inference window of random noise."""
    rng = np.random.default_rng(1000 * seed + frames)
    crops = rng.integers(0, 256, (frames, 96, 96)).astype(np.uint8) if modality.uses_video else None
    return InferenceInput(
        crops, rng.standard_normal((frames, 104)).astype(np.float32) if modality.uses_audio else None
    )


def assert_same_hypotheses(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    """Assert equal words and timestamps, and confidences equal up to floating-point rounding."""
    assert [hypothesis.text for hypothesis in found] == [hypothesis.text for hypothesis in expected]
    for actual, wanted in zip(found, expected, strict=True):
        assert actual.confidence == pytest.approx(wanted.confidence, abs=1e-4)
        assert [(word.text, word.start_s, word.end_s) for word in actual.words] == [
            (word.text, word.start_s, word.end_s) for word in wanted.words
        ]


@functools.cache
def speech_recognizer() -> MoonshineRecognizer:
    """Return the speech model of the package ``moonshine-voice``."""
    return MoonshineRecognizer(find_model_folder())


@functools.cache
def whisper_recognizer() -> WhisperRecognizer:
    """Return a recognizer for a small Whisper model."""
    with tempfile.TemporaryDirectory() as folder:
        return WhisperRecognizer(WhisperModel(check_folder(write_model(Path(folder)))))


@functools.cache
def _demo_audio() -> NDArray[np.int16]:
    return read_demo_audio()


def make_speech_window(frames: int, modality: Modality, seed: int) -> InferenceInput:
    """Return a window of speech."""
    assert modality is Modality.AUDIO_ONLY
    start = 24_000 + 1600 * seed
    return InferenceInput(None, None, _demo_audio()[start : start + frames_to_samples(frames)])


@dataclass(frozen=True)
class Subject:
    """A model under test: its windows, and what it makes of them without batching."""

    create_recognizer: Callable[[], SpeechRecognizer]
    make_window: Callable[[int, Modality, int], InferenceInput]
    modalities: tuple[Modality, ...]

    @functools.cached_property
    def unbatched_results(self) -> dict[tuple[int, Modality, int, int], list[Hypothesis]]:
        """Return the hypotheses of each window when it is transcribed without batching."""
        recognizer = self.create_recognizer()
        return {
            (frames, modality, seed, number): transcribe(
                recognizer, [self.make_window(frames, modality, seed)], search
            )[0]
            for frames, modality, seed, (number, search) in itertools.product(
                LENGTHS, self.modalities, range(1), enumerate(OPTIONS)
            )
        }


SUBJECTS = {
    MODEL: Subject(golden_recognizer, make_window, tuple(Modality)),
    ONNX_MODEL: Subject(onnx_recognizer, make_window, tuple(Modality)),
}
if speech_model.IS_INSTALLED:
    SUBJECTS[SPEECH_MODEL] = Subject(speech_recognizer, make_speech_window, (Modality.AUDIO_ONLY,))
if find_missing_extra("faster-whisper") is None:
    SUBJECTS[WHISPER_MODEL] = Subject(whisper_recognizer, make_speech_window, (Modality.AUDIO_ONLY,))


def create_recognizers() -> dict[str, SpeechRecognizer]:
    """Return the recognizers that a backend under test serves, by name."""
    return {name: subject.create_recognizer() for name, subject in SUBJECTS.items()}


class BackendConformance:
    """Base class of backend tests; subclasses provide a ``backend`` fixture that serves ``create_recognizers()``."""

    @pytest.mark.parametrize("model", SUBJECTS)
    def test_batching_does_not_change_results(self, backend: InferenceBackend, model: str) -> None:
        subject = SUBJECTS[model]
        futures = {
            key: backend.submit(model, subject.make_window(*key[:3]), OPTIONS[key[3]], stream=key[0])
            for key in subject.unbatched_results
        }
        for key, future in futures.items():
            assert_same_hypotheses(future.result(60), subject.unbatched_results[key])

    @settings(
        max_examples=15,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(data=st.data())
    def test_submission_order_and_timing_do_not_change_results(
        self, backend: InferenceBackend, data: st.DataObject
    ) -> None:
        cases = [(model, key) for model, subject in SUBJECTS.items() for key in subject.unbatched_results]
        keys = data.draw(st.lists(st.sampled_from(sorted(cases, key=repr)), min_size=1, max_size=8))
        pauses = data.draw(st.lists(st.sampled_from([0, 0, 0.002, 0.02]), min_size=8, max_size=8))
        futures: list[Future[list[Hypothesis]]] = []
        for number, ((model, key), pause_s) in enumerate(zip(keys, pauses, strict=False)):
            time.sleep(pause_s)
            window = SUBJECTS[model].make_window(*key[:3])
            futures.append(
                backend.submit(model, window, OPTIONS[key[3]], interim=number % 3 == 1, stream=number % 2)
            )
        for (model, key), future in zip(keys, futures, strict=False):
            assert_same_hypotheses(future.result(60), SUBJECTS[model].unbatched_results[key])

    def test_cancelling_a_window_does_not_affect_other_windows(self, backend: InferenceBackend) -> None:
        key = (25, Modality.AUDIO_VISUAL, 0, 0)
        futures = [backend.submit(MODEL, make_window(25), OPTIONS[0], stream=stream) for stream in range(6)]
        futures[0].cancel()
        time.sleep(0.03)  # some windows are being processed by now
        futures[3].cancel()
        kept = [future for future in futures if not future.cancelled()]
        assert kept
        for future in kept:
            assert_same_hypotheses(future.result(60), SUBJECTS[MODEL].unbatched_results[key])

    def test_an_unknown_model_is_rejected_on_submission(self, backend: InferenceBackend) -> None:
        with pytest.raises(NotFoundError, match=MODEL):
            backend.submit("another", make_window(5), OPTIONS[0])

    def test_a_cancelled_window_returns_no_result(self, backend: InferenceBackend) -> None:
        future = backend.submit(MODEL, make_window(40), OPTIONS[0])
        if future.cancel():
            with pytest.raises(CancelledError):
                future.result(5)
        else:  # the backend processed it before the cancellation
            assert future.result(0)
