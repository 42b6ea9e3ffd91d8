"""Moonshine inference: the 16 kHz waveform of an utterance to text with word timestamps. Depends on onnxruntime and numpy only.

The network is the English "tiny" model of "Moonshine: Speech Recognition for Live Transcription and Voice Commands"
(arXiv 2410.15608), quantized to 8 bits, from the package ``moonshine-voice``.
"""

from gorggle_server.moonshine.model import (
    MODEL_FILES,
    MODEL_SHA256,
    GreedyDecoding,
    Model,
    find_model_folder,
)
from gorggle_server.moonshine.text_scoring import LetterTextScorer
from gorggle_server.moonshine.tokenizer import Vocabulary
from gorggle_server.moonshine.word_alignment import LetterModel, align_words

__all__ = [
    "MODEL_FILES",
    "MODEL_SHA256",
    "GreedyDecoding",
    "LetterModel",
    "LetterTextScorer",
    "Model",
    "Vocabulary",
    "align_words",
    "find_model_folder",
]
