"""The interface between the batching scheduler and the models: windows in, hypotheses out.

``tests/server/backend_conformance.py`` specifies the behaviour of every model behind it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from gorggle_server.errors import ModelFormatError
from gorggle_server.events import Hypothesis
from gorggle_server.input_format import SAMPLES_PER_FRAME
from gorggle_server.recognition_options import Modality, ModelInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class InferenceInput:
    """Model input of an utterance: mouth crops, audio, or both, of the same T frames at 25 Hz.

    Attributes:
        crops: uint8 (T, 96, 96), mouth crops; None for audio only.
        features: float32 (T, 104), stacked log mel energies; None for video only and for models that take the waveform.
        waveform: int16 (640 T,), 16 kHz; None if no model takes it. With features only for ``CombinedSubmit``, which gives each
            model its part.
    """

    crops: NDArray[np.uint8] | None
    features: NDArray[np.float32] | None
    waveform: NDArray[np.int16] | None = None

    @property
    def frames(self) -> int:
        """T, the number of frames at 25 Hz."""
        if self.waveform is not None:
            return len(self.waveform) // SAMPLES_PER_FRAME
        present = self.crops if self.crops is not None else self.features
        return 0 if present is None else len(present)

    @property
    def modality(self) -> Modality:
        """Modality of the input."""
        if self.crops is None:
            return Modality.AUDIO_ONLY
        has_audio = self.features is not None or self.waveform is not None
        return Modality.AUDIO_VISUAL if has_audio else Modality.VIDEO_ONLY


@dataclass(frozen=True)
class DecodingOptions:
    """Search options. Only windows with equal options are batched.

    A model that searches greedily ignores the beam size and the length penalty, and has no alternatives. A model of one
    language ignores ``languages``.

    Attributes:
        languages: BCP 47 tags of those that may be spoken; empty: any of the model's.
    """

    beam_size: int
    length_penalty: float
    max_alternatives: int
    word_timestamps: bool
    languages: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelDescription:
    """What a model is and can do.

    Attributes:
        architecture: name of the network architecture, such as "av_hubert".
        parameter_count: number of weights.
        encoder_layers, decoder_layers: numbers of Transformer layers.
        encoder_width, decoder_width: model dimensions.
        vocabulary_size: number of output tokens.
        model_input: what it reads.
        modalities: the modalities it supports.
        has_open_vocabulary: it recognizes any words of its languages, not only those of a task.
        has_punctuation: its text has capitals and punctuation.
        languages: BCP 47 tags; empty if not declared.
        card: texts for people: description, vocabulary, trained_on, error_rates, license.
    """

    architecture: str
    parameter_count: int
    encoder_layers: int
    encoder_width: int
    decoder_layers: int
    decoder_width: int
    vocabulary_size: int
    model_input: ModelInput = field(default_factory=ModelInput)
    modalities: tuple[Modality, ...] = tuple(Modality)
    has_open_vocabulary: bool = False
    has_punctuation: bool = False
    languages: tuple[str, ...] = ()
    card: Mapping[str, Any] = field(default_factory=dict)


class DecodingBatch(Protocol):
    """Encoded windows being decoded together. Windows join and leave between two steps."""

    def add(self, keys: Sequence[Hashable], encoded: Sequence[Any]) -> None:
        """Add encoded windows, of ``SpeechRecognizer.encode``, under the caller's keys."""

    def remove(self, key: Hashable) -> None:
        """Remove a window in the middle of its search."""

    def step(self) -> dict[Hashable, list[Hypothesis] | ModelFormatError]:
        """Run one search step.

        Returns:
            The windows that finished with this step and have left: hypotheses of each, best first, or an error if the
            model's output was not finite. Word timestamps are seconds from the window's first frame.
        """


class SpeechRecognizer(Protocol):
    """Recognizes windows with one model, on the calling thread: encodes them together, then searches step by step."""

    def encode(self, windows: Sequence[InferenceInput]) -> Sequence[Any | ModelFormatError]:
        """Encode windows of one modality; an error stands for a window whose encoder output is not finite."""

    def start_decoding(self, options: DecodingOptions) -> DecodingBatch:
        """Return an empty batch."""

    def release_memory(self) -> None:
        """Release cached device memory."""

    def measure_cost(self) -> float:
        """Measure device seconds per second of media."""

    def warm_up(self) -> None:
        """Run the model once, so that the first caller does not pay for lazy initialization."""


def transcribe(
    recognizer: SpeechRecognizer, windows: Sequence[InferenceInput], options: DecodingOptions
) -> list[list[Hypothesis]]:
    """Recognize windows of one modality completely.

    Returns:
        For each window its hypotheses, best first: one, and up to ``max_alternatives`` more. Word timestamps are seconds from
        the window's first frame.

    Raises:
        ModelFormatError: the model's output is not finite.
    """
    decoding = recognizer.start_decoding(options)
    decoding.add(range(len(windows)), [_raise_on_error(encoded) for encoded in recognizer.encode(windows)])
    results: dict[Hashable, list[Hypothesis]] = {}
    while len(results) < len(windows):
        results.update({key: _raise_on_error(result) for key, result in decoding.step().items()})
    return [results[key] for key in range(len(windows))]


def _raise_on_error(result: T | ModelFormatError) -> T:
    if isinstance(result, ModelFormatError):
        raise result
    return result
