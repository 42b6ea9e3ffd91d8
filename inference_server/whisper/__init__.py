"""Whisper inference: the 16 kHz waveforms of utterances to text with word timestamps, in about 100 languages.

Models are folders in the form of CTranslate2, which runs them; log-mel spectrograms and the tokenizer are those of the package
``faster-whisper``. Nothing is downloaded. Source: "Robust Speech Recognition via Large-Scale Weak Supervision" (arXiv 2212.04356).
"""

from gorggle_server.whisper.model import MAX_DURATION_S, Model, SearchOptions, Transcription
from gorggle_server.whisper.model_folder import WEIGHTS_FILE, Dimensions, ModelFolder, check_folder
from gorggle_server.whisper.words import (
    AlignedTokens,
    TimedWord,
    measure_loudness,
    split_words,
    time_words,
    trim_silence,
)

__all__ = [
    "MAX_DURATION_S",
    "WEIGHTS_FILE",
    "AlignedTokens",
    "Dimensions",
    "Model",
    "ModelFolder",
    "SearchOptions",
    "TimedWord",
    "Transcription",
    "check_folder",
    "measure_loudness",
    "split_words",
    "time_words",
    "trim_silence",
]
