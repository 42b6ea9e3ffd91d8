"""Recognize waveforms with Whisper: spectrogram, language, beam search, word timestamps."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gorggle_server.errors import InvalidRequestError, ModelFormatError
from gorggle_server.events import Hypothesis, Word
from gorggle_server.inference.interface import DecodingOptions, InferenceInput, ModelDescription, transcribe
from gorggle_server.input_format import SAMPLE_RATE_HZ
from gorggle_server.model_catalogue.catalogue import CatalogueModel
from gorggle_server.recognition_options import AudioInput, Modality, ModelInput, RecognitionOptions
from gorggle_server.repetition import remove_loops
from gorggle_server.whisper import (
    Dimensions,
    Model,
    SearchOptions,
    Transcription,
    measure_loudness,
    time_words,
    trim_silence,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Speech of scripts whose characters take several tokens has more of them than English, which has at most 10.
MAX_TOKENS_PER_SECOND = 25
MIN_TOKEN_LIMIT = 16
# The authors' thresholds: both must be exceeded, for the first alone rejects quiet speech.
MAX_NO_SPEECH_PROBABILITY, MIN_MEAN_LOG_PROBABILITY = 0.6, -1.0
# Windows in one call of the network. Each takes the memory of 30 s, however short it is.
MAX_BATCH = 8

_COST_SECONDS, _COST_TOKENS = 2, 8


@dataclass(frozen=True, eq=False)
class SpeechFeatures:
    """Spectrogram (mels, 3000) of a waveform of ``duration_s``, and its ``loudness`` from ``measure_loudness``."""

    spectrogram: NDArray[np.float32]
    loudness: NDArray[np.float64]
    duration_s: float


class WhisperRecognizer:
    """Recognizes windows with a waveform; see ``interface.SpeechRecognizer``.

    ``word_time_shift_s`` corrects a known bias of the model's word times.
    """

    def __init__(self, model: Model, word_time_shift_s: float = 0.0) -> None:
        self.model, self._word_time_shift_s = model, word_time_shift_s

    def encode(self, windows: Sequence[InferenceInput]) -> list[SpeechFeatures | ModelFormatError]:
        """Compute the windows' spectrograms. The network's encoder runs with the search (see ``WhisperDecodingBatch``).

        Raises:
            InvalidRequestError: a window lasts more than 30 s.
        """
        return [self._compute_features(window) for window in windows]

    def _compute_features(self, window: InferenceInput) -> SpeechFeatures:
        assert window.waveform is not None, "the session creates the input that the model takes"
        return SpeechFeatures(
            self.model.compute_features(window.waveform),
            measure_loudness(window.waveform),
            len(window.waveform) / SAMPLE_RATE_HZ,
        )

    def start_decoding(self, options: DecodingOptions) -> WhisperDecodingBatch:
        """Return an empty batch."""
        return WhisperDecodingBatch(self.model, options, self._word_time_shift_s)

    def release_memory(self) -> None:
        """Do nothing: CTranslate2 keeps its memory for the next batch."""

    def measure_cost(self) -> float:
        """Measure device seconds per second of media, on two seconds with as many tokens as in speech.

        Returns the minimum of several runs: on a busy machine a single run may take many times as long.
        """
        features = self.model.compute_features(np.zeros(_COST_SECONDS * SAMPLE_RATE_HZ, np.int16))
        search = SearchOptions(RecognitionOptions.beam_size, 1.0, 1, _COST_TOKENS)
        taken_s = []
        for _ in range(3):
            began = time.perf_counter()
            encoded = self.model.encode([features])
            self.model.search(encoded, self.model.detect_languages(encoded), search)
            taken_s.append(time.perf_counter() - began)
        return min(taken_s) / _COST_SECONDS

    def warm_up(self) -> None:
        """Run the model once.

        Raises:
            InvalidRequestError: the device cannot run it, for instance because a library is missing.
        """
        one_second = InferenceInput(None, None, np.zeros(SAMPLE_RATE_HZ, np.int16))
        try:
            transcribe(self, [one_second], DecodingOptions(1, 1.0, 0, word_timestamps=True))
        except RuntimeError as error:
            raise InvalidRequestError(f"Whisper cannot run on this device: {error}") from error


def describe_whisper(model: Model, dimensions: Dimensions, entry: CatalogueModel | None) -> ModelDescription:
    """Describe a model; ``entry`` is that of an installed model in the catalogue."""
    return ModelDescription(
        architecture="whisper",
        parameter_count=dimensions.parameter_count,
        encoder_layers=dimensions.encoder_layers,
        encoder_width=dimensions.encoder_width,
        decoder_layers=dimensions.decoder_layers,
        decoder_width=dimensions.decoder_width,
        vocabulary_size=dimensions.vocabulary_size,
        model_input=ModelInput(uses_lips=False, audio=AudioInput.WAVEFORM),
        modalities=(Modality.AUDIO_ONLY,),
        has_open_vocabulary=True,
        has_punctuation=True,
        languages=model.languages,
        card={
            "description": entry.description if entry else "Whisper: open speech from audio",
            "vocabulary": f"open: any {'words of its languages' if model.is_multilingual else 'English words'}",
            "trained_on": entry.trained_on if entry else "",
            "license": asdict(entry.license) if entry else {},
        },
    )


class WhisperDecodingBatch:
    """Windows being decoded together; see ``interface.DecodingBatch``.

    CTranslate2 searches a batch to its end in one call, so all windows finish with the next step.
    """

    def __init__(self, model: Model, options: DecodingOptions, word_time_shift_s: float) -> None:
        self._model, self._options, self._shift_s = model, options, word_time_shift_s
        self._waiting: dict[Hashable, SpeechFeatures] = {}

    def add(self, keys: Sequence[Hashable], encoded: Sequence[Any]) -> None:
        """Add windows under the caller's keys."""
        self._waiting.update(zip(keys, encoded, strict=True))

    def remove(self, key: Hashable) -> None:
        """Remove a window before its search."""
        del self._waiting[key]

    def step(self) -> dict[Hashable, list[Hypothesis] | ModelFormatError]:
        """Recognize all windows completely; see ``interface.DecodingBatch``."""
        results: dict[Hashable, list[Hypothesis] | ModelFormatError] = {}
        keys = list(self._waiting)
        for first in range(0, len(keys), MAX_BATCH):
            batch = keys[first : first + MAX_BATCH]
            recognized = self._recognize([self._waiting[key] for key in batch])
            results.update(zip(batch, recognized, strict=True))
        self._waiting.clear()
        return results

    def _recognize(self, windows: Sequence[SpeechFeatures]) -> list[list[Hypothesis] | ModelFormatError]:
        encoded = self._model.encode([window.spectrogram for window in windows])
        languages = self._model.detect_languages(encoded, self._options.languages)
        found = self._model.search(encoded, languages, self._create_search(windows))
        texts = [[] if isinstance(result, ModelFormatError) else _list_texts(result) for result in found]
        hypotheses: list[list[Hypothesis]] = [[] for _ in windows]
        # The best hypotheses of all windows are aligned together, then the second ones, and so on.
        for rank in range(max(map(len, texts))):
            ranked = [each[rank] if rank < len(each) else _NO_TEXT for each in texts]
            for row, hypothesis in self._time(encoded, languages, ranked, windows):
                hypotheses[row].append(hypothesis)
        return [
            result if isinstance(result, ModelFormatError) else _deduplicate(own, self._options)
            for result, own in zip(found, hypotheses, strict=True)
        ]

    def _create_search(self, windows: Sequence[SpeechFeatures]) -> SearchOptions:
        longest_s = max(window.duration_s for window in windows)
        return SearchOptions(
            beam_size=self._options.beam_size,
            length_penalty=self._options.length_penalty,
            num_hypotheses=1 + self._options.max_alternatives,
            max_tokens=MIN_TOKEN_LIMIT + math.ceil(longest_s * MAX_TOKENS_PER_SECOND),
        )

    def _time(
        self,
        encoded: Any,
        languages: Sequence[str],
        texts: Sequence[_Text],
        windows: Sequence[SpeechFeatures],
    ) -> Iterator[tuple[int, Hypothesis]]:
        """Yield the hypothesis of each window that has a text, with its row in the batch."""
        aligned = None
        if self._options.word_timestamps:
            durations_s = [window.duration_s for window in windows]
            aligned = self._model.align(encoded, languages, [text.tokens for text in texts], durations_s)
        for row, text in enumerate(texts):
            if text is _NO_TEXT:
                continue
            words = self._model.split_words(text.tokens)
            kept = remove_loops([word.text for word in words])
            hypothesis = Hypothesis(
                " ".join(words[index].text for index in kept),
                text.confidence if words else 0.0,
                is_loop_removed=text.is_loop_removed or len(kept) < len(words),
                log_probability=text.log_probability,
            )
            if aligned:
                timed = time_words(words, aligned[row], windows[row].duration_s, self._shift_s)
                timed = trim_silence(timed, windows[row].loudness)
                hypothesis = replace(
                    hypothesis,
                    words=tuple(
                        Word(word.text, word.start_s, word.end_s, word.confidence)
                        for word in (timed[index] for index in kept)
                    ),
                )
            yield row, hypothesis


