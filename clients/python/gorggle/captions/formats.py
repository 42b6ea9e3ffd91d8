"""Writes captions as WebVTT, SubRip, TTML (IMSC 1.1 text profile) and plain text.

Cue text holds no control characters or line breaks (``clean_text``), so no format has to handle them.

Sources: https://www.w3.org/TR/webvtt1/, https://www.w3.org/TR/ttml1/, https://www.w3.org/TR/ttml-imsc1.1/. SubRip has no
standard; this follows what players accept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape as html_escape

from gorggle.captions.cues import DOUBTFUL_MARK, build_cues, display_name
from gorggle.captions.rules import CaptionRules, Cue, SpokenSegment
from gorggle.captions.text import clean_text, is_right_to_left

# SubRip has no escapes: characters that players take for tags, styles or the timing arrow are replaced by look-alikes.
SRT_LOOK_ALIKES = str.maketrans({"<": "‹", ">": "›", "{": "(", "}": ")"})

_TTML_HEAD = """\
<?xml version="1.0" encoding="UTF-8"?>
<tt xmlns="http://www.w3.org/ns/ttml"
    xmlns:ttm="http://www.w3.org/ns/ttml#metadata"
    xmlns:ttp="http://www.w3.org/ns/ttml#parameter"
    xmlns:tts="http://www.w3.org/ns/ttml#styling"
    ttp:contentProfiles="http://www.w3.org/ns/ttml/profile/imsc1.1/text"
    ttp:timeBase="media" ttp:cellResolution="32 15" xml:lang="{language}">
  <head>
{metadata}    <styling>
      <style xml:id="caption" tts:fontFamily="proportionalSansSerif" tts:fontSize="100%" tts:lineHeight="125%"
             tts:textAlign="center" tts:color="white" tts:backgroundColor="black"/>
    </styling>
    <layout>
      <region xml:id="bottom" tts:origin="10% 75%" tts:extent="80% 20%" tts:displayAlign="after"
              tts:showBackground="whenActive" tts:backgroundColor="transparent"/>
    </layout>
  </head>
  <body style="caption" region="bottom">
    <div>
"""
_TTML_TAIL = """\
    </div>
  </body>
</tt>
"""
_LANGUAGE_TAG = re.compile(r"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*\Z")

Segments = Iterable[SpokenSegment]
Names = Mapping[str, str] | None


def to_vtt(segments: Segments, names: Names = None, rules: CaptionRules | None = None) -> str:
    """Return WebVTT captions; each cue names its speaker in a voice tag."""
    return write_vtt(build_cues(segments, rules, names))


def to_srt(segments: Segments, names: Names = None, rules: CaptionRules | None = None) -> str:
    """Return SubRip captions; with several speakers, the text names the speaker where the speaker changes."""
    return write_srt(build_cues(segments, rules, names, label_speakers=True))


def to_ttml(
    segments: Segments, names: Names = None, rules: CaptionRules | None = None, *, language: str = ""
) -> str:
    """Return TTML captions; ``language`` is a BCP 47 tag, anything else is written as unknown (the empty string)."""
    return write_ttml(build_cues(segments, rules, names), language)


def to_plain_text(segments: Segments, names: Names = None) -> str:
    """Return one line per segment, prefixed with the speaker where several people speak."""
    segments = list(segments)
    has_several = len({segment.speaker for segment in segments}) > 1
    lines = []
    for segment in segments:
        text, name = clean_text(segment.text), display_name(segment.speaker, names)
        if text:
            text = f"{DOUBTFUL_MARK} {text}" if segment.is_doubtful else text
            lines.append(f"{name}: {text}\n" if has_several and name else f"{text}\n")
    return "".join(lines)


def write_vtt(cues: Sequence[Cue]) -> str:
    """Write WebVTT."""
    blocks = [
        f"\n{number}\n{_format_time(cue.start_ms)} --> {_format_time(cue.end_ms)}\n{_format_vtt_text(cue)}\n"
        for number, cue in enumerate(cues, 1)
    ]
    return "WEBVTT\n" + "".join(blocks)


def write_srt(cues: Sequence[Cue]) -> str:
    """Write SubRip."""
    return "\n".join(
        f"{number}\n{_format_time(cue.start_ms, ',')} --> {_format_time(cue.end_ms, ',')}\n"
        + "".join(f"{line.translate(SRT_LOOK_ALIKES)}\n" for line in cue.lines)
        for number, cue in enumerate(cues, 1)
    )


def write_ttml(cues: Sequence[Cue], language: str = "") -> str:
    """Write TTML: media time base, one region at the bottom, times on paragraphs, speakers as agents."""
    speakers = dict.fromkeys(cue.speaker for cue in cues if cue.speaker)
    identifiers = {speaker: f"speaker-{number}" for number, speaker in enumerate(speakers, 1)}
    tag = language if _LANGUAGE_TAG.match(language) else ""
    head = _TTML_HEAD.format(language=tag, metadata=_format_agents(identifiers))
    return head + "".join(_format_paragraph(cue, identifiers) for cue in cues) + _TTML_TAIL


def _format_time(time_ms: int, separator: str = ".") -> str:
    """``HH:MM:SS.mmm``; hours may take more digits, as all formats allow."""
    seconds, milliseconds = divmod(time_ms, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{separator}{milliseconds:03d}"


def _escape(text: str) -> str:
    return html_escape(text, quote=False)


def _format_vtt_text(cue: Cue) -> str:
    text = "\n".join(map(_escape, cue.lines))
    if not cue.speaker:
        return text
    name = _escape(cue.speaker)
    # A final dash would form the arrow of a timing line together with the end of the tag.
    return f"<v {name[:-1]}&#45;>{text}" if name.endswith("-") else f"<v {name}>{text}"


def _format_agents(identifiers: Mapping[str, str]) -> str:
    if not identifiers:
        return ""
    agents = "".join(
        f'      <ttm:agent xml:id="{identifier}" type="person">'
        f'<ttm:name type="full">{_escape(speaker)}</ttm:name></ttm:agent>\n'
        for speaker, identifier in identifiers.items()
    )
    return f"    <metadata>\n{agents}    </metadata>\n"


def _format_paragraph(cue: Cue, identifiers: Mapping[str, str]) -> str:
    agent = f' ttm:agent="{identifiers[cue.speaker]}"' if cue.speaker else ""
    direction = ' tts:direction="rtl"' if is_right_to_left(" ".join(cue.lines)) else ""
    text = "<br/>".join(map(_escape, cue.lines))
    begin, end = _format_time(cue.start_ms), _format_time(cue.end_ms)
    return f'      <p begin="{begin}" end="{end}"{agent}{direction}>{text}</p>\n'
