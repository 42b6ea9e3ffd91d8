"""AV-HuBERT inference: mouth crops and audio features to text with word timestamps. Depends on torch and numpy only.

Reimplemented from "Learning Audio-Visual Speech Representation by Masked Multimodal Cluster Prediction" (ICLR 2022)
and "Robust Self-Supervised Audio-Visual Speech Recognition" (Interspeech 2022). Tests compare it with recorded
outputs of the published implementation.
"""

from gorggle_server.avhubert.audio_features import audio_features
from gorggle_server.avhubert.beam_search import Hypothesis
from gorggle_server.avhubert.checkpoints.loading import convert, info, load_model, save_model
from gorggle_server.avhubert.config import ModelConfig
from gorggle_server.avhubert.model import Model
from gorggle_server.avhubert.network import AVHubertNetwork

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
