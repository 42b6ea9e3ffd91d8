"""Captions from transcript segments: WebVTT, SubRip, TTML and plain text, by the rules in ``rules``, and a linter.

The standard library is enough for this package. Segments are any objects with the attributes of ``SpokenSegment``, such
as ``gorggle.Segment``.
"""

from gorggle.captions.cues import DOUBTFUL_MARK, VOICE_LABEL, build_cues, display_name
from gorggle.captions.formats import to_plain_text, to_srt, to_ttml, to_vtt
from gorggle.captions.linter import Problem, check_captions
from gorggle.captions.rules import CaptionRules, Cue, SpokenSegment, SpokenWord

__all__ = [
    "DOUBTFUL_MARK",
    "VOICE_LABEL",
    "CaptionRules",
    "Cue",
    "Problem",
    "SpokenSegment",
    "SpokenWord",
    "build_cues",
    "check_captions",
    "display_name",
    "to_plain_text",
    "to_srt",
    "to_ttml",
    "to_vtt",
]
