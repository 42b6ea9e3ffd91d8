"""Captions written as TTML, within the IMSC 1.1 text profile.

Source: https://www.w3.org/TR/ttml1/ and https://www.w3.org/TR/ttml-imsc1.1/: media time base, one region at the bottom
of the picture, times on paragraphs, speakers as agents of the document's metadata.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from gorggle_lambdas.fusion.captions.rules import Cue
from gorggle_lambdas.fusion.captions.text_width import is_right_to_left

_HEAD = """\
<?xml version="1.0" encoding="UTF-8"?>
<tt xmlns="http://www.w3.org/ns/ttml"
    xmlns:ttm="http://www.w3.org/ns/ttml#metadata"
    xmlns:ttp="http://www.w3.org/ns/ttml#parameter"
    xmlns:tts="http://www.w3.org/ns/ttml#styling"
    ttp:contentProfiles="http://www.w3.org/ns/ttml/profile/imsc1.1/text"
    ttp:timeBase="media" ttp:cellResolution="32 15" xml:lang={language}>
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
_TAIL = """\
    </div>
  </body>
</tt>
"""
_LANGUAGE_TAG = re.compile(r"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*\Z")


def to_ttml(cues: Sequence[Cue], language: str = "") -> str:
    """Write TTML.

    Args:
        cues: by time.
        language: BCP 47; anything else is written as unknown, which is the empty string.
    """
    speakers = list(dict.fromkeys(cue.speaker for cue in cues if cue.speaker))
    identifiers = {speaker: f"speaker-{number}" for number, speaker in enumerate(speakers, 1)}
    tag = language if _LANGUAGE_TAG.match(language) else ""
    head = _HEAD.format(language=quoteattr(tag), metadata=_format_agents(identifiers))
    return head + "".join(_format_paragraph(cue, identifiers) for cue in cues) + _TAIL


def _format_agents(identifiers: dict[str, str]) -> str:
    if not identifiers:
        return ""
    agents = "".join(
        f'      <ttm:agent xml:id="{identifier}" type="person">'
        f'<ttm:name type="full">{escape(speaker)}</ttm:name></ttm:agent>\n'
        for speaker, identifier in identifiers.items()
    )
    return f"    <metadata>\n{agents}    </metadata>\n"


def _format_paragraph(cue: Cue, identifiers: dict[str, str]) -> str:
    agent = f' ttm:agent="{identifiers[cue.speaker]}"' if cue.speaker else ""
    direction = ' tts:direction="rtl"' if is_right_to_left(" ".join(cue.lines)) else ""
    text = "<br/>".join(map(escape, cue.lines))
    return f'      <p begin="{_format_time(cue.start_ms)}" end="{_format_time(cue.end_ms)}"{agent}{direction}>{text}</p>\n'


def _format_time(time_ms: int) -> str:
    seconds, milliseconds = divmod(time_ms, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{milliseconds:03d}"
