"""Options of a clip or stream, with their defaults, and the default limits of its media."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Modality(enum.Enum):
    """What the words are recognized from."""

    AUDIO_VISUAL = "audio-visual"
    VIDEO_ONLY = "video only"
    AUDIO_ONLY = "audio only"

    @property
    def uses_video(self) -> bool:
        """Whether lip movement is used."""
        return self is not Modality.AUDIO_ONLY

    @property
    def uses_audio(self) -> bool:
        """Whether audio is used."""
        return self is not Modality.VIDEO_ONLY


class AudioInput(enum.Enum):
    """Form in which a model takes audio."""

    FEATURES = "filterbank features"
    WAVEFORM = "waveform"


@dataclass(frozen=True)
class ModelInput:
    """What a model reads: lips (mouth crops) or not, and the form of its audio."""

    uses_lips: bool = True
    audio: AudioInput = AudioInput.FEATURES


@dataclass(frozen=True)
class MediaLimits:
    """Limits on the media that is decoded."""

    max_duration_s: float = 4 * 3600.0
    max_spooled_bytes: int = 2 * 2**30
    max_frame_pixels: int = 4096 * 2304


# Address space of a decoder subprocess, and its maximum time without progress.
DECODER_MEMORY_BYTES, DECODER_TIMEOUT_S = 2 * 2**30, 20.0


@dataclass(frozen=True)
class EndpointingConfig:
    """When utterances begin and end, in seconds; ``threshold`` (0 to 1) is the speech probability above which speech begins."""

    endpoint_silence_s: float = 0.44
    min_speech_s: float = 0.2
    max_utterance_s: float = 20.0
    threshold: float = 0.5


@dataclass(frozen=True)
class RecognitionOptions:
    """Validated options of one clip or stream, with every default filled in.

    Attributes:
        model: name of the model.
        model_input: what the model reads. Without lips, faces only tell who speaks.
        has_open_vocabulary: the model recognizes any words of its languages.
        open_vocabulary_models: other models of the server that do, for this modality.
        audio_model: name of the model that recognizes the audio as well, from its waveform; words are then decided one by
            one between the two models. Empty: none.
        languages: BCP 47 tags of the languages that may be spoken; empty: any of the model's.
        max_alternatives: further hypotheses per segment, besides the best.
        max_speakers: faces tracked at once.
        beam_size: width of the beam search, at least 1.
        length_penalty: exponent of the length that divides a hypothesis' score: below 1 favours shorter texts, above 1
            longer ones, 1 is neutral (as in fairseq).
        start_offset_s: added to every time in the responses.
        silence_timeout_s: the stream ends after this much silence; 0: never.
        live: the media is sent as it is captured, so latency matters.
    """

    model: str
    model_input: ModelInput = field(default_factory=ModelInput)
    has_open_vocabulary: bool = True
    open_vocabulary_models: tuple[str, ...] = ()
    audio_model: str = ""
    modality: Modality = Modality.AUDIO_VISUAL
    languages: tuple[str, ...] = ()
    word_timestamps: bool = True
    max_alternatives: int = 0
    max_speakers: int = 4
    beam_size: int = 5
    length_penalty: float = 1.0
    start_offset_s: float = 0.0
    face_boxes: bool = False
    interim_results: bool = False
    activity_events: bool = False
    silence_timeout_s: float = 0.0
    live: bool = False
    endpointing: EndpointingConfig = field(default_factory=EndpointingConfig)

    def is_doubtful(self, modality: Modality) -> bool:
        """Return whether words recognized from this input may be invented: lips alone, by a model with few words."""
        return modality is Modality.VIDEO_ONLY and not self.has_open_vocabulary
