"""Captions in the SubRip (SRT) and WebVTT formats.

Segments become cues of at most two lines of 42 characters and seven seconds, the measures that broadcasters use.
Longer segments are cut between words at the words' own times; where words have no times, these are spread over the
segment by length. Cues never overlap, since players show overlapping ones badly: where people talk at once, the
earlier cue gives way after half a second.

Sources: SubRip has no standard, this follows what players read; WebVTT is https://www.w3.org/TR/webvtt1/.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gorggle.results import Segment

MAX_LINE_CHARS = 42
MAX_CUE_LINES = 2
MAX_CUE_MS = 7000
# What an overlapped cue keeps at least, if it lasts as long.
MIN_CUE_MS = 500
# Longer names are cut in SubRip's prefixes, so that words always fit beside them.
MAX_SPEAKER_CHARS = 20


@dataclass(frozen=True, slots=True)
class Cue:
    """A caption: what is shown from ``start_ms`` to ``end_ms``, always at least a millisecond."""

    start_ms: int
    end_ms: int
    speaker: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Token:
    """A piece of text without spaces that fits on one line."""

    text: str
    start_ms: int
    end_ms: int


def to_srt(segments: Iterable[Segment]) -> str:
    """Write the final segments as SubRip; speakers are named where there are several."""
    spoken = _spoken(segments)
    several = len({segment.speaker for segment in spoken}) > 1
    prefix = _srt_prefix if several else _no_prefix
    blocks = [
        f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n{_srt_text(cue)}\n"
        for number, cue in enumerate(_cues(spoken, prefix), 1)
    ]
    return "\n".join(blocks)


def to_vtt(segments: Iterable[Segment]) -> str:
    """Write the final segments as WebVTT, each cue in its speaker's voice."""
    blocks = [
        f"\n{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n{_vtt_text(cue)}\n"
        for cue in _cues(_spoken(segments), _no_prefix)
    ]
    return "WEBVTT\n" + "".join(blocks)


def cues(segments: Iterable[Segment]) -> list[Cue]:
    """The captions of the final segments, in order and one at a time."""
    return _cues(_spoken(segments), _no_prefix)


# -------------------------------------------------------------------------------------------------------------- cues


def _spoken(segments: Iterable[Segment]) -> list[Segment]:
    return [s for s in segments if s.is_final and (_clean(s.text) or any(_clean(w.text) for w in s.words))]


def _cues(segments: Sequence[Segment], prefix: Callable[[str], str]) -> list[Cue]:
    """The cues of all segments, in order and one at a time; ``prefix`` gives the label to show for a speaker."""
    cues = [cue for segment in segments for cue in _segment_cues(segment, prefix(segment.speaker))]
    cues.sort(key=lambda cue: cue.start_ms)
    return _one_at_a_time(cues)


def _segment_cues(segment: Segment, label: str) -> Iterator[Cue]:
    group: list[_Token] = []
    for token in _tokens(segment):
        if group and not (_fits(label, [*group, token]) and token.end_ms - group[0].start_ms <= MAX_CUE_MS):
            yield _cue(segment, label, group)
            group = []
        group.append(token)
    yield _cue(segment, label, group)


def _fits(label: str, tokens: Sequence[_Token]) -> bool:
    return len(_greedy_lines(_texts(label, tokens))) <= MAX_CUE_LINES


def _cue(segment: Segment, label: str, tokens: Sequence[_Token]) -> Cue:
    start_ms = tokens[0].start_ms
    end_ms = max(tokens[-1].end_ms, start_ms + 1)
    return Cue(start_ms, end_ms, _clean(segment.speaker), _balanced_lines(_texts(label, tokens)))


def _texts(label: str, tokens: Sequence[_Token]) -> list[str]:
    return [*label.split(), *(token.text for token in tokens)]


