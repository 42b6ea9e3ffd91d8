"""Words of Whisper's tokens, and their times from an alignment of the tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

# One step of an alignment: the encoder has one frame for two frames of the spectrogram.
FRAME_S = 0.02
# Scripts without spaces between words are split into phrases: each of these marks ends one.
_PHRASE_ENDS = frozenset("、。，！？；：")
# Marks that belong to the word before them, also after a space, as in French.
_TRAILING_MARKS = frozenset(".,!?;:…»")
MIN_WORD_S = 0.02


@dataclass(frozen=True)
class AlignedTokens:
    """Tokens of a text with their times.

    Attributes:
        start_s: (L + 1,), when each token begins, and when the last one ends; not decreasing.
        log_probabilities: (L,).
    """

    start_s: Sequence[float]
    log_probabilities: Sequence[float]


@dataclass
class TokenizedWord:
    """A word, and its tokens as a range of positions in the token sequence."""

    text: str
    first: int
    end: int


@dataclass(frozen=True)
class TimedWord:
    """A word with its times in seconds from the start of the waveform, and the geometric mean of its tokens' probabilities."""

    text: str
    start_s: float
    end_s: float
    confidence: float
    tokens: range = field(repr=False)


def split_words(pieces: Iterable[tuple[str, int]]) -> list[TokenizedWord]:
    """Group pieces of a text into words.

    Args:
        pieces: text and number of tokens of each piece; a piece is one token, or the tokens of one character.

    Returns:
        The words, none of which has white space; all of them joined by spaces are the text.
    """
    words: list[TokenizedWord] = []
    position = 0
    for text, count in pieces:
        stripped = "".join(text.split())
        if not words or (words[-1].text and _begins_word(text, stripped, words[-1].text)):
            words.append(TokenizedWord("", position, position))
        words[-1].text += stripped
        words[-1].end = position = position + count
    return [word for word in words if word.text]


def _begins_word(text: str, stripped: str, before: str) -> bool:
    if text[:1].isspace():
        return not stripped or not _TRAILING_MARKS.issuperset(stripped)
    return before[-1] in _PHRASE_ENDS and any(map(str.isalnum, stripped))


def time_words(words: Sequence[TokenizedWord], aligned: AlignedTokens, duration_s: float) -> list[TimedWord]:
    """Return the words with times within the waveform; they do not overlap and have a positive duration."""
    timed: list[TimedWord] = []
    earliest_s, min_word_s = 0.0, min(MIN_WORD_S, duration_s / max(1, len(words)))
    for number, word in enumerate(words):
        # So that there is room for the words that follow.
        latest_s = duration_s - (len(words) - number) * min_word_s
        start_s = max(earliest_s, min(aligned.start_s[word.first], latest_s))
        end_s = min(max(aligned.start_s[word.end], start_s + min_word_s), latest_s + min_word_s)
        scores = aligned.log_probabilities[word.first : word.end]
        confidence = math.exp(sum(scores) / len(scores))
        timed.append(TimedWord(word.text, start_s, end_s, confidence, range(word.first, word.end)))
        earliest_s = end_s
    return timed
