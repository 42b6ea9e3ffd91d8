"""The measures of captions, and what a caption is.

Sources: Netflix, Timed Text Style Guide, General Requirements (at most two lines; 5/6 s to 7 s; where lines break), its
Subtitle Timing Guidelines (two frames between), its English guide (42 characters a line; 17 characters a second for
adult programmes); BBC, Subtitle Guidelines (sentences apart, natural breaks, one speaker's words together).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CaptionRules:
    """Measures that captions keep.

    Attributes:
        max_line_chars: columns of a line; a full-width character (Chinese, Japanese, Korean) takes two.
        max_lines: of one caption.
        max_chars_per_s: reading speed, kept where the pause after a caption lets it stay that long.
        min_duration_ms: 5/6 s.
        max_duration_ms: also the longest stretch of speech in one caption.
        min_gap_ms: two frames at 25 a second.
        max_delay_ms: how late a caption may come because somebody else talks at the same time.
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
                f"captions of {self.min_duration_ms} to {self.max_duration_ms} ms, {self.min_gap_ms} ms apart, up to "
                f"{self.max_delay_ms} ms late; expected the least above 0 and up to the most, none below 0"
            )

    def min_reading_ms(self, columns: int) -> int:
        """How long text must stay to be read, rounded up."""
        return -int(-1000 * columns // self.max_chars_per_s)


@dataclass(frozen=True, slots=True)
class Cue:
    """A caption: what is shown from ``start_ms`` to ``end_ms``, by one speaker; ``speaker`` may be empty."""

    start_ms: int
    end_ms: int
    speaker: str
    lines: tuple[str, ...]

    @property
    def duration_ms(self) -> int:
        """How long it is shown."""
        return self.end_ms - self.start_ms
