"""Captions by the rules of the trade, as WebVTT, SubRip, TTML and plain text, and a linter that knows the rules."""

from gorggle_lambdas.fusion.captions.cues import build_cues
from gorggle_lambdas.fusion.captions.formats import to_plain_text, to_srt, to_webvtt
from gorggle_lambdas.fusion.captions.linter import Problem, check_captions
from gorggle_lambdas.fusion.captions.rules import CaptionRules, Cue
from gorggle_lambdas.fusion.captions.ttml import to_ttml

__all__ = [
    "CaptionRules",
    "Cue",
    "Problem",
    "build_cues",
    "check_captions",
    "to_plain_text",
    "to_srt",
    "to_ttml",
    "to_webvtt",
]
