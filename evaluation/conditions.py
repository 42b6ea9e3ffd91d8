"""Measurement conditions: a modality, with clean audio or with noise mixed in."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from gorggle.results import Modality
from gorggle_evaluation.manifest import Entry
from gorggle_evaluation.media import Audio, Clip, MediaError, read_audio, replace_audio
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
MODALITY_NAMES: dict[Modality, str] = {"av": "audio-visual", "video": "video only", "audio": "audio only"}
DEFAULT_SNRS_DB = (-10.0, -5.0, 0.0, 5.0, 10.0, 20.0)

VOICES_IN_BABBLE = 6
# Of each voice used for babble and for the average spectrum.
MAX_VOICE_S = 60.0
MAX_CLIPS_IN_SPECTRUM = 100
VOICE_CACHE_SIZE = 64


@dataclass(frozen=True)
class NoiseCondition:
    """Clean audio (None), or noise at a signal-to-noise ratio."""

    kind: NoiseKind | None = None
    snr_db: float | None = None

    @property
    def name(self) -> str:
        """Return for example "babble at 0 dB"."""
        return "clean" if self.kind is None else f"{self.kind.value} at {self.snr_db:g} dB"


@dataclass(frozen=True)
class Condition:
    """A modality and a noise condition."""

    modality: Modality
    noise: NoiseCondition

    @property
    def name(self) -> str:
        """Return for example "audio only, babble at 0 dB"."""
        return f"{MODALITY_NAMES[self.modality]}, {self.noise.name}"


def build_conditions(
    modalities: Sequence[Modality], kinds: Sequence[NoiseKind], snrs_db: Sequence[float]
) -> list[Condition]:
    """Return every modality with clean audio, and those with audio for every noise and ratio."""
    selected = [modality for modality in MODALITIES if modality in modalities]
    noises = [NoiseCondition(), *(NoiseCondition(kind, snr) for kind in kinds for snr in sorted(snrs_db))]
    return [
        Condition(modality, noise)
        for noise in noises
        for modality in selected
        if noise.kind is None or modality in AUDIO_MODALITIES
    ]


class NoiseMixer:
    """Mixes noise into clips, identically for every model and modality.

    The noise depends on the seed, the clip's id and the noise kind only; between ratios it differs in level only.
    """

    def __init__(self, entries: Sequence[Entry], seed: int) -> None:
        """Use these entries as the source of noise.

        Args:
            entries: the whole manifest: babble consists of them, speech-shaped noise has their average spectrum.
            seed: random seed.
        """
        self._media = list(dict.fromkeys(entry.media.resolve() for entry in entries))
        self._seed = seed
        self._spectrum = lru_cache(1)(self._compute_spectrum)
        self._voice = lru_cache(VOICE_CACHE_SIZE)(_load_voice)

    @property
    def voices_in_babble(self) -> int:
        """Return the number of voices in babble, if all clips have audio."""
        return min(VOICES_IN_BABBLE, len(self._media) - 1)

    def mix(self, entry: Entry, noise: NoiseCondition) -> Clip:
        """Return the clip's own file for clean audio, else its video with noisy audio as a Matroska file.

        The signal-to-noise ratio is measured over active speech (``noise.detect_speech``).

        Raises:
            MediaError: it cannot be decoded, is silent, or no other clip can serve as babble.
        """
        if noise.kind is None or noise.snr_db is None:
            return Clip(entry.media)
        audio = read_audio(entry.media)
        speech = detect_speech(audio.waveform)
        if not speech.any():
            raise MediaError(f"{entry.media} is silent: the signal-to-noise ratio is undefined")
        interference = self._generate_noise(entry, noise.kind, len(audio.waveform))
        mixed = mix_at_snr(audio.waveform, interference, noise.snr_db, speech)
        return replace_audio(entry.media, Audio(mixed, audio.start_s))

    def _generate_noise(self, entry: Entry, kind: NoiseKind, samples: int) -> FloatArray:
        rng = np.random.default_rng([self._seed, list(NoiseKind).index(kind), zlib.crc32(entry.id.encode())])
        if kind is NoiseKind.SPEECH_SHAPED:
            return generate_shaped_noise(self._spectrum(), samples, rng)
        voices = self._draw_voices(entry, rng) if kind is NoiseKind.BABBLE else ()
        return generate_noise(kind, samples, voices, rng)

    def _draw_voices(self, entry: Entry, rng: np.random.Generator) -> list[Int16Array]:
        """Draw voices of other clips in random order, skipping clips without usable audio."""
        own = entry.media.resolve()
        others = [media for media in self._media if media != own]
        voices: list[Int16Array] = []
        for index in rng.permutation(len(others)):
            voice = self._voice(others[index])
            if voice is not None:
                voices.append(voice)
            if len(voices) == VOICES_IN_BABBLE:
                break
        if not voices:
            raise MediaError("no other clip of the manifest has audio that could be babble")
        return voices

    def _compute_spectrum(self) -> FloatArray:
        order = np.random.default_rng(self._seed).permutation(len(self._media))
        voices = (self._voice(self._media[index]) for index in order[:MAX_CLIPS_IN_SPECTRUM])
        power = average_power_spectrum(voice for voice in voices if voice is not None)
        if not power.any():
            raise MediaError("no clip of the manifest has audio to shape noise from")
        return power


def _load_voice(media: Path) -> Int16Array | None:
    """Return a clip's speech without pauses; None if it has none."""
    try:
        waveform = read_audio(media, MAX_VOICE_S).waveform
    except MediaError:
        return None
    spoken = waveform[detect_speech(waveform)]
    return spoken if len(spoken) else None
