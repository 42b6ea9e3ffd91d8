"""Recognize waveforms with Moonshine: encode, greedy search, word timestamps."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gorggle_server.errors import ModelFormatError
from gorggle_server.events import Hypothesis, Word
from gorggle_server.inference.interface import DecodingOptions, InferenceInput, ModelDescription, transcribe
from gorggle_server.input_format import SAMPLE_RATE_HZ
from gorggle_server.moonshine import GreedyDecoding, LetterModel, LetterTextScorer, Model, align_words
from gorggle_server.recognition_options import AudioInput, Modality, ModelInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

DESCRIPTION = ModelDescription(
    architecture="moonshine",
    parameter_count=27_100_000,  # as published, rounded
    encoder_layers=6,
    encoder_width=288,
    decoder_layers=6,
    decoder_width=288,
    vocabulary_size=32_768,
    model_input=ModelInput(uses_lips=False, audio=AudioInput.WAVEFORM),
    modalities=(Modality.AUDIO_ONLY,),
    has_open_vocabulary=True,
    has_punctuation=True,
    languages=("en",),
    card={
        "description": "Moonshine tiny, quantized to 8 bits: open English speech from audio, with capitals and punctuation.",
        "vocabulary": "open: any English words",
        "trained_on": "about 200,000 hours of English speech, by the authors of Moonshine; word timestamps: 964 clips of "
        "the GRID corpus and espeak-ng's speech",
        "license": {
            "name": "MIT",
            "url": "https://github.com/moonshine-ai/moonshine/blob/main/LICENSE",
            "commercial_use": True,
            "summary": "Weights from the package moonshine-voice 0.1.0. Word timestamps learned from the GRID corpus "
            "(CC BY 4.0).",
        },
    },
)

_COST_SECONDS, _COST_TOKENS = 2, 8


@dataclass(frozen=True, eq=False)
class EncodedSpeech:
    """Encoder output (T, 288) of a waveform of ``duration_s``."""

    hidden: NDArray[np.float32]
    duration_s: float


class MoonshineRecognizer:
    """Recognizes windows with a waveform; see ``interface.SpeechRecognizer``.

    Windows advance together, one token per step each, but are computed one by one (see ``moonshine.Model``).
    """

    def __init__(self, folder: Path, num_threads: int = 1) -> None:
        """Prepare to load the model in ``folder`` when it is first used; see ``moonshine.Model``."""
        self._folder, self._num_threads = folder, num_threads

    @functools.cached_property
    def _model(self) -> Model:
        return Model(self._folder, self._num_threads)

    @functools.cached_property
    def _letter_model(self) -> LetterModel:
        return LetterModel.load()

    def encode(self, windows: Sequence[InferenceInput]) -> list[EncodedSpeech | ModelFormatError]:
        """Encode windows; see ``interface.SpeechRecognizer``."""
        return [self._encode_window(window) for window in windows]

    def _encode_window(self, window: InferenceInput) -> EncodedSpeech | ModelFormatError:
        assert window.waveform is not None, "the session creates the input that the model takes"
        hidden = self._model.encode(window.waveform)
        if not np.isfinite(hidden).all():
            return ModelFormatError("the encoder's output is not finite: its weights are damaged")
        return EncodedSpeech(hidden, len(window.waveform) / SAMPLE_RATE_HZ)

    def start_decoding(self, options: DecodingOptions) -> MoonshineDecodingBatch:
        """Return an empty batch."""
        return MoonshineDecodingBatch(self._model, self._letter_model, options)

    def release_memory(self) -> None:
        """Do nothing: the model has no device memory."""

    def measure_cost(self) -> float:
        """Measure seconds per second of media, on two seconds with as many tokens as in speech.

        Returns the minimum of several runs: on a busy machine a single run may take many times as long.
        """
        waveform = np.zeros(_COST_SECONDS * SAMPLE_RATE_HZ, np.int16)
        taken_s = []
        for _ in range(3):
            began = time.perf_counter()
            decoding = self._model.start_decoding(self._model.encode(waveform))
            for _ in range(_COST_TOKENS):
                decoding.step()
            taken_s.append(time.perf_counter() - began)
        return min(taken_s) / _COST_SECONDS

    def warm_up(self) -> None:
        """Load the model and run it once."""
        one_second = InferenceInput(None, None, np.zeros(SAMPLE_RATE_HZ, np.int16))
        transcribe(self, [one_second], DecodingOptions(1, 1.0, 0, word_timestamps=True))


class MoonshineDecodingBatch:
    """Encoded windows being decoded together; see ``interface.DecodingBatch``."""

    def __init__(self, model: Model, letter_model: LetterModel, options: DecodingOptions) -> None:
        self._model, self._letter_model, self._options = model, letter_model, options
        self._running: dict[Hashable, tuple[EncodedSpeech, GreedyDecoding]] = {}

    def add(self, keys: Sequence[Hashable], encoded: Sequence[Any]) -> None:
        """Add encoded windows under the caller's keys."""
        for key, speech in zip(keys, encoded, strict=True):
            self._running[key] = speech, self._model.start_decoding(speech.hidden)

    def remove(self, key: Hashable) -> None:
        """Remove a window in the middle of its search."""
        del self._running[key]

    def step(self) -> dict[Hashable, list[Hypothesis] | ModelFormatError]:
        """Find one token of each window; see ``interface.DecodingBatch``."""
        results: dict[Hashable, list[Hypothesis] | ModelFormatError] = {}
        for key, (speech, decoding) in self._running.items():
            try:
                decoding.step()
            except ModelFormatError as error:
                results[key] = error
                continue
            if decoding.is_finished:
                results[key] = [self._to_hypothesis(speech, decoding)]
        for key in results:
            del self._running[key]
        return results

    def _to_hypothesis(self, speech: EncodedSpeech, decoding: GreedyDecoding) -> Hypothesis:
        words = self._model.vocabulary.split_words(decoding.tokens)
        hypothesis = Hypothesis(
            " ".join(word.text for word in words),
            _geometric_mean(decoding.scores),
            is_loop_removed=decoding.is_loop_removed,
            log_probability=sum(decoding.scores),
        )
        if not self._options.word_timestamps:
            return hypothesis
        scores = self._letter_model.compute_scores(speech.hidden)
        times = align_words(scores, [word.text for word in words], speech.duration_s)
        return replace(
            hypothesis,
            words=tuple(
                Word(word.text, start_s, end_s, _geometric_mean(decoding.scores[word.first : word.end]))
                for word, (start_s, end_s) in zip(words, times, strict=True)
            ),
            text_scorer=LetterTextScorer(scores),
        )


def _geometric_mean(log_probabilities: Sequence[float]) -> float:
    return math.exp(sum(log_probabilities) / len(log_probabilities)) if log_probabilities else 0.0
