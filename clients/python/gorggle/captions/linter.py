"""Checks captions against the rules, as far as the captions themselves show violations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from gorggle.captions.line_breaking import splits_number
from gorggle.captions.rules import CaptionRules, Cue
from gorggle.captions.text import clean_text, display_width, find_separator

Rule = Literal[
    "text",
    "line length",
    "line count",
    "needless break",
    "number and noun",
    "duration",
    "order",
    "gap",
    "reading speed",
]


@dataclass(frozen=True, slots=True)
class Problem:
    """A violated rule; ``cue`` is the caption's index, from 0."""

    cue: int
    rule: Rule
    message: str


def check_captions(cues: Sequence[Cue], rules: CaptionRules | None = None) -> list[Problem]:
    """Return every violation of the rules.

    A caption may exceed the reading speed only where the next one, or the maximum duration, leaves no more time. That a
    caption holds only its own speaker's words cannot be checked here.
    """
    rules = rules or CaptionRules()
    problems: list[Problem] = []
    for index, cue in enumerate(cues):
        following = cues[index + 1] if index + 1 < len(cues) else None
        checks = (
            _check_text(cue),
            _check_lines(cue, rules),
            _check_breaks(cue, rules),
            _check_times(cue, following, rules),
        )
        problems += [Problem(index, rule, message) for check in checks for rule, message in check]
    return problems


_Violations = Iterator[tuple[Rule, str]]


def _check_text(cue: Cue) -> _Violations:
    if not cue.lines:
        yield "text", "there is no line; expected at least one"
    for line in (*cue.lines, cue.speaker):
        # Labels and names may hold non-breaking spaces.
        if clean_text(line) != line.replace("\u00a0", " ") or (line is not cue.speaker and not line):
            yield "text", f"{line!r} is empty or holds control characters or surplus spaces"


def _check_lines(cue: Cue, rules: CaptionRules) -> _Violations:
    if len(cue.lines) > rules.max_lines:
        yield "line count", f"{len(cue.lines)} lines; expected at most {rules.max_lines}"
    for line in cue.lines:
        columns = display_width(line)
        if columns > rules.max_line_chars:
            yield "line length", f"{line!r} has {columns} columns; expected at most {rules.max_line_chars}"


def _check_breaks(cue: Cue, rules: CaptionRules) -> _Violations:
    for first, second in zip(cue.lines, cue.lines[1:], strict=False):
        gap = find_separator(first, second)
        if display_width(first) + len(gap) + display_width(second) <= rules.max_line_chars:
            yield "needless break", f"{first!r} and {second!r} fit on one line"
    if len(cue.lines) == 2 and all(cue.lines):
        first, second = cue.lines
        words = first.split(" ") + second.split(" ")
        cut = len(first.split(" "))
        if splits_number(words[cut - 1], words[cut]) and _can_break_elsewhere(words, cut, rules):
            yield "number and noun", f"the break separates {words[cut - 1]!r} from {words[cut]!r}"


def _can_break_elsewhere(words: Sequence[str], cut: int, rules: CaptionRules) -> bool:
    return any(
        other != cut
        and not splits_number(words[other - 1], words[other])
        and display_width(" ".join(words[:other])) <= rules.max_line_chars
        and display_width(" ".join(words[other:])) <= rules.max_line_chars
        for other in range(1, len(words))
    )


def _check_times(cue: Cue, following: Cue | None, rules: CaptionRules) -> _Violations:
    min_ms, max_ms = rules.min_duration_ms, rules.max_duration_ms
    if not min_ms <= cue.duration_ms <= max_ms:
        yield "duration", f"shown for {cue.duration_ms} ms; expected {min_ms} to {max_ms}"
    if cue.start_ms < 0:
        yield "order", f"starts at {cue.start_ms} ms; expected 0 or later"
    gap_ms = None if following is None else following.start_ms - cue.end_ms
    if gap_ms is not None and gap_ms < 0:
        yield "order", f"ends {-gap_ms} ms after the next one starts"
    elif gap_ms is not None and gap_ms < rules.min_gap_ms:
        yield "gap", f"{gap_ms} ms before the next one; expected at least {rules.min_gap_ms}"
    has_room = (gap_ms is None or gap_ms > rules.min_gap_ms) and cue.duration_ms < max_ms
    if has_room and cue.duration_ms < rules.min_reading_ms(cue.columns):
        speed = 1000 * cue.columns / max(1, cue.duration_ms)
        yield "reading speed", f"{speed:.1f} characters a second; expected at most {rules.max_chars_per_s:g}"