@dataclass(frozen=True)
class _Text:
    """Tokens of a hypothesis after loops were removed."""

    tokens: tuple[int, ...]
    log_probability: float
    confidence: float
    is_loop_removed: bool


_NO_TEXT = _Text((), 0.0, 0.0, is_loop_removed=False)


def _list_texts(result: Transcription) -> list[_Text]:
    """Return the hypotheses of a window, best first; the best has no tokens if the window has no speech."""
    texts = []
    for tokens, log_probability in zip(result.texts, result.log_probabilities, strict=True):
        mean = log_probability / (len(tokens) + 1)
        is_speech = (
            result.no_speech_probability <= MAX_NO_SPEECH_PROBABILITY or mean >= MIN_MEAN_LOG_PROBABILITY
        )
        kept = remove_loops(tokens) if is_speech else []
        texts.append(
            _Text(
                tuple(tokens[index] for index in kept),
                log_probability,
                math.exp(mean),
                is_loop_removed=is_speech and len(kept) < len(tokens),
            )
        )
    return texts


def _deduplicate(hypotheses: Sequence[Hypothesis], options: DecodingOptions) -> list[Hypothesis]:
    """Return hypotheses with distinct texts; a text without letters or digits, such as "...", is none."""
    distinct: dict[str, Hypothesis] = {}
    for hypothesis in hypotheses:
        has_words = any(map(str.isalnum, hypothesis.text))
        distinct.setdefault(hypothesis.text if has_words else "", hypothesis)
    if "" in distinct:
        distinct[""] = replace(distinct[""], text="", words=(), confidence=0.0)
    return list(distinct.values())[: 1 + options.max_alternatives]
