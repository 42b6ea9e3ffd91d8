"""Text that grows while somebody speaks: which of its words have settled, and how often it is read anew."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gorggle_server.timebase import FRAME_RATE_HZ
from gorggle_server.types import Hypothesis, Word

# A word settles when two successive readings agree on it and all before it, and it ended so long before the end of
# what was read: the last sounds change their meaning with what follows.
STABLE_MARGIN_S = 0.4
# With several faces in view it may turn out half a second later who spoke.
STABLE_MARGIN_TURN_S = 1.2

# How much an utterance must have grown before it is read anew: the first time, at least, at most.
MIN_FIRST_FRAMES = 15
MIN_GROWTH_FRAMES = 8
MAX_GROWTH_FRAMES = 2 * FRAME_RATE_HZ


class StableTextTracker:
    """The words of one utterance as readings of it grow. Those that have settled begin every later text.

    Args:
        stable: words that had settled before, on another server.
    """

    def __init__(self, stable: Sequence[Word] = ()) -> None:
        self._stable = tuple(stable)
        self._last: tuple[Word, ...] = ()

    @property
    def stable_words(self) -> int:
        """How many words have settled."""
        return len(self._stable)

    def update(self, hypothesis: Hypothesis, stable_end_s: float) -> Hypothesis:
        """Take in a new reading of the utterance as far as it goes; give the text to show.

        Args:
            hypothesis: with the times of its words.
            stable_end_s: words that end later do not settle yet.
        """
        joined = self._merge_stable(hypothesis)
        words = joined.words
        agreed = 0
        while (
            agreed < min(len(words), len(self._last))
            and words[agreed].text == self._last[agreed].text
            and words[agreed].end_s <= stable_end_s
        ):
            agreed += 1
        self._last = words
        if agreed > len(self._stable):
            self._stable = words[:agreed]
        return joined

    def finalize(self, hypothesis: Hypothesis) -> Hypothesis:
        """The final text: the reading, but for words that had settled otherwise."""
        return self._merge_stable(hypothesis)

    def _merge_stable(self, hypothesis: Hypothesis) -> Hypothesis:
        """The settled words, then those of the reading that follow them."""
        settled = [word.text for word in self._stable]
        if [word.text for word in hypothesis.words[: len(settled)]] == settled:
            return hypothesis
        end_s = self._stable[-1].end_s
        following = [word for word in hypothesis.words if (word.start_s + word.end_s) / 2 > end_s]
        words = (*self._stable, *following)
        return Hypothesis(" ".join(word.text for word in words), _combine_confidences(words), words)


class InterimRateLimiter:
    """How often utterances are read while they go on: never more than half of the time goes into it."""

    def __init__(self) -> None:
        self._latency_s = 0.0

    def record_latency(self, seconds: float) -> None:
        """A reading took so long, waiting for the device included."""
        self._latency_s = seconds

    def is_due(self, frames: int, decoded_frames: int, elapsed_s: float) -> bool:
        """Whether an utterance of so many frames is to be read, of which so many were read so many seconds ago."""
        if not decoded_frames:
            return frames >= MIN_FIRST_FRAMES
        growth = 2 * self._latency_s * FRAME_RATE_HZ
        least = min(max(growth, MIN_GROWTH_FRAMES), MAX_GROWTH_FRAMES)
        return frames - decoded_frames >= least and elapsed_s >= 2 * self._latency_s


def _combine_confidences(words: Sequence[Word]) -> float:
    """The geometric mean of the words' confidences."""
    if not words:
        return 0.0
    return math.exp(sum(math.log(max(word.confidence, 1e-6)) for word in words) / len(words))
