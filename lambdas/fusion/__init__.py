"""Fusion: one result out of what lips, sound and faces say about a video, and captions out of it.

Pure functions of the standard library: what comes from S3 is parsed by ``documents``, ``transcribe`` and ``faces``,
put together by ``fusing``, written by ``result`` and ``captions``.
"""

from gorggle_lambdas.fusion.amazon_transcribe import transcribe_language, transcribe_window
from gorggle_lambdas.fusion.errors import FusionInputError
from gorggle_lambdas.fusion.face_tracks import rekognition_tracks
from gorggle_lambdas.fusion.fuse import fuse
from gorggle_lambdas.fusion.parsing import (
    face_tracks,
    failures,
    lip_window,
    media,
    model,
    noise_stretches,
    sound_window,
)
from gorggle_lambdas.fusion.result import Result, result_schema
from gorggle_lambdas.fusion.types import Inputs
from gorggle_lambdas.fusion.word_voting import FusionRules

__all__ = [
    "FusionInputError",
    "FusionRules",
    "Inputs",
    "Result",
    "face_tracks",
    "failures",
    "fuse",
    "lip_window",
    "media",
    "model",
    "noise_stretches",
    "rekognition_tracks",
    "result_schema",
    "sound_window",
    "transcribe_language",
    "transcribe_window",
]
