"""Words of Whisper's tokens, and their times from an alignment of the tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gorggle_server.input_format import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

# One step of an alignment: the encoder has one frame for two frames of the spectrogram.
FRAME_S = 0.02
# Scripts without spaces between words are split into phrases: each of these marks ends one.
_PHRASE_ENDS = frozenset("、。，！？；：")
# Marks that belong to the word before them, also after a space, as in French.
_TRAILING_MARKS = frozenset(".,!?;:…»")
MIN_WORD_S = 0.02
# Frames louder than this share of the way from the quietest to the loudest are speech: 0.4 and 0.5 give nearly the same times.
_MIN_SPEECH_LEVEL, _SILENCE_PERCENTILE, _SPEECH_PERCENTILE = 0.4, 10, 95
# With less, noise hides the silence.
_MIN_CONTRAST_DB = 6.0
# A word keeps this many frames.
_MIN_TRIMMED_FRAMES = 3


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


def time_words(
    words: Sequence[TokenizedWord], aligned: AlignedTokens, duration_s: float, shift_s: float = 0.0
) -> list[TimedWord]:
    """Return the words with their times, ``shift_s`` later than those of their tokens.

    Times lie within the waveform; words do not overlap and have a positive duration.
    """
    timed: list[TimedWord] = []
    earliest_s, min_word_s = 0.0, min(MIN_WORD_S, duration_s / max(1, len(words)))
    for number, word in enumerate(words):
        # So that there is room for the words that follow.
        latest_s = duration_s - (len(words) - number) * min_word_s
        start_s = max(earliest_s, min(aligned.start_s[word.first] + shift_s, latest_s))
        end_s = min(max(aligned.start_s[word.end] + shift_s, start_s + min_word_s), latest_s + min_word_s)
        scores = aligned.log_probabilities[word.first : word.end]
        confidence = math.exp(sum(scores) / len(scores))
        timed.append(TimedWord(word.text, start_s, end_s, confidence))
        earliest_s = end_s
    return timed


def measure_loudness(waveform: NDArray[np.int16]) -> NDArray[np.float64]:
    """Return the loudness of each 20 ms in decibels, (T,) for (S,) at 16 kHz."""
    samples = round(FRAME_S * SAMPLE_RATE_HZ)
    frames = waveform[: len(waveform) // samples * samples].reshape(-1, samples).astype(np.float64)
    loudness: NDArray[np.float64] = 10 * np.log10((frames**2).mean(axis=1) + 1.0)
    return loudness


def trim_silence(words: Sequence[TimedWord], loudness: NDArray[np.float64]) -> list[TimedWord]:
    """Cut silence off the start and the end of words, which an alignment divides among them.

    Args:
        words: of ``time_words``.
        loudness: of ``measure_loudness``.
    """
    if not len(loudness):
        return list(words)
    low, high = np.percentile(loudness, [_SILENCE_PERCENTILE, _SPEECH_PERCENTILE])
    is_speech = loudness >= low + _MIN_SPEECH_LEVEL * (high - low)
    if high - low < _MIN_CONTRAST_DB:
        return list(words)
    return [_trim_word(word, is_speech) for word in words]


def _trim_word(word: TimedWord, is_speech: NDArray[np.bool_]) -> TimedWord:
    first, end = int(word.start_s / FRAME_S), min(len(is_speech), math.ceil(word.end_s / FRAME_S))
    (spoken,) = np.nonzero(is_speech[first:end])
    if not len(spoken):
        return word
    start = min(first + int(spoken[0]), max(first, end - _MIN_TRIMMED_FRAMES))
    stop = max(first + int(spoken[-1]) + 1, min(end, start + _MIN_TRIMMED_FRAMES))
    return replace(word, start_s=max(word.start_s, start * FRAME_S), end_s=min(word.end_s, stop * FRAME_S))
