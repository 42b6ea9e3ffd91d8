"""Encodes a model's description as the API's Model message."""

from __future__ import annotations

from typing import Any

from gorggle.v1 import config_pb2, model_pb2
from gorggle_server.inference.model_registry import ServedModel
from gorggle_server.input_format import FRAME_RATE_HZ, MOUTH_CROP_SIZE_PX, SAMPLE_RATE_HZ

_MODALITIES = {
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
    """Return the description of a loaded model, from its configuration and its card. Missing card entries stay empty."""
    model, card = served.model, served.model.card
    return model_pb2.Model(
        name=served.name,
        description=_get_text(card, "description"),
        architecture="av_hubert",
        parameter_count=model.parameter_count,
        encoder_layer_count=model.config.encoder_layers,
        encoder_width=model.config.encoder_dim,
        decoder_layer_count=model.config.decoder_layers,
        decoder_width=model.config.decoder_dim,
        vocabulary_size=len(model.tokens),
        # Every AV-HuBERT model accepts a missing modality; a card may restrict this to what it was trained for.
        modalities=[_MODALITIES[name] for name in card.get("modalities", _MODALITIES) if name in _MODALITIES],
        video_frame_rate_hertz=FRAME_RATE_HZ,
        audio_sample_rate_hertz=SAMPLE_RATE_HZ,
        mouth_crop_size_px=MOUTH_CROP_SIZE_PX,
        language_codes=get_languages(served),
        vocabulary=_get_text(card, "vocabulary"),
        trained_on=_get_text(card, "trained_on"),
        error_rates=[_encode_error_rate(entry) for entry in card.get("error_rates", [])],
        license=_encode_license(card.get("license", {})),
        sha256=served.sha256,
    )


def get_languages(served: ServedModel) -> list[str]:
    """Return the BCP 47 tags of the languages that a model's card declares."""
    return [str(code) for code in served.model.card.get("languages", [])]


def _encode_error_rate(entry: dict[str, Any]) -> model_pb2.ErrorRate:
    return model_pb2.ErrorRate(
        dataset=_get_text(entry, "dataset"),
        modality=_MODALITIES.get(_get_text(entry, "modality"), config_pb2.MODALITY_UNSPECIFIED),
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


def _get_text(entry: dict[str, Any], key: str) -> str:
    return str(entry.get(key, ""))
