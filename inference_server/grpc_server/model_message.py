"""Encodes a model's description as the API's Model message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gorggle.v1 import config_pb2, model_pb2
from gorggle_server.inference.model_registry import ServedModel
from gorggle_server.input_format import FRAME_RATE_HZ, MOUTH_CROP_SIZE_PX, SAMPLE_RATE_HZ
from gorggle_server.recognition_options import Modality

_MODALITIES = {
    Modality.AUDIO_VISUAL: config_pb2.MODALITY_AUDIO_VISUAL,
    Modality.VIDEO_ONLY: config_pb2.MODALITY_VIDEO_ONLY,
    Modality.AUDIO_ONLY: config_pb2.MODALITY_AUDIO_ONLY,
}
# In a model's card.
_MODALITY_NAMES = {
    "audio-visual": config_pb2.MODALITY_AUDIO_VISUAL,
    "video": config_pb2.MODALITY_VIDEO_ONLY,
    "audio": config_pb2.MODALITY_AUDIO_ONLY,
}
_COMMERCIAL_USE = {
    True: model_pb2.COMMERCIAL_USE_PERMITTED,
    False: model_pb2.COMMERCIAL_USE_FORBIDDEN,
    None: model_pb2.COMMERCIAL_USE_UNSPECIFIED,
}


def encode_model(served: ServedModel) -> model_pb2.Model:
    """Return the description of a served model. Missing card entries stay empty."""
    model, card = served.description, served.description.card
    return model_pb2.Model(
        name=served.name,
        description=_get_text(card, "description"),
        architecture=model.architecture,
        parameter_count=model.parameter_count,
        encoder_layer_count=model.encoder_layers,
        encoder_width=model.encoder_width,
        decoder_layer_count=model.decoder_layers,
        decoder_width=model.decoder_width,
        vocabulary_size=model.vocabulary_size,
        modalities=[_MODALITIES[modality] for modality in model.modalities],
        video_frame_rate_hertz=FRAME_RATE_HZ if model.model_input.uses_lips else 0,
        audio_sample_rate_hertz=SAMPLE_RATE_HZ,
        mouth_crop_size_px=MOUTH_CROP_SIZE_PX if model.model_input.uses_lips else 0,
        language_codes=model.languages,
        has_open_vocabulary=model.has_open_vocabulary,
        supports_automatic_punctuation=model.has_punctuation,
        vocabulary=_get_text(card, "vocabulary"),
        trained_on=_get_text(card, "trained_on"),
        error_rates=[_encode_error_rate(entry) for entry in card.get("error_rates", [])],
        license=_encode_license(card.get("license", {})),
        sha256=served.sha256,
    )


def _encode_error_rate(entry: dict[str, Any]) -> model_pb2.ErrorRate:
    return model_pb2.ErrorRate(
        dataset=_get_text(entry, "dataset"),
        modality=_MODALITY_NAMES.get(_get_text(entry, "modality"), config_pb2.MODALITY_UNSPECIFIED),
        condition=_get_text(entry, "condition"),
        word_error_rate_percent=float(entry.get("word_error_rate_percent", 0.0)),
        source=_get_text(entry, "source"),
    )


def _encode_license(entry: dict[str, Any]) -> model_pb2.ModelLicense:
    return model_pb2.ModelLicense(
        name=_get_text(entry, "name"),
        url=_get_text(entry, "url"),
        commercial_use=_COMMERCIAL_USE.get(entry.get("commercial_use"), model_pb2.COMMERCIAL_USE_UNSPECIFIED),
        summary=_get_text(entry, "summary"),
    )


def _get_text(entry: Mapping[str, Any], key: str) -> str:
    return str(entry.get(key, ""))
