"""AV-HuBERT: mouth crops and sound to text with word times. Knows tensors only.

The network is written anew from the papers "Learning Audio-Visual Speech Representation by Masked Multimodal
Cluster Prediction" (ICLR 2022) and "Robust Self-Supervised Audio-Visual Speech Recognition" (Interspeech 2022), and
held to the published implementation by recorded results.
"""

from inference_server.avhubert.alignment import WordTime
from inference_server.avhubert.checkpoint import convert, info, load_model, save_model
from inference_server.avhubert.config import ModelConfig
from inference_server.avhubert.model import Model
from inference_server.avhubert.network import AVHubertNetwork
from inference_server.avhubert.search import Hypothesis

__all__ = [
    "AVHubertNetwork",
    "Hypothesis",
    "Model",
    "ModelConfig",
    "WordTime",
    "convert",
    "info",
    "load_model",
    "save_model",
]
