"""Evaluates a model on held-out speakers and sentences, by modality and noise."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from gorggle_evaluation.conditions import (
    AUDIO_MODALITIES,
    MODALITIES,
    MODALITY_NAMES,
    VOICES_IN_BABBLE,
    Condition,
    NoiseCondition,
)
from gorggle_evaluation.metrics import (
    ErrorRate,
    align_words,
    compute_error_rate,
    compute_time_error,
    compute_time_offsets_s,
)
from gorggle_evaluation.noise import NoiseKind, generate_noise, mix_at_snr
from gorggle_server.avhubert.audio_features import audio_features
from gorggle_server.avhubert.model import Model
from gorggle_server.avhubert.network import AVHubertNetwork
from gorggle_server.avhubert.tokenizer import Vocabulary
from gorggle_server.events import Hypothesis
from gorggle_server.inference.interface import DecodingOptions, InferenceInput
from gorggle_server.inference.recognizer import Recognizer
from gorggle_training.shards import UtteranceStore
from gorggle_training.utterances import Utterance

UTTERANCES_PER_BATCH = 12
SNRS_DB = (20.0, 10.0, 0.0, -10.0)

CLEAN = tuple(Condition(modality, NoiseCondition()) for modality in MODALITIES)
NOISY = tuple(
    Condition(modality, NoiseCondition(kind, snr_db))
    for kind in NoiseKind
    for snr_db in SNRS_DB
    for modality in AUDIO_MODALITIES[::-1]
)


def evaluate_model(
    model: Model,
    utterances: UtteranceStore,
    conditions: Sequence[Condition],
    sentences: int,
    beam_size: int,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Compute error rates and timestamp errors per condition, as JSON values.

    Args:
        model: model to evaluate.
        utterances: of speakers that it was not trained on.
        conditions: modalities and noise.
        sentences: number of utterances to use, from the first.
        beam_size: beam size.
        report: called with a line per condition.
    """
    results: dict[str, Any] = {}
    selected = [utterances[index] for index in range(min(sentences, len(utterances)))]
    for condition in conditions:
        hypotheses = transcribe(model, selected, condition, beam_size)
        words = word_error_rate(selected, hypotheses)
        pairs = [
            (utterance.words[i], hypothesis.words[j])
            for utterance, hypothesis in zip(selected, hypotheses, strict=True)
            for i, j in align_words(
                [word.text for word in utterance.words], [word.text for word in hypothesis.words]
            ).correct
        ]
        times = compute_time_error(compute_time_offsets_s(pairs))
        results[condition.name] = {
            "modality": MODALITY_NAMES[condition.modality],
            "condition": condition.noise.name,
            "words": asdict(words),
            "times": asdict(times) if times else None,
        }
        report(f"{condition.name}: word error rate {words.rate:.1%} of {words.words} words")
    return {"beam_size": beam_size, "sentences": len(selected), "conditions": results}


def make_validator(
    vocabulary: Vocabulary, utterances: Mapping[str, Sequence[Utterance]]
) -> Callable[[AVHubertNetwork], dict[str, float]]:
    """Return a function that computes a network's word error rates on named sets of utterances, by modality."""

    def validate(network: AVHubertNetwork) -> dict[str, float]:
        model = Model(copy.deepcopy(network).float().cpu(), vocabulary)
        return {
            f"{name}, {MODALITY_NAMES[modality]}": word_error_rate(
                own, transcribe(model, own, Condition(modality, NoiseCondition()), beam_size=1)
            ).rate
            for name, own in utterances.items()
            for modality in MODALITIES
        }

    return validate


def word_error_rate(utterances: Sequence[Utterance], hypotheses: Sequence[Hypothesis]) -> ErrorRate:
    """Compute the word error rate of hypotheses, with an interval over utterances."""
    return compute_error_rate(
        [
            align_words(utterance.text.split(), hypothesis.text.split())
            for utterance, hypothesis in zip(utterances, hypotheses, strict=True)
        ]
    )


def transcribe(
    model: Model, utterances: Sequence[Utterance], condition: Condition, beam_size: int
) -> list[Hypothesis]:
    """Transcribe every utterance under a condition, in order."""
    recognizer = Recognizer(model)
    search = DecodingOptions(
        beam_size=beam_size, length_penalty=1.0, max_alternatives=0, word_timestamps=True
    )
    by_length = sorted(range(len(utterances)), key=lambda index: utterances[index].frames)
    hypotheses: dict[int, Hypothesis] = {}
    for start in range(0, len(by_length), UTTERANCES_PER_BATCH):
        indices = by_length[start : start + UTTERANCES_PER_BATCH]
        windows = [_make_input(utterances, index, condition) for index in indices]
        for index, found in zip(indices, recognizer.transcribe(windows, search), strict=True):
            hypotheses[index] = found[0]
    return [hypotheses[index] for index in range(len(utterances))]


def _make_input(utterances: Sequence[Utterance], index: int, condition: Condition) -> InferenceInput:
    utterance = utterances[index]
    if condition.modality == "video":
        return InferenceInput(utterance.crops, None)
    features = audio_features(_mix_noise(utterances, index, condition.noise))[: utterance.frames]
    return InferenceInput(None if condition.modality == "audio" else utterance.crops, features)


def _mix_noise(utterances: Sequence[Utterance], index: int, noise: NoiseCondition) -> np.ndarray:
    """Return the audio under a condition; the noise is the same for every modality and model."""
    waveform = utterances[index].waveform
    if noise.kind is None or noise.snr_db is None:
        return waveform
    rng = np.random.default_rng(index)
    voices = [
        utterances[(index + offset) % len(utterances)].waveform for offset in range(1, VOICES_IN_BABBLE + 1)
    ]
    return mix_at_snr(waveform, generate_noise(noise.kind, len(waveform), voices, rng), noise.snr_db)
