"""AV-HuBERT inference: mouth crops and audio features to text with word timestamps. Depends on numpy, and torch or onnxruntime.

Reimplemented from "Learning Audio-Visual Speech Representation by Masked Multimodal Cluster Prediction" (ICLR 2022)
and "Robust Self-Supervised Audio-Visual Speech Recognition" (Interspeech 2022). Tests compare it with recorded
outputs of the published implementation.

torch is imported with the first name that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gorggle_server.avhubert.audio_features import audio_features
from gorggle_server.avhubert.beam_search import Hypothesis
from gorggle_server.avhubert.config import ModelConfig

if TYPE_CHECKING:
    from gorggle_server.avhubert.checkpoints.loading import convert, info, load_model, save_model
    from gorggle_server.avhubert.model import Model
    from gorggle_server.avhubert.network import AVHubertNetwork

_MODULES = {
    "AVHubertNetwork": "network",
    "Model": "model",
    "convert": "checkpoints.loading",
    "info": "checkpoints.loading",
    "load_model": "checkpoints.loading",
    "save_model": "checkpoints.loading",
}

__all__ = [
    "AVHubertNetwork",
    "Hypothesis",
    "Model",
    "ModelConfig",
    "audio_features",
    "convert",
    "info",
    "load_model",
    "save_model",
]


def __getattr__(name: str) -> Any:
    """Import a name that needs torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