def _greedy_lines(texts: Sequence[str]) -> list[str]:
    lines = [texts[0]]
    for text in texts[1:]:
        if len(lines[-1]) + 1 + len(text) <= MAX_LINE_CHARS:
            lines[-1] += " " + text
        else:
            lines.append(text)
    return lines


def _balanced_lines(texts: Sequence[str]) -> tuple[str, ...]:
    """One line where all fits, else two that are as equal as can be. ``texts`` fit on two lines."""
    whole = " ".join(texts)
    if len(whole) <= MAX_LINE_CHARS:
        return (whole,)
    halves = [(" ".join(texts[:cut]), " ".join(texts[cut:])) for cut in range(1, len(texts))]
    return min(halves, key=lambda lines: max(map(len, lines)))


def _one_at_a_time(cues: Sequence[Cue]) -> list[Cue]:
    """Remove overlaps from cues that are sorted by start: ends are brought forward, or starts put off."""
    apart: list[Cue] = []
    for cue in cues:
        if apart and cue.start_ms < apart[-1].end_ms:
            before = apart[-1]
            kept_ms = min(before.end_ms - before.start_ms, MIN_CUE_MS)
            change_ms = max(cue.start_ms, before.start_ms + kept_ms)
            apart[-1] = replace(before, end_ms=change_ms)
            shown_ms = min(cue.end_ms - cue.start_ms, MIN_CUE_MS)
            cue = replace(cue, start_ms=change_ms, end_ms=max(cue.end_ms, change_ms + shown_ms))
        apart.append(cue)
    return apart


# ------------------------------------------------------------------------------------------------------------ tokens


def _tokens(segment: Segment) -> list[_Token]:
    """The segment's text as tokens whose times never fall."""
    tokens: list[_Token] = []
    earliest_ms = 0
    for text, start_s, end_s in _timed_texts(segment):
        start_ms = max(earliest_ms, round(start_s * 1000))
        end_ms = max(start_ms, round(end_s * 1000))
        tokens += _spread(text, start_ms, end_ms)
        earliest_ms = end_ms
    return tokens


def _timed_texts(segment: Segment) -> list[tuple[str, float, float]]:
    words = [(_clean(word.text), word.start_s, word.end_s) for word in segment.words]
    return [word for word in words if word[0]] or [(_clean(segment.text), segment.start_s, segment.end_s)]


def _spread(text: str, start_ms: int, end_ms: int) -> Iterator[_Token]:
    """Cut text at its spaces, and words that fit on no line at its width; time goes by length."""
    pieces = [
        word[at : at + MAX_LINE_CHARS] for word in text.split() for at in range(0, len(word), MAX_LINE_CHARS)
    ]
    total, done = sum(map(len, pieces)), 0
    for piece in pieces:
        from_ms = start_ms + (end_ms - start_ms) * done // total
        done += len(piece)
        yield _Token(piece, from_ms, start_ms + (end_ms - start_ms) * done // total)


def _clean(text: str) -> str:
    """Text on one line, without control characters: both formats are made of lines."""
    words = ("".join(c for c in word if unicodedata.category(c) != "Cc") for word in text.split())
    return " ".join(word for word in words if word)


# ----------------------------------------------------------------------------------------------------------- writing


def _clock(time_ms: int, separator: str) -> str:
    """``HH:MM:SS,mmm``; hours take more digits where they need them, as both formats allow."""
    seconds, milliseconds = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{separator}{milliseconds:03d}"


def _no_prefix(_speaker: str) -> str:
    return ""


def _srt_prefix(speaker: str) -> str:
    name = _clean(speaker)[:MAX_SPEAKER_CHARS].rstrip()
    return f"{name}:" if name else ""


def _srt_text(cue: Cue) -> str:
    # SubRip cannot escape the arrow that marks its timing lines.
    return "\n".join(cue.lines).replace("-->", "→")


def _vtt_text(cue: Cue) -> str:
    text = "\n".join(_escaped(line) for line in cue.lines)
    return f"<v {_escaped(cue.speaker)}>{text}" if cue.speaker else text


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
