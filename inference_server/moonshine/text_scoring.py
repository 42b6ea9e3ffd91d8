"""Scores of given texts for an utterance: how likely each is, by the letters that are heard in each frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gorggle_server.moonshine.word_alignment import SILENCE, add_any_letter, spell

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float32]


# Log-likelihood of what cannot be: finite, because minus infinity cannot be subtracted from itself.
_IMPOSSIBLE = -1e30


class LetterTextScorer:
    """Scores texts by the letters that are heard; see ``events.TextScorer``.

    Args:
        scores: (T, 27), of ``LetterModel.compute_scores``.
    """

    def __init__(self, scores: FloatArray) -> None:
        self._scores = scores

    def score(self, texts: Sequence[str]) -> list[float]:
        """Return the log-likelihood of each text; see ``score_texts``."""
        return score_texts(self._scores, texts)

    def compute_fit(self, score: float) -> float:
        """Return the score minus that of the likeliest class of every frame, for each frame of speech."""
        speech_frames = int((self._scores.argmax(axis=1) != SILENCE).sum())
        return (score - float(self._scores.max(axis=1).sum())) / max(1, speech_frames)


def score_texts(scores: FloatArray, texts: Sequence[str]) -> list[float]:
    """Compute the log-likelihood of each text, summed over all alignments (the forward algorithm).

    Args:
        scores: (T, 27), of ``LetterModel.compute_scores``.
        texts: words separated by spaces; numbers are best spelled out. Any text can be scored, not only the model's own.

    Returns:
        One value for each text, comparable between texts for the same audio; minus infinity for a text with more letters than
        there are frames.
    """
    spellings = [_list_states(text) for text in texts]
    width = max(map(len, spellings), default=0)
    if not width:
        return []
    # Padding states are never entered: they are impossible in every frame.
    classes = np.full((len(texts), width), scores.shape[1] + 1)
    for row, states in zip(classes, spellings, strict=True):
        row[: len(states)] = states
    columns = np.pad(add_any_letter(scores).astype(np.float64), ((0, 0), (0, 1)), constant_values=_IMPOSSIBLE)
    may_skip = np.zeros(classes.shape, bool)
    may_skip[:, 2:] = classes[:, 1:-1] == SILENCE
    # Two columns before the first state, so that every state has two before it.
    forward = np.full((len(texts), width + 2), _IMPOSSIBLE)
    forward[:, 2:4] = columns[0][classes[:, :2]]
    for frame in columns[1:]:
        stayed, advanced = forward[:, 2:], forward[:, 1:-1]
        skipped = np.where(may_skip, forward[:, :-2], _IMPOSSIBLE)
        best = np.maximum(np.maximum(stayed, advanced), skipped)
        total = np.exp(stayed - best) + np.exp(advanced - best) + np.exp(skipped - best)
        forward[:, 2:] = np.maximum(best + np.log(total) + frame[classes], _IMPOSSIBLE)
    forward = forward[:, 2:]
    last = np.array([len(states) - 1 for states in spellings])
    rows = np.arange(len(texts))
    # A text ends with its last letter or with the silence after it.
    ends = np.logaddexp(forward[rows, last], np.where(last > 0, forward[rows, last - 1], _IMPOSSIBLE))
    return [float(value) if value > _IMPOSSIBLE / 2 else -math.inf for value in ends]


def _list_states(text: str) -> list[int]:
    """Return the classes of a text: letters, and silence around and between words."""
    states = [SILENCE]
    for word in text.split():
        states += [*spell(word), SILENCE]
    return states
