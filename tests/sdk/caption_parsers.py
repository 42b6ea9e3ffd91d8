"""Strict minimal parsers of the caption formats, written from their specifications."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass

TT = "{http://www.w3.org/ns/ttml}"
TTM = "{http://www.w3.org/ns/ttml#metadata}"
XML = "{http://www.w3.org/XML/1998/namespace}"
CLOCK = r"(\d{2,}):([0-5]\d):([0-5]\d)[.,](\d{3})"


@dataclass
class ParsedCue:
    start_ms: int
    end_ms: int
    lines: tuple[str, ...]
    voice: str = ""


def parse_clock_ms(clock: str) -> int:
    match = re.fullmatch(CLOCK, clock)
    assert match, clock
    hours, minutes, seconds, milliseconds = map(int, match.groups())
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + milliseconds


def read_webvtt(text: str) -> list[ParsedCue]:
    """Parse WebVTT as specified: lines end with CR, LF or CRLF, and a blank line ends a cue."""
    lines = re.split(r"\r\n|\n|\r", text)
    assert lines[0] == "WEBVTT"
    assert "\0" not in text
    cues = []
    for block in "\n".join(lines[1:]).strip("\n").split("\n\n"):
        if not block:
            continue
        identifier, timing, *payload = block.split("\n")
        assert identifier == str(len(cues) + 1)
        start, arrow, end = timing.split(" ")
        assert arrow == "-->"
        assert "." in start
        body = "\n".join(payload)
        assert "-->" not in body
        voice = re.match(r"<v ([^>\n]+)>", body)
        body = body[voice.end() :] if voice else body
        assert not re.search(r"[<>]", body), "text must be escaped"
        assert not re.search(r"&(?!amp;|lt;|gt;|#45;)", body), "ampersands must be escaped"
        caption_lines = tuple(_unescape(line) for line in body.split("\n"))
        cues.append(
            ParsedCue(
                parse_clock_ms(start),
                parse_clock_ms(end),
                caption_lines,
                _unescape(voice[1]) if voice else "",
            )
        )
    return cues


def _unescape(text: str) -> str:
    # Only the escapes that the writer uses: html.unescape would also change "&ampx".
    return text.replace("&#45;", "-").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def read_srt(text: str) -> list[ParsedCue]:
    """Parse SubRip: numbered blocks between blank lines, without text that players parse as tags or timings."""
    if not text:
        return []
    assert text.endswith("\n")
    cues = []
    for number, block in enumerate(re.split(r"\n\n", text[:-1]), 1):
        counter, timing, *lines = re.split(r"\r\n|\n|\r", block)
        assert counter == str(number)
        start, arrow, end = timing.split(" ")
        assert arrow == "-->"
        assert "," in start
        assert lines
        assert all(lines)
        assert not re.search(r"-->|[<>{}]", "".join(lines))
        cues.append(ParsedCue(parse_clock_ms(start), parse_clock_ms(end), tuple(lines)))
    return cues


def read_ttml(text: str) -> list[ParsedCue]:
    """Parse TTML with the standard library's XML parser: one region, times on paragraphs."""
    root = ET.fromstring(text.encode())
    assert root.tag == f"{TT}tt"
    assert f"{XML}lang" in root.attrib
    names = {
        agent.attrib[f"{XML}id"]: agent.findtext(f"{TTM}name") or "" for agent in root.iter(f"{TTM}agent")
    }
    body = root.find(f"{TT}body")
    assert body is not None
    regions = {region.attrib[f"{XML}id"] for region in root.iter(f"{TT}region")}
    assert body.attrib["region"] in regions
    cues = []
    for paragraph in body.iter(f"{TT}p"):
        lines = [paragraph.text or ""]
        for child in paragraph:
            assert child.tag == f"{TT}br"
            lines.append(child.tail or "")
        begin, end = parse_clock_ms(paragraph.attrib["begin"]), parse_clock_ms(paragraph.attrib["end"])
        cues.append(
            ParsedCue(begin, end, tuple(lines), names.get(paragraph.attrib.get(f"{TTM}agent", ""), ""))
        )
    return cues
