"""What a model is given: a modality, and the clip's own sound or noise in it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from gorggle.results import Modality
from gorggle_evaluation.manifest import Entry
from gorggle_evaluation.media import Audio, MediaError, read_audio, replace_audio
from gorggle_evaluation.noise import (
    FloatArray,
    Int16Array,
    NoiseKind,
    average_power_spectrum,
    detect_speech,
    generate_noise,
    generate_shaped_noise,
    mix_at_snr,
)

MODALITIES: tuple[Modality, ...] = ("av", "video", "audio")
AUDIO_MODALITIES: tuple[Modality, ...] = ("av", "audio")
MODALITY_NAMES: dict[Modality, str] = {"av": "lips and sound", "video": "lips alone", "audio": "sound alone"}
DEFAULT_SNRS_DB = (-10.0, -5.0, 0.0, 5.0, 10.0, 20.0)

VOICES_IN_BABBLE = 6
# Of each voice in babble, and of each clip in the average spectrum, so much is enough.
MAX_VOICE_S = 60.0
MAX_CLIPS_IN_SPECTRUM = 100
VOICE_CACHE_SIZE = 64


@dataclass(frozen=True)
class NoiseCondition:
    """What is heard besides the speaker: nothing, or a noise at a signal-to-noise ratio."""

    kind: NoiseKind | None = None
    snr_db: float | None = None

    @property
    def name(self) -> str:
        """Such as "babble at 0 dB"."""
        return "clean" if self.kind is None else f"{self.kind.value} at {self.snr_db:g} dB"


@dataclass(frozen=True, eq=False)
class Clip:
    """What is sent: a file, or the bytes of one.

    Attributes:
        offset_s: how much later everything in it comes than the manifest tells.
    """

    source: Path | bytes
    offset_s: float = 0.0


@dataclass(frozen=True)
class Condition:
    """A modality under circumstances."""

    modality: Modality
    noise: NoiseCondition

    @property
    def name(self) -> str:
        """Such as "sound alone, babble at 0 dB"."""
        return f"{MODALITY_NAMES[self.modality]}, {self.noise.name}"


def build_conditions(
    modalities: Sequence[Modality], kinds: Sequence[NoiseKind], snrs_db: Sequence[float]
) -> list[Condition]:
    """Every modality in clean sound, and those that hear in every noise at every ratio."""
    chosen = [modality for modality in MODALITIES if modality in modalities]
    circumstances = [
        NoiseCondition(),
        *(NoiseCondition(kind, snr) for kind in kinds for snr in sorted(snrs_db)),
    ]
    return [
        Condition(modality, around)
        for around in circumstances
        for modality in chosen
        if around.kind is None or modality in AUDIO_MODALITIES
    ]


class NoiseMixer:
    """Makes clips with noise in their sound, the same for every model and modality.

    All is drawn from the seed, the clip's id and the kind of noise. A clip's noise is the same at every ratio, only
    louder or softer.
    """

    def __init__(self, entries: Sequence[Entry], seed: int) -> None:
        """Take noise from these entries.

        Args:
            entries: all of the manifest: babble is made of them, and speech-shaped noise has their average spectrum.
            seed: of all that is drawn.
        """
        self._media = list(dict.fromkeys(entry.media.resolve() for entry in entries))
        self._seed = seed
        self._spectrum = lru_cache(1)(self._compute_spectrum)
        self._voice = lru_cache(VOICE_CACHE_SIZE)(_load_voice)

    @property
    def voices_in_babble(self) -> int:
        """How many other clips babble is made of, where all can be heard."""
        return min(VOICES_IN_BABBLE, len(self._media) - 1)

    def mix(self, entry: Entry, noise: NoiseCondition) -> Clip:
        """The clip's file itself in clean sound; otherwise its pictures with mixed sound, as a Matroska file.

        The signal-to-noise ratio is that of the samples in which somebody speaks (``noise.active``).

        Raises:
            MediaError: it cannot be read, is silent, or nobody else is there to babble.
        """
        if noise.kind is None or noise.snr_db is None:
            return Clip(entry.media)
        sound = read_audio(entry.media)
        speech = detect_speech(sound.waveform)
        if not speech.any():
            raise MediaError(f"{entry.media} is silent: there is nothing to measure the noise against")
        interference = self._generate_noise(entry, noise.kind, len(sound.waveform))
        heard = mix_at_snr(sound.waveform, interference, noise.snr_db, speech)
        made = replace_audio(entry.media, Audio(heard, sound.start_s))
        return Clip(made.content, made.offset_s)

    def _generate_noise(self, entry: Entry, kind: NoiseKind, samples: int) -> FloatArray:
        rng = np.random.default_rng([self._seed, list(NoiseKind).index(kind), zlib.crc32(entry.id.encode())])
        if kind is NoiseKind.SPEECH_SHAPED:
            return generate_shaped_noise(self._spectrum(), samples, rng)
        return generate_noise(
            kind, samples, self._draw_voices(entry, rng) if kind is NoiseKind.BABBLE else (), rng
        )

    def _draw_voices(self, entry: Entry, rng: np.random.Generator) -> list[Int16Array]:
        """Some voices of other clips, in an order of chance; those that cannot be heard are passed over."""
        own = entry.media.resolve()
        others = [media for media in self._media if media != own]
        voices: list[Int16Array] = []
        for place in rng.permutation(len(others)):
            voice = self._voice(others[place])
            if voice is not None:
                voices.append(voice)
            if len(voices) == VOICES_IN_BABBLE:
                break
        if not voices:
            raise MediaError("no other clip of the manifest has sound that could be babble")
        return voices

    def _compute_spectrum(self) -> FloatArray:
        order = np.random.default_rng(self._seed).permutation(len(self._media))
        voices = (self._voice(self._media[place]) for place in order[:MAX_CLIPS_IN_SPECTRUM])
        power = average_power_spectrum(voice for voice in voices if voice is not None)
        if not power.any():
            raise MediaError("no clip of the manifest has sound that noise could be shaped like")
        return power


def _load_voice(media: Path) -> Int16Array | None:
    """What is said in a clip without the pauses; None where nothing can be heard."""
    try:
        waveform = read_audio(media, MAX_VOICE_S).waveform
    except MediaError:
        return None
    spoken = waveform[detect_speech(waveform)]
    return spoken if len(spoken) else None
