"""Fusion of lip reading, audio transcription and face tracks into one result.

Pure functions of the standard library. ``parsing``, ``amazon_transcribe`` and ``face_tracks`` parse the inputs, ``fuse``
combines them, ``result`` writes the result document.
"""

from gorggle_fusion.amazon_transcribe import parse_transcribe_language, parse_transcribe_result
from gorggle_fusion.errors import FusionInputError
from gorggle_fusion.face_tracks import parse_rekognition_tracks
from gorggle_fusion.fuse import fuse
from gorggle_fusion.parsing import (
    parse_audio_window,
    parse_lip_window,
    parse_media,
    parse_model,
    parse_noise,
)
from gorggle_fusion.result import Result, load_result_schema
from gorggle_fusion.types import Inputs
from gorggle_fusion.word_voting import FusionRules

__all__ = [
    "FusionInputError",
    "FusionRules",
    "Inputs",
    "Result",
    "fuse",
    "load_result_schema",
    "parse_audio_window",
    "parse_lip_window",
    "parse_media",
    "parse_model",
    "parse_noise",
    "parse_rekognition_tracks",
    "parse_transcribe_language",
    "parse_transcribe_result",
]
