"""Measures a model on speakers and sentences that no training saw, by modality and in noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gorggle_evaluation.noise import NoiseKind, generate_noise, mix_at_snr
from gorggle_server.avhubert.audio_features import audio_features
from gorggle_server.avhubert.model import Model
from gorggle_server.inference.recognizer import DecodingOptions, InferenceInput, Recognizer
from gorggle_server.types import Hypothesis, Modality
from training.metrics import compute_error_rate, compute_time_error
from training.shards import UtteranceStore
from training.utterances import Utterance

UTTERANCES_PER_BATCH = 12
VOICES_IN_BABBLE = 6


@dataclass(frozen=True)
class Condition:
    """What the model is given: a modality, and noise at a signal-to-noise ratio, or none."""

    modality: Modality
    noise: NoiseKind | None = None
    snr_db: float = 0.0

    @property
    def name(self) -> str:
        """Such as "audio-visual, babble at 0 dB"."""
        return f"{self.modality.value}, {self.noise_name}"

    @property
    def noise_name(self) -> str:
        """Such as "babble at 0 dB"."""
        return f"{self.noise.value} at {self.snr_db:g} dB" if self.noise else "clean"


CLEAN = tuple(
    Condition(modality) for modality in (Modality.VIDEO_ONLY, Modality.AUDIO_ONLY, Modality.AUDIO_VISUAL)
)
NOISY = tuple(
    Condition(modality, kind, snr_db)
    for kind in NoiseKind
    for snr_db in (20.0, 10.0, 0.0, -10.0)
    for modality in (Modality.AUDIO_ONLY, Modality.AUDIO_VISUAL)
)


def evaluate_model(
    model: Model,
    utterances: UtteranceStore,
    conditions: Sequence[Condition],
    sentences: int,
    beam_size: int,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Error rates and word-time errors per condition, ready for JSON.

    Args:
        model: what is measured.
        utterances: of speakers that it has not seen.
        conditions: what it is given of them.
        sentences: how many of the utterances to read, from the first.
        beam_size: of the search.
        report: told a line per condition.
    """
    results: dict[str, Any] = {}
    chosen = [utterances[index] for index in range(min(sentences, len(utterances)))]
    for condition in conditions:
        readings = transcribe(model, chosen, condition, beam_size)
        words = compute_error_rate(
            [utterance.text for utterance in chosen], [reading.text for reading in readings]
        )
        times = compute_time_error(
            [utterance.words for utterance in chosen], [reading.words for reading in readings]
        )
        results[condition.name] = {
            "modality": condition.modality.value,
            "condition": condition.noise_name,
            "words": asdict(words),
            "times": asdict(times) if times else None,
        }
        report(f"{condition.name}: word error rate {words.rate:.1%} of {words.words} words")
    return {"beam_size": beam_size, "sentences": len(chosen), "conditions": results}


def transcribe(
    model: Model, utterances: Sequence[Utterance], condition: Condition, beam_size: int
) -> list[Hypothesis]:
    """What the model makes of every utterance under a condition, in order."""
    recognizer = Recognizer(model)
    search = DecodingOptions(
        beam_size=beam_size, length_penalty=1.0, max_alternatives=0, word_timestamps=True
    )
    by_length = sorted(range(len(utterances)), key=lambda index: utterances[index].frames)
    readings: dict[int, Hypothesis] = {}
    for start in range(0, len(by_length), UTTERANCES_PER_BATCH):
        indices = by_length[start : start + UTTERANCES_PER_BATCH]
        windows = [_make_input(utterances, index, condition) for index in indices]
        for index, found in zip(indices, recognizer.transcribe(windows, search), strict=True):
            readings[index] = found[0]
    return [readings[index] for index in range(len(utterances))]


def _make_input(utterances: Sequence[Utterance], index: int, condition: Condition) -> InferenceInput:
    utterance = utterances[index]
    crops = None if condition.modality is Modality.AUDIO_ONLY else utterance.crops
    if condition.modality is Modality.VIDEO_ONLY:
        return InferenceInput(crops, None)
    features = audio_features(_mix_noise(utterances, index, condition))[: utterance.frames]
    return InferenceInput(crops, features)


def _mix_noise(utterances: Sequence[Utterance], index: int, condition: Condition) -> np.ndarray:
    """The sound under a condition; the same noise for every modality and model."""
    waveform = utterances[index].waveform
    if condition.noise is None:
        return waveform
    rng = np.random.default_rng(index)
    others = [
        utterances[(index + offset) % len(utterances)].waveform for offset in range(1, VOICES_IN_BABBLE + 1)
    ]
    return mix_at_snr(waveform, generate_noise(condition.noise, len(waveform), others, rng), condition.snr_db)
