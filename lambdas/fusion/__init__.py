"""Fusion: one result out of what lips, sound and faces say about a video, and captions out of it.

Pure functions of the standard library: what comes from S3 is parsed by ``documents``, ``transcribe`` and ``faces``,
put together by ``fusing``, written by ``result`` and ``captions``.
"""

from lambdas.fusion.decision import FusionRules
from lambdas.fusion.documents import (
    face_tracks,
    failures,
    lip_window,
    media,
    model,
    noise_stretches,
    sound_window,
)
from lambdas.fusion.errors import FusionInputError
from lambdas.fusion.faces import rekognition_tracks
from lambdas.fusion.fusing import fused
from lambdas.fusion.readings import Inputs
from lambdas.fusion.result import Result, result_schema
from lambdas.fusion.transcribe import transcribe_language, transcribe_window

__all__ = [
    "FusionInputError",
    "FusionRules",
    "Inputs",
    "Result",
    "face_tracks",
    "failures",
    "fused",
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
