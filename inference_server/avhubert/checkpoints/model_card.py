"""The model card: optional metadata on a model's origin, error rates and licence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gorggle_server.errors import ModelFormatError

# Names of modalities in model cards.
MODALITIES = ("audio-visual", "video", "audio")
_TEXTS = ("name", "description", "vocabulary", "trained_on")
_LISTS_OF_TEXTS = ("languages", "modalities")
_LICENSE_TEXTS = ("name", "url", "summary")
_ERROR_RATE_TEXTS = ("dataset", "modality", "condition", "source")

# fairseq checkpoints do not name their licence. The published AV-HuBERT weights, and models derived from them, forbid
# commercial use, so this is the default unless another card is given.
REFERENCE_LICENSE = {
    "name": "AV-HuBERT licence",
    "url": "https://github.com/facebookresearch/av_hubert/blob/main/LICENSE",
    "commercial_use": False,
    "summary": "Assumed from the file's layout: the official AV-HuBERT weights are for research only. If this file has "
    "other terms, state them with `gorggle model convert --card`.",
}


def validate_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """Validate the types of a model card and return it as a dict; unknown keys are kept.

    Known keys: ``name``, ``description``, ``trained_on`` (strings); ``vocabulary`` (string: the words that the model
    recognizes, if it recognizes no others); ``languages`` (BCP 47),
    ``modalities`` (of ``MODALITIES``) (lists of strings); ``license`` (``name``, ``url``, ``summary``,
    ``commercial_use``); ``error_rates`` (list of ``dataset``, ``modality``, ``condition``, ``source``,
    ``word_error_rate_percent``); ``confidence_calibration`` (by modality, ``slope`` and ``offset`` of the words'
    confidences; see ``gorggle_fusion.confidence.Calibration``).

    Raises:
        ModelFormatError: a value has the wrong type.
    """
    for key in _TEXTS:
        _expect(card.get(key, ""), str, key)
    for key in _LISTS_OF_TEXTS:
        for text in _expect(card.get(key, []), list, key):
            _expect(text, str, f"{key}[]")
    license_entry = _expect(card.get("license", {}), dict, "license")
    for key in _LICENSE_TEXTS:
        _expect(license_entry.get(key, ""), str, f"license.{key}")
    if license_entry.get("commercial_use") is not None:
        _expect(license_entry["commercial_use"], bool, "license.commercial_use")
    for entry in _expect(card.get("error_rates", []), list, "error_rates"):
        _expect(entry, dict, "error_rates[]")
        for key in _ERROR_RATE_TEXTS:
            _expect(entry.get(key, ""), str, f"error_rates[].{key}")
        rate, key = entry.get("word_error_rate_percent"), "error_rates[].word_error_rate_percent"
        _expect_number(rate, key, "a percentage", minimum=0.0)
    calibrations = _expect(card.get("confidence_calibration", {}), dict, "confidence_calibration")
    for modality, entry in calibrations.items():
        if modality not in MODALITIES:
            raise ModelFormatError(
                f"the model card's confidence_calibration has {modality!r}; expected {', '.join(MODALITIES)}"
            )
        key = f"confidence_calibration.{modality}"
        for name in ("slope", "offset"):
            _expect_number(_expect(entry, dict, key).get(name), f"{key}.{name}", "a number")
    return dict(card)


def _expect(value: Any, kind: type, key: str) -> Any:
    if not isinstance(value, kind):
        raise ModelFormatError(
            f"the model card's {key} is a {type(value).__name__}; expected a {kind.__name__}"
        )
    return value


def _expect_number(value: Any, key: str, expected: str, minimum: float = -math.inf) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or value < minimum:
        raise ModelFormatError(f"the model card's {key} is {value!r}; expected {expected}")
