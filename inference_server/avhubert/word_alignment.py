"""Word timestamps from the decoder's cross-attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gorggle_server.avhubert.tokenizer import RESERVED_TOKENS, WORD_START, detokenize
from gorggle_server.errors import InvalidRequestError, ModelFormatError
from gorggle_server.events import Word
from gorggle_server.input_format import FRAME_S
from gorggle_server.viterbi import find_best_path

FloatArray = NDArray[np.float64]

# Emission of silence, relative to 1 for the frame that a token attends to most.
# (These constants and the smoothing were tuned on simulated attention of known timing, blurred and noisy.)
_SILENCE_SHARE = 0.4
# Minimum emission, so that no frame is impossible. A pause is detected from three frames on, because entering it costs
# as much as two frames of it gain.
_MIN_SHARE = 0.1
_PAUSE_COST = 2 * math.log(_SILENCE_SHARE / _MIN_SHARE)
# Frames after the last word may be assigned to </s>, at a lower weight than those of a clear last word.
_EOS_WEIGHT = 0.5
_SMOOTHING_FRAMES = 3


@dataclass(frozen=True)
class _Word:
    """A word's text and the rows of its tokens: first, and one past the last."""

    text: str
    first: int
    end: int


def align_words(
    attention: NDArray[np.floating],
    tokens: Sequence[str],
    *,
    token_scores: Sequence[float] | None = None,
) -> list[Word]:
    """Compute word timestamps by a Viterbi alignment of the attention.

    Args:
        attention: (L, T), cross-attention of each token; rows need not sum to one.
        tokens: the L tokens, with ``</s>`` if the attention has a row for it.
        token_scores: L log-probabilities; without them the confidence is 1.

    Returns:
        The words in order, with times from the clip's first frame and as confidence their probability given the previous
        words. They do not overlap, lie within the clip and have a positive duration.

    Raises:
        InvalidRequestError: the arguments' lengths do not match.
        ModelFormatError: the attention is not finite.
    """
    weights = np.asarray(attention, np.float64)
    _validate(weights, tokens, token_scores)
    spoken = _find_spoken(tokens)
    words = _group_words([tokens[row] for row in spoken])
    if not words:
        return []
    # With fewer frames than tokens, frames are subdivided so that every token gets at least one.
    parts = math.ceil(len(spoken) / weights.shape[1])
    shares = np.repeat(_normalize(weights), parts, axis=1)
    silence = np.full(shares.shape[1], _SILENCE_SHARE)
    after = np.maximum(silence, _EOS_WEIGHT * shares[-1]) if tokens[-1] == "</s>" else silence
    spans = _find_token_spans(shares[spoken], words, silence, after)
    probabilities = (
        [1.0] * len(words) if token_scores is None else compute_word_probabilities(tokens, token_scores)
    )
    part_s = FRAME_S / parts
    return [
        Word(
            word.text,
            start_s=float(spans[word.first, 0] * part_s),
            end_s=float(spans[word.end - 1, 1] * part_s),
            confidence=probability,
        )
        for word, probability in zip(words, probabilities, strict=True)
    ]


def compute_word_probabilities(tokens: Sequence[str], token_scores: Sequence[float]) -> list[float]:
    """Return the probability of each word given the previous ones: the product of its tokens' probabilities.

    Args:
        tokens: as in ``align_words``.
        token_scores: log-probability of each token.
    """
    spoken = _find_spoken(tokens)
    scores = [token_scores[row] for row in spoken]
    words = _group_words([tokens[row] for row in spoken])
    return [min(1.0, math.exp(sum(scores[word.first : word.end]))) for word in words]


def _find_spoken(tokens: Sequence[str]) -> list[int]:
    return [row for row, piece in enumerate(tokens) if piece not in RESERVED_TOKENS or piece == "<unk>"]


def _validate(weights: FloatArray, tokens: Sequence[str], token_scores: Sequence[float] | None) -> None:
    if weights.ndim != 2 or weights.shape[0] != len(tokens) or weights.shape[1] == 0:
        raise InvalidRequestError(
            f"attention has shape {weights.shape}; expected {len(tokens)} rows of at least one frame"
        )
    if token_scores is not None and len(token_scores) != len(tokens):
        raise InvalidRequestError(
            f"there are {len(token_scores)} token scores; expected {len(tokens)}, one per token"
        )
    if not np.isfinite(weights).all():
        raise ModelFormatError("the decoder's attention is not finite: the weights are damaged")


def _group_words(pieces: Sequence[str]) -> list[_Word]:
    """Group tokens into words; pieces without text belong to the following word."""
    later_starts = [row for row, piece in enumerate(pieces) if row > 0 and piece.startswith(WORD_START)]
    words: list[_Word] = []
    first_unused = 0
    for end in [*later_starts, len(pieces)]:
        text = detokenize(pieces[first_unused:end])
        if text:
            words.append(_Word(text, first_unused, end))
            first_unused = end
    return words


def _normalize(weights: FloatArray) -> FloatArray:
    """Smooth each row over time and scale its maximum to 1."""
    margin = (_SMOOTHING_FRAMES // 2, _SMOOTHING_FRAMES // 2)
    padded = np.pad(np.clip(weights, 0.0, None), ((0, 0), margin), mode="edge")
    smooth = np.lib.stride_tricks.sliding_window_view(padded, _SMOOTHING_FRAMES, axis=1).mean(axis=2)
    highest = smooth.max(axis=1, keepdims=True)
    shares: FloatArray = np.divide(smooth, highest, out=np.ones_like(weights), where=highest > 0)
    return shares


def _find_token_spans(
    shares: FloatArray, words: Sequence[_Word], silence: FloatArray, after: FloatArray
) -> NDArray[np.int64]:
    """Return the frames of each token on the most probable path: (tokens, 2), first and one past the last.

    The path passes all tokens in order, each for at least one frame, with optional silence before, between and after
    words.
    """
    emissions: list[FloatArray] = []
    row_of_state: list[int] = []
    for word in words:
        emissions += [silence, *shares[word.first : word.end]]
        row_of_state += [-1, *range(word.first, word.end)]
    emissions.append(after)
    row_of_state.append(-1)
    rows = np.array(row_of_state)
    path = rows[find_best_path(np.log(np.maximum(emissions, _MIN_SHARE)), rows < 0, _PAUSE_COST)]
    spans = np.zeros((len(shares), 2), np.int64)
    for row in range(len(shares)):
        (frames,) = np.nonzero(path == row)
        spans[row] = (frames[0], frames[-1] + 1) if len(frames) else (0, 0)
    return spans
