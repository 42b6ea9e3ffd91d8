"""Limits that captions keep, and the types of this package.

Sources: Netflix, Timed Text Style Guide, General Requirements (at most two lines; 5/6 s to 7 s; where lines break), its
Subtitle Timing Guidelines (two frames between captions), its English guide (42 characters a line; 17 characters a second
for adult programmes); BBC, Subtitle Guidelines (one sentence per caption, natural breaks, one speaker per caption).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gorggle.captions.text import display_width


class SpokenWord(Protocol):
    """A word and its time."""

    @property
    def text(self) -> str: ...  # noqa: D102
    @property
    def start_s(self) -> float: ...  # noqa: D102
    @property
    def end_s(self) -> float: ...  # noqa: D102


class SpokenSegment(SpokenWord, Protocol):
    """A segment of one speaker; without ``words``, its text is spread over its time; doubtful words are marked."""

    @property
    def speaker(self) -> str: ...  # noqa: D102
    @property
    def words(self) -> Sequence[SpokenWord]: ...  # noqa: D102
    @property
    def is_doubtful(self) -> bool: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class CaptionRules:
    """Limits of captions.

    Attributes:
        max_line_chars: columns of a line; a full-width character (Chinese, Japanese, Korean) takes two.
        max_lines: of one caption.
        max_chars_per_s: reading speed, kept where the pause after a caption is long enough.
        min_duration_ms: 5/6 s.
        max_duration_ms: also the longest speech in one caption.
        min_gap_ms: two frames at 25 Hz.
        max_delay_ms: how late a caption may start because of overlapping speech.
    """

    max_line_chars: int = 42
    max_lines: int = 2
    max_chars_per_s: float = 17.0
    min_duration_ms: int = 834
    max_duration_ms: int = 7000
    min_gap_ms: int = 80
    max_delay_ms: int = 1500

    def __post_init__(self) -> None:
        if self.max_line_chars < 10 or not 1 <= self.max_lines <= 4 or self.max_chars_per_s <= 0:
            raise ValueError(
                f"{self.max_line_chars} columns, {self.max_lines} lines, {self.max_chars_per_s:g} characters a second; "
                "expected at least 10, 1 to 4, and more than 0"
            )
        if (
            not 0 < self.min_duration_ms <= self.max_duration_ms
            or min(self.min_gap_ms, self.max_delay_ms) < 0
        ):
            raise ValueError(
                f"durations of {self.min_duration_ms} to {self.max_duration_ms} ms, gap {self.min_gap_ms} ms, delay "
                f"{self.max_delay_ms} ms; expected 0 < minimum <= maximum, and no negative gap or delay"
            )

    def min_reading_ms(self, columns: int) -> int:
        """Return the time needed to read text of a width, rounded up."""
        return -int(-1000 * columns // self.max_chars_per_s)


@dataclass(frozen=True, slots=True)
class Cue:
    """One caption, shown from ``start_ms`` to ``end_ms``; ``speaker`` is the displayed name and may be empty."""

    start_ms: int
    end_ms: int
    speaker: str
    lines: tuple[str, ...]

    @property
    def duration_ms(self) -> int:
        """The time it is shown."""
        return self.end_ms - self.start_ms

    @property
    def columns(self) -> int:
        """The width of the text."""
        return sum(map(display_width, self.lines))
