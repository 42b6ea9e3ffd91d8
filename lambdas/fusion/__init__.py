"""Fusion: one result out of what lips, sound and faces say about a video, and captions out of it.

Pure functions of the standard library: what comes from S3 is parsed by ``documents``, ``transcribe`` and ``faces``,
put together by ``fusing``, written by ``result`` and ``captions``.
"""

from gorggle_lambdas.fusion.amazon_transcribe import parse_transcribe_language, parse_transcribe_result
from gorggle_lambdas.fusion.errors import FusionInputError
from gorggle_lambdas.fusion.face_tracks import parse_rekognition_tracks
from gorggle_lambdas.fusion.fuse import fuse
from gorggle_lambdas.fusion.parsing import (
    parse_audio_window,
    parse_face_tracks,
    parse_failures,
    parse_lip_window,
    parse_media,
    parse_model,
    parse_noise,
)
from gorggle_lambdas.fusion.result import Result, load_result_schema
from gorggle_lambdas.fusion.types import Inputs
from gorggle_lambdas.fusion.word_voting import FusionRules

__all__ = [
    "FusionInputError",
    "FusionRules",
    "Inputs",
    "Result",
    "fuse",
    "load_result_schema",
    "parse_audio_window",
    "parse_face_tracks",
    "parse_failures",
    "parse_lip_window",
    "parse_media",
    "parse_model",
    "parse_noise",
    "parse_rekognition_tracks",
    "parse_transcribe_language",
    "parse_transcribe_result",
]
