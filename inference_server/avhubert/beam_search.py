"""Batched beam search with continuous batching: clips are added to and removed from the batch between steps.

The search is numpy on the host, whatever computes the decoder: a step exchanges the newest tokens and their best continuations.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gorggle_server.avhubert.config import EOS, PAD
from gorggle_server.errors import ModelFormatError

_TOKENS_STEP = 64


@dataclass(frozen=True)
class Hypothesis:
    """One transcription hypothesis of a clip.

    ``tokens`` ends in ``</s>``; ``token_scores`` are the natural logarithms of their probabilities;
    ``score`` is their sum over the number of tokens to the power of the length penalty.
    """

    tokens: list[int]
    score: float
    token_scores: list[float]
    text: str = ""


@dataclass(frozen=True)
class StepInput:
    """What a decoder needs to extend the hypotheses of C clips, W per clip.

    Attributes:
        tokens: int64 (C, W), the newest token of each hypothesis.
        totals: float32 (C, W), their log-probabilities; minus infinity for unused hypotheses.
        is_first: bool (C,), no token has been generated: ``</s>`` may not follow.
        is_last: bool (C,), the limit is reached: only ``</s>`` may follow.
    """

    tokens: NDArray[np.int64]
    totals: NDArray[np.float32]
    is_first: NDArray[np.bool_]
    is_last: NDArray[np.bool_]


@dataclass(frozen=True)
class Candidates:
    """The best continuations of each clip, best first.

    Attributes:
        scores: float32 (C, 2W), log-probabilities of the continued hypotheses.
        parents: int64 (C, 2W), the hypotheses that are continued.
        tokens: int64 (C, 2W), the tokens that follow.
        is_finite: bool (C,), false for clips whose scores are not finite; their other fields mean nothing.
    """

    scores: NDArray[np.float32]
    parents: NDArray[np.int64]
    tokens: NDArray[np.int64]
    is_finite: NDArray[np.bool_]


class Cache(Protocol):
    """Keys and values of the clips in a batch, one row per clip."""

    def move_row(self, row: int, to: int) -> None:
        """Move a clip to another row, overwriting it."""

    def clear_row(self, row: int) -> None:
        """Zero a row whose values are not finite."""

    def drop_last_row(self) -> None:
        """Free the last used row."""

    def reorder(self, parents: NDArray[np.int64]) -> None:
        """Replace hypothesis (c, w) by the former (c, parents[c, w]); ``parents`` is (C, W)."""


class StepDecoder(Protocol):
    """A decoder that predicts one token at a time."""

    def create_cache(self, width: int) -> Any:
        """Return an empty ``Cache`` for clips with ``width`` hypotheses each."""

    def prefill(self, clips: Sequence[Any], cache: Any) -> None:
        """Add clips, encoder outputs (T, D), to a cache."""

    def find_candidates(self, step: StepInput, cache: Any) -> Candidates:
        """Append the newest token of every hypothesis to the cache, and return the best continuations.

        Padding never follows.
        """


@dataclass
class _Beams:
    """The unfinished hypotheses of C clips, W per clip.

    ``limits`` (C,) are the maximum tokens without ``</s>``; ``steps`` (C,) the tokens generated so far; ``tokens``
    (C, W, 1 + tokens) start with ``</s>``; ``scores`` (C, W, 1 + tokens) are cumulative log-probabilities starting
    with 0; ``totals`` (C, W) are the latest of them, minus infinity for unused hypotheses (a clip begins with one);
    ``finished`` (C,) counts completed hypotheses.
    """

    limits: NDArray[np.int64]
    steps: NDArray[np.int64]
    tokens: NDArray[np.int64]
    scores: NDArray[np.float32]
    totals: NDArray[np.float32]
    finished: NDArray[np.int64]

    @staticmethod
    def empty(width: int) -> _Beams:
        return _Beams(
            limits=np.zeros(0, np.int64),
            steps=np.zeros(0, np.int64),
            tokens=np.zeros((0, width, 1), np.int64),
            scores=np.zeros((0, width, 1), np.float32),
            totals=np.zeros((0, width), np.float32),
            finished=np.zeros(0, np.int64),
        )

    def add_clips(self, limits: Sequence[int]) -> _Beams:
        """Return the beams with new clips appended, each starting at ``</s>``."""
        new, width, length = len(limits), self.totals.shape[1], self.tokens.shape[2]
        totals = np.full((new, width), -np.inf, np.float32)
        totals[:, 0] = 0.0
        return _Beams(
            limits=np.concatenate((self.limits, np.array(limits, np.int64))),
            steps=np.concatenate((self.steps, np.zeros(new, np.int64))),
            tokens=np.concatenate((self.tokens, np.full((new, width, length), EOS, np.int64))),
            scores=np.concatenate((self.scores, np.zeros((new, width, length), np.float32))),
            totals=np.concatenate((self.totals, totals)),
            finished=np.concatenate((self.finished, np.zeros(new, np.int64))),
        )

    def remove_clip(self, row: int) -> _Beams:
        """Return the beams without one clip; the last clip takes its row."""
        order = np.arange(len(self.limits) - 1)
        if row < len(order):
            order[row] = len(order)
        return _Beams(**{name: array[order] for name, array in vars(self).items()})


class BeamSearch:
    """A running batch of beam searches with one beam width and length penalty.

    Clips are identified by keys that the caller chooses. Results do not depend on the other clips in the batch.

    Source: fairseq's sequence generator, which produced the published results.
    """

    def __init__(
        self,
        decoder: StepDecoder,
        *,
        beam: int,
        length_penalty: float,
        detokenize: Callable[[Sequence[int]], str] = lambda _: "",
    ) -> None:
        """Create an empty batch.

        Args:
            decoder: in evaluation mode.
            beam: number of hypotheses per clip, and maximum number returned.
            length_penalty: exponent of the length that divides the sum of log-probabilities.
            detokenize: converts token ids, including ``</s>``, to text.
        """
        self._detokenize = detokenize
        self._decoder, self._beam, self._length_penalty = decoder, beam, length_penalty
        self._cache = decoder.create_cache(beam)
        self._beams = _Beams.empty(beam)
        self._keys: list[Hashable] = []
        self._finished: list[list[Hypothesis]] = []

    @property
    def keys(self) -> list[Hashable]:
        """Keys of the clips in the batch."""
        return list(self._keys)

    def add(self, keys: Sequence[Hashable], clips: Sequence[Any], limits: Sequence[int]) -> None:
        """Add clips to the batch.

        Args:
            keys: one per clip, none of them in the batch already.
            clips: their encoder outputs, each (T, D), in the decoder's type of array.
            limits: maximum tokens before ``</s>`` of each clip, at least 1.
        """
        self._decoder.prefill(clips, self._cache)
        self._beams = self._beams.add_clips(limits)
        self._keys += keys
        self._finished += [[] for _ in keys]

    def remove(self, key: Hashable) -> None:
        """Remove a clip before its search has finished."""
        self._remove_row(self._keys.index(key))

    def step(self) -> dict[Hashable, list[Hypothesis] | ModelFormatError]:
        """Extend every hypothesis of every clip by one token.

        Returns:
            The clips that finished in this step and were removed from the batch: their hypotheses, best first, or the
            error if the decoder's scores were not finite.
        """
        beams = self._beams
        newest = np.take_along_axis(beams.tokens, beams.steps[:, None, None], axis=2)[:, :, 0]
        step = StepInput(newest, beams.totals, beams.steps == 0, beams.limits <= beams.steps)
        candidates = self._decoder.find_candidates(step, self._cache)
        self._collect(candidates)
        is_done = (beams.finished >= self._beam) | step.is_last | ~candidates.is_finite
        self._advance(candidates)
        done: dict[Hashable, list[Hypothesis] | ModelFormatError] = {}
        for row in np.flatnonzero(is_done)[::-1].tolist():
            if candidates.is_finite[row]:
                # The sort is stable: with equal scores the hypothesis that was completed first comes first.
                done[self._keys[row]] = sorted(self._finished[row], key=lambda found: -found.score)
            else:
                self._cache.clear_row(row)
                done[self._keys[row]] = ModelFormatError(
                    "the decoder's scores are not finite: the weights are damaged or exceed the range of their dtype; convert "
                    "the checkpoint again or load it as float32"
                )
            self._remove_row(row)
        return done

    def _remove_row(self, row: int) -> None:
        last = len(self._keys) - 1
        if row < last:
            self._cache.move_row(last, row)
            self._keys[row], self._finished[row] = self._keys[last], self._finished[last]
        self._cache.drop_last_row()
        self._beams = self._beams.remove_clip(row)
        del self._keys[last], self._finished[last]

    def _collect(self, candidates: Candidates) -> None:
        """Store the hypotheses that end in this step and count them in ``finished``."""
        beams, beam = self._beams, self._beam
        ends = (candidates.tokens == EOS) & (candidates.scores > -np.inf) & candidates.is_finite[:, None]
        ends[:, beam:] = False
        # At most ``beam`` hypotheses per clip are stored, the best first.
        ends &= ends.cumsum(axis=1) + beams.finished[:, None] <= beam
        beams.finished += ends.sum(axis=1)
        for row, rank in np.argwhere(ends).tolist():
            parent, length = candidates.parents[row, rank], int(beams.steps[row])
            sums = [*beams.scores[row, parent, : length + 1].tolist(), float(candidates.scores[row, rank])]
            tokens = [*beams.tokens[row, parent, 1 : length + 1].tolist(), EOS]
            token_scores = [after - before for before, after in pairwise(sums)]
            score = sums[-1] / (length + 1) ** self._length_penalty
            self._finished[row].append(Hypothesis(tokens, score, token_scores, self._detokenize(tokens)))

    def _advance(self, candidates: Candidates) -> None:
        """Continue with the best unfinished candidates of every clip."""
        beams = self._beams
        # The sort is stable: unfinished candidates keep their order.
        selected = np.argsort(candidates.tokens == EOS, axis=1, kind="stable")[:, : self._beam]
        parents = np.take_along_axis(candidates.parents, selected, axis=1)
        self._cache.reorder(parents)
        beams.steps += 1
        if int(beams.steps.max()) >= beams.tokens.shape[2]:
            room = ((0, 0), (0, 0), (0, _TOKENS_STEP))
            beams.tokens = np.pad(beams.tokens, room, constant_values=EOS)
            beams.scores = np.pad(beams.scores, room)
        rows, at = np.arange(len(parents))[:, None], beams.steps[:, None, None]
        beams.totals = np.take_along_axis(candidates.scores, selected, axis=1)
        newest = np.take_along_axis(candidates.tokens, selected, axis=1)
        beams.tokens, beams.scores = beams.tokens[rows, parents], beams.scores[rows, parents]
        np.put_along_axis(beams.tokens, at, newest[:, :, None], axis=2)
        np.put_along_axis(beams.scores, at, beams.totals[:, :, None], axis=2)


def select_candidates(logits: NDArray[np.float32], step: StepInput) -> Candidates:
    """Return the best continuations from the logits (C, W, V) of the next tokens."""
    clips, width, vocabulary = logits.shape
    with np.errstate(invalid="ignore", over="ignore"):
        # One reduction checks all values: inf and nan both propagate through the sum.
        is_finite = np.isfinite(logits.sum(axis=(1, 2)))
    if not is_finite.all():
        logits = np.where(is_finite[:, None, None], logits, np.float32(0))
    scores = logits - logits.max(axis=2, keepdims=True)
    scores -= np.log(np.exp(scores).sum(axis=2, keepdims=True))
    scores[:, :, PAD] = -np.inf
    scores[step.is_first, :, EOS] = -np.inf
    ends = scores[step.is_last, :, EOS]
    scores[step.is_last] = -np.inf
    scores[step.is_last, :, EOS] = ends
    totals = (scores + step.totals[:, :, None]).reshape(clips, -1)
    places = np.argpartition(totals, -2 * width, axis=1)[:, -2 * width :]
    places.sort(axis=1)  # equal scores are ordered by their place, whatever the partition did
    order = np.argsort(-np.take_along_axis(totals, places, axis=1), axis=1, kind="stable")
    places = np.take_along_axis(places, order, axis=1)
    best = np.take_along_axis(totals, places, axis=1)
    return Candidates(best, places // vocabulary, places % vocabulary, is_finite)


def beam_search(
    search: BeamSearch, encoder_out: Any, padding_mask: Any | None, *, limits: Sequence[int]
) -> list[list[Hypothesis]]:
    """Run a beam search over one batch of clips until all have finished.

    Args:
        search: empty.
        encoder_out: (B, T, D).
        padding_mask: (B, T), true where padded; only at the end of a clip.
        limits: maximum tokens before ``</s>`` of each clip, at least 1.

    Returns:
        The hypotheses of each clip, best first.

    Raises:
        ModelFormatError: the decoder's scores are not finite.
    """
    frames = encoder_out.shape[1]
    lengths = [frames] * len(limits) if padding_mask is None else (~padding_mask).sum(1).tolist()
    clips = [clip[:length] for clip, length in zip(encoder_out, lengths, strict=True)]
    search.add(range(len(limits)), clips, limits)
    found: dict[Hashable, list[Hypothesis]] = {}
    while search.keys:
        for clip, outcome in search.step().items():
            if isinstance(outcome, ModelFormatError):
                raise outcome
            found[clip] = outcome
    return [found[clip] for clip in range(len(limits))]
