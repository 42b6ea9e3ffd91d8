"""AV-HuBERT: mouth crops and sound to text with word times. Knows tensors only.

The network is written anew from the papers "Learning Audio-Visual Speech Representation by Masked Multimodal
Cluster Prediction" (ICLR 2022) and "Robust Self-Supervised Audio-Visual Speech Recognition" (Interspeech 2022), and
held to the published implementation by recorded results.
"""

from gorggle_server.avhubert.beam_search import Hypothesis
from gorggle_server.avhubert.checkpoints.loading import convert, info, load_model, save_model
from gorggle_server.avhubert.config import ModelConfig
from gorggle_server.avhubert.model import Model
from gorggle_server.avhubert.network import AVHubertNetwork
from gorggle_server.avhubert.word_alignment import WordTiming

__all__ = [
    "AVHubertNetwork",
    "Hypothesis",
    "Model",
    "ModelConfig",
    "WordTiming",
    "convert",
    "info",
    "load_model",
    "save_model",
]
