"""Interim transcripts: which of their words are stable, and how often they are decoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from gorggle_server.events import Hypothesis, Word
from gorggle_server.input_format import FRAME_RATE_HZ

# A word becomes stable when two successive hypotheses agree on it and on all words before it, and it ended this long
# before the end of the decoded span: the last phonemes change with what follows.
STABLE_MARGIN_S = 0.4
# With several visible faces, the speaker may be reassigned half a second later.
STABLE_MARGIN_TURN_S = 1.2

# Growth of an utterance before it is decoded again: the first time, minimum and maximum.
MIN_FIRST_FRAMES = 15
MIN_GROWTH_FRAMES = 8
MAX_GROWTH_FRAMES = 2 * FRAME_RATE_HZ


class StableTextTracker:
    """Words of one utterance over successive hypotheses. Stable words begin every later text.

    Args:
        stable: words that had become stable earlier, on another server.
    """

    def __init__(self, stable: Sequence[Word] = ()) -> None:
        self._stable = tuple(stable)
        self._last: tuple[Word, ...] = ()

    @property
    def stable_words(self) -> int:
        """Number of stable words."""
        return len(self._stable)

    def update(self, hypothesis: Hypothesis, stable_end_s: float) -> Hypothesis:
        """Add a new hypothesis of the utterance so far; return the text to show.

        Args:
            hypothesis: with word timestamps.
            stable_end_s: words that end later do not become stable yet.
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
        """Return the final text: the hypothesis, except for words that are already stable."""
        return self._merge_stable(hypothesis)

    def _merge_stable(self, hypothesis: Hypothesis) -> Hypothesis:
        """Return the stable words, followed by the words of the hypothesis after them."""
        settled = [word.text for word in self._stable]
        if [word.text for word in hypothesis.words[: len(settled)]] == settled:
            return hypothesis
        end_s = self._stable[-1].end_s
        following = [word for word in hypothesis.words if (word.start_s + word.end_s) / 2 > end_s]
        words = (*self._stable, *following)
        text = " ".join(word.text for word in words)
        return replace(hypothesis, text=text, confidence=_combine_confidences(words), words=words)


class InterimRateLimiter:
    """Limits how often ongoing utterances are decoded: at most half of the time is spent on it."""

    def __init__(self) -> None:
        self._latency_s = 0.0

    def record_latency(self, seconds: float) -> None:
        """Record how long a decoding took, queueing included."""
        self._latency_s = seconds

    def is_due(self, frames: int, decoded_frames: int, elapsed_s: float) -> bool:
        """Return whether to decode again an utterance of ``frames``, of which ``decoded_frames`` were submitted ``elapsed_s`` ago."""
        if not decoded_frames:
            return frames >= MIN_FIRST_FRAMES
        growth = 2 * self._latency_s * FRAME_RATE_HZ
        min_growth = min(max(growth, MIN_GROWTH_FRAMES), MAX_GROWTH_FRAMES)
        return frames - decoded_frames >= min_growth and elapsed_s >= 2 * self._latency_s


def _combine_confidences(words: Sequence[Word]) -> float:
    """Return the geometric mean of the words' confidences."""
    if not words:
        return 0.0
    return math.exp(sum(math.log(max(word.confidence, 1e-6)) for word in words) / len(words))
