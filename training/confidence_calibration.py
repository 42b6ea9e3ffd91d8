"""Fit the calibration of a model's word confidences on utterances that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gorggle.results import Modality
from gorggle_evaluation.conditions import MODALITIES, Condition, NoiseCondition
from gorggle_evaluation.metrics import align_words
from gorggle_fusion.confidence import fit_calibration
from gorggle_server.avhubert import Model, load_model, save_model
from gorggle_server.recognition_options import RecognitionOptions
from gorggle_training.evaluate import transcribe
from gorggle_training.utterances import Utterance

_CARD_MODALITIES: dict[Modality, str] = {"av": "audio-visual", "video": "video", "audio": "audio"}


def calibrate_model_file(path: Path, utterances: Sequence[Utterance]) -> dict[str, dict[str, float]]:
    """Fit a model file's calibrations, write them to its model card, and return them; see ``fit_calibrations``."""
    model = load_model(path)
    calibrations = fit_calibrations(model, utterances)
    card = {**model.card, "confidence_calibration": calibrations}
    tokens, sentencepiece_model = model.tokens, model.vocabulary.sentencepiece_model
    save_model(model.network, model.config, tokens, sentencepiece_model, card, path, dtype="float16")
    return calibrations


def fit_calibrations(model: Model, utterances: Sequence[Utterance]) -> dict[str, dict[str, float]]:
    """Return ``slope`` and ``offset`` by modality, as in model cards.

    A modality is left out if all its words are correct, or none is.
    """
    calibrations = {}
    for modality in MODALITIES:
        condition = Condition(modality, NoiseCondition())
        stated, right = [], []
        for utterance, hypothesis in zip(
            utterances, transcribe(model, utterances, condition, RecognitionOptions.beam_size), strict=True
        ):
            words = [word.text for word in hypothesis.words]
            correct = {index for _, index in align_words(utterance.text.split(), words).correct}
            stated += [word.confidence for word in hypothesis.words]
            right += [index in correct for index in range(len(words))]
        if any(right) and not all(right):
            fitted = fit_calibration(stated, right)
            calibrations[_CARD_MODALITIES[modality]] = {
                "slope": round(fitted.slope, 3),
                "offset": round(fitted.offset, 3),
            }
    return calibrations
