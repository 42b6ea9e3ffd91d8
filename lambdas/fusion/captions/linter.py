"""Whether captions keep the rules: every one that can be seen in the captions themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from gorggle_lambdas.fusion.captions.line_breaking import splits_number
from gorggle_lambdas.fusion.captions.rules import CaptionRules, Cue
from gorggle_lambdas.fusion.captions.text_width import clean_text, display_width
from gorggle_lambdas.fusion.text_normalization import find_separator

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
    """A rule that a caption breaks; ``cue`` is the caption's index, from 0."""

    cue: int
    rule: Rule
    message: str


def check_captions(cues: Sequence[Cue], rules: CaptionRules | None = None) -> list[Problem]:
    """Find every rule that captions break.

    A caption may be too fast to read only where the next one (or the longest duration) leaves it no more time. A
    caption's text belongs to its one speaker; that it holds nobody else's words cannot be seen here.
    """
    rules = rules or CaptionRules()
    found: list[Problem] = []
    for at, cue in enumerate(cues):
        following = cues[at + 1] if at + 1 < len(cues) else None
        checks = (
            _check_text(cue),
            _check_lines(cue, rules),
            _check_breaks(cue, rules),
            _check_times(cue, following, rules),
        )
        found += [Problem(at, rule, message) for check in checks for rule, message in check]
    return found


_Violations = Iterator[tuple[Rule, str]]


def _check_text(cue: Cue) -> _Violations:
    if not cue.lines:
        yield "text", "there is no line; expected at least one"
    for line in (*cue.lines, cue.speaker):
        # Label and name may hold a space that does not break.
        if clean_text(line) != line.replace("\u00a0", " ") or (line is not cue.speaker and not line):
            yield "text", f"{line!r} is empty or holds control characters or loose spaces"


def _check_lines(cue: Cue, rules: CaptionRules) -> _Violations:
    if len(cue.lines) > rules.max_lines:
        yield "line count", f"{len(cue.lines)} lines; expected at most {rules.max_lines}"
    for line in cue.lines:
        if display_width(line) > rules.max_line_chars:
            yield (
                "line length",
                f"{line!r} has {display_width(line)} columns; expected at most {rules.max_line_chars}",
            )


def _check_breaks(cue: Cue, rules: CaptionRules) -> _Violations:
    for first, second in zip(cue.lines, cue.lines[1:], strict=False):
        gap = find_separator(first, second)
        if display_width(first) + len(gap) + display_width(second) <= rules.max_line_chars:
            yield "needless break", f"{first!r} and {second!r} fit on one line"
    if len(cue.lines) == 2 and all(cue.lines):
        first, second = cue.lines
        words = first.split(" ") + second.split(" ")
        at = len(first.split(" "))
        if splits_number(words[at - 1], words[at]) and _can_break_elsewhere(words, at, rules):
            yield "number and noun", f"the break parts {words[at - 1]!r} from {words[at]!r}"


def _can_break_elsewhere(words: Sequence[str], at: int, rules: CaptionRules) -> bool:
    return any(
        other != at
        and not splits_number(words[other - 1], words[other])
        and display_width(" ".join(words[:other])) <= rules.max_line_chars
        and display_width(" ".join(words[other:])) <= rules.max_line_chars
        for other in range(1, len(words))
    )


def _check_times(cue: Cue, following: Cue | None, rules: CaptionRules) -> _Violations:
    least_ms, most_ms = rules.min_duration_ms, rules.max_duration_ms
    if not least_ms <= cue.duration_ms <= most_ms:
        yield "duration", f"shown for {cue.duration_ms} ms; expected {least_ms} to {most_ms}"
    if cue.start_ms < 0:
        yield "order", f"begins at {cue.start_ms} ms; expected 0 or later"
    gap_ms = None if following is None else following.start_ms - cue.end_ms
    if gap_ms is not None and gap_ms < 0:
        yield "order", f"ends {-gap_ms} ms after the next one begins"
    elif gap_ms is not None and gap_ms < rules.min_gap_ms:
        yield "gap", f"{gap_ms} ms before the next one; expected at least {rules.min_gap_ms}"
    columns = sum(map(display_width, cue.lines))
    has_room = (gap_ms is None or gap_ms > rules.min_gap_ms) and cue.duration_ms < most_ms
    if has_room and cue.duration_ms < rules.min_reading_ms(columns):
        speed = 1000 * columns / max(1, cue.duration_ms)
        yield "reading speed", f"{speed:.1f} characters a second; expected at most {rules.max_chars_per_s:g}"
