"""Captions written as WebVTT, SubRip and plain text.

Text comes in clean (``typography.clean``), so that no format has to fear control characters or line breaks.

Sources: WebVTT is https://www.w3.org/TR/webvtt1/. SubRip has no standard; this follows what players read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gorggle_lambdas.fusion.captions.rules import Cue
from gorggle_lambdas.fusion.captions.text_width import clean_text
from gorggle_lambdas.fusion.result import FusedSegment

# SubRip cannot escape anything: what players take for tags, styles or the timing arrow is shown by look-alikes.
SRT_LOOK_ALIKES = str.maketrans({"<": "‹", ">": "›", "{": "(", "}": ")"})


def to_webvtt(cues: Sequence[Cue]) -> str:
    """Write WebVTT, each caption in its speaker's voice."""
    blocks = [
        f"\n{number}\n{_format_time(cue.start_ms, '.')} --> {_format_time(cue.end_ms, '.')}\n{_format_vtt_text(cue)}\n"
        for number, cue in enumerate(cues, 1)
    ]
    return "WEBVTT\n" + "".join(blocks)


def to_srt(cues: Sequence[Cue]) -> str:
    """Write SubRip. Speakers are named where the captions were made with labels."""
    return "\n".join(
        f"{number}\n{_format_time(cue.start_ms, ',')} --> {_format_time(cue.end_ms, ',')}\n{_format_srt_text(cue)}\n"
        for number, cue in enumerate(cues, 1)
    )


def to_plain_text(segments: Sequence[FusedSegment], names: Mapping[str, str] | None = None) -> str:
    """Write one line a segment; with the speaker before it where several people speak."""
    several = len({segment.person for segment in segments}) > 1
    lines = []
    for segment in segments:
        text, name = clean_text(segment.text), clean_text((names or {}).get(segment.person, segment.person))
        if text:
            lines.append(f"{name}: {text}\n" if several and name else f"{text}\n")
    return "".join(lines)


def _format_time(time_ms: int, separator: str) -> str:
    """``HH:MM:SS,mmm``; hours take more digits where they need them, as both formats allow."""
    seconds, milliseconds = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{separator}{milliseconds:03d}"


def _format_vtt_text(cue: Cue) -> str:
    text = "\n".join(map(_escape, cue.lines))
    return f"<v {_escape_annotation(cue.speaker)}>{text}" if cue.speaker else text


def _escape_annotation(name: str) -> str:
    """A name within a tag; together with the tag's end its last dashes must not be the arrow of a timing line."""
    escaped = _escape(name)
    return f"{escaped[:-1]}&#45;" if escaped.endswith("-") else escaped


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _format_srt_text(cue: Cue) -> str:
    return "\n".join(line.translate(SRT_LOOK_ALIKES) for line in cue.lines)
