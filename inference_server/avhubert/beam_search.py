"""Batched beam search with continuous batching: clips are added to and removed from the batch between steps."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gorggle_server.avhubert.config import EOS, PAD
from gorggle_server.avhubert.decoder import Decoder
from gorggle_server.errors import ModelFormatError

_NEG_INF = float("-inf")
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


@dataclass
class _Beams:
    """The unfinished hypotheses of C clips, W per clip.

    ``limits`` (C,) are the maximum tokens without ``</s>``; ``steps`` (C,) the tokens generated so far; ``tokens``
    (C, W, 1 + tokens) start with ``</s>``; ``scores`` (C, W, 1 + tokens) are cumulative log-probabilities starting
    with 0; ``totals`` (C, W) are the latest of them, minus infinity for unused hypotheses (a clip begins with one);
    ``finished`` (C,) counts completed hypotheses.
    """

    limits: Tensor
    steps: Tensor
    tokens: Tensor
    scores: Tensor
    totals: Tensor
    finished: Tensor

    @staticmethod
    def empty(width: int, device: torch.device) -> _Beams:
        counts = torch.zeros(0, device=device, dtype=torch.long)
        return _Beams(
            limits=counts,
            steps=counts.clone(),
            tokens=torch.zeros(0, width, 1, device=device, dtype=torch.long),
            scores=torch.zeros(0, width, 1, device=device),
            totals=torch.zeros(0, width, device=device),
            finished=counts.clone(),
        )

    def add_clips(self, limits: Sequence[int]) -> _Beams:
        """Return the beams with new clips appended, each starting at ``</s>``."""
        new, width, length = len(limits), self.totals.shape[1], self.tokens.shape[2]
        totals = self.totals.new_full((new, width), _NEG_INF)
        totals[:, 0] = 0.0
        tokens = self.tokens.new_full((new, width, length), EOS)
        return _Beams(
            limits=torch.cat((self.limits, self.limits.new_tensor(limits))),
            steps=torch.cat((self.steps, self.steps.new_zeros(new))),
            tokens=torch.cat((self.tokens, tokens)),
            scores=torch.cat((self.scores, self.scores.new_zeros(new, width, length))),
            totals=torch.cat((self.totals, totals)),
            finished=torch.cat((self.finished, self.finished.new_zeros(new))),
        )

    def remove_clip(self, row: int) -> _Beams:
        """Return the beams without one clip; the last clip takes its row."""
        order = torch.arange(len(self.limits) - 1, device=self.limits.device)
        if row < len(order):
            order[row] = len(order)
        return _Beams(**{name: tensor[order] for name, tensor in vars(self).items()})


@dataclass(frozen=True)
class _Candidates:
    """The best continuations of each clip, best first; all fields are (C, 2W)."""

    scores: Tensor
    parents: Tensor
    tokens: Tensor


class BeamSearch:
    """A running batch of beam searches with one beam width and length penalty.

    Clips are identified by keys that the caller chooses. Results do not depend on the other clips in the batch.

    Source: fairseq's sequence generator, which produced the published results.
    """

    def __init__(
        self,
        decoder: Decoder,
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
        self._beams = _Beams.empty(beam, self._cache.positions.device)
        self._keys: list[Hashable] = []
        self._finished: list[list[Hypothesis]] = []

    @property
    def keys(self) -> list[Hashable]:
        """Keys of the clips in the batch."""
        return list(self._keys)

    @torch.inference_mode()
    def add(
        self, keys: Sequence[Hashable], encoder_out: Tensor, lengths: Sequence[int], limits: Sequence[int]
    ) -> None:
        """Add clips to the batch.

        Args:
            keys: one per clip, none of them in the batch already.
            encoder_out: (B, T, D).
            lengths: number of valid frames of each clip; the rest is padding.
            limits: maximum tokens before ``</s>`` of each clip, at least 1.
        """
        self._decoder.prefill(encoder_out, list(lengths), self._cache)
        self._beams = self._beams.add_clips(limits)
        self._keys += keys
        self._finished += [[] for _ in keys]

    @torch.inference_mode()
    def remove(self, key: Hashable) -> None:
        """Remove a clip before its search has finished."""
        self._remove_row(self._keys.index(key))

    @torch.inference_mode()
    def step(self) -> dict[Hashable, list[Hypothesis] | ModelFormatError]:
        """Extend every hypothesis of every clip by one token.

        Returns:
            The clips that finished in this step and were removed from the batch: their hypotheses, best first, or the
            error if the decoder's scores were not finite.
        """
        log_probabilities, damaged = self._next_log_probabilities()
        candidates = _top_candidates(log_probabilities, self._beams)
        self._collect(candidates)
        ended = (self._beams.finished >= self._beam) | (self._beams.limits <= self._beams.steps)
        self._advance(candidates)
        done: dict[Hashable, list[Hypothesis] | ModelFormatError] = {}
        for row in sorted({*damaged, *ended.nonzero().flatten().tolist()}, reverse=True):
            if row in damaged:
                self._cache.clear_row(row)
                done[self._keys[row]] = self._non_finite_error()
            else:
                # The sort is stable: with equal scores the hypothesis that was completed first comes first.
                done[self._keys[row]] = sorted(self._finished[row], key=lambda found: -found.score)
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

    def _next_log_probabilities(self) -> tuple[Tensor, set[int]]:
        """Return log-probabilities of the next token (C, W, V), and the rows whose scores are not finite.

        Tokens that may not follow have minus infinity: padding, ``</s>`` first, all but ``</s>`` at the limit.
        """
        beams = self._beams
        newest = beams.tokens.gather(
            2, beams.steps[:, None, None].expand(-1, beams.tokens.shape[1], 1)
        ).squeeze(2)
        logits = self._decoder.step(newest, self._cache).float()
        damaged: set[int] = set()
        # One reduction checks all values: inf and nan both propagate through the sum.
        if not torch.isfinite(logits.sum()):
            finite = torch.isfinite(logits).flatten(1).all(dim=1)
            damaged = set((~finite).nonzero().flatten().tolist())
            logits[~finite] = 0.0
        log_probabilities = logits.log_softmax(dim=-1)
        log_probabilities[:, :, PAD] = _NEG_INF
        at_end = log_probabilities[:, :, EOS].masked_fill((beams.steps == 0)[:, None], _NEG_INF)
        log_probabilities.masked_fill_((beams.limits <= beams.steps)[:, None, None], _NEG_INF)
        log_probabilities[:, :, EOS] = at_end
        return log_probabilities, damaged

    def _collect(self, candidates: _Candidates) -> None:
        """Store the hypotheses that end in this step and count them in ``finished``."""
        beams, beam = self._beams, self._beam
        ends = (candidates.tokens == EOS) & (candidates.scores > _NEG_INF)
        ends[:, beam:] = False
        # At most ``beam`` hypotheses per clip are stored, the best first.
        ends &= ends.cumsum(1) + beams.finished[:, None] <= beam
        beams.finished += ends.sum(1)
        rows, ranks = ends.nonzero(as_tuple=True)
        if not len(rows):
            return
        parents = candidates.parents[rows, ranks]
        for row, length, tokens, sums, total in zip(
            rows.tolist(),
            beams.steps[rows].tolist(),
            beams.tokens[rows, parents].tolist(),
            beams.scores[rows, parents].double().diff(dim=1).tolist(),
            torch.stack((candidates.scores[rows, ranks], beams.totals[rows, parents]), 1).double().tolist(),
            strict=True,
        ):
            whole, before = total
            score = whole / (length + 1) ** self._length_penalty
            hypothesis, scores = [*tokens[1 : length + 1], EOS], [*sums[:length], whole - before]
            self._finished[row].append(Hypothesis(hypothesis, score, scores, self._detokenize(hypothesis)))

    def _advance(self, candidates: _Candidates) -> None:
        """Continue with the best unfinished candidates of every clip."""
        beams, count = self._beams, candidates.scores.shape[1]
        order = (candidates.tokens == EOS) * count + torch.arange(count, device=candidates.tokens.device)
        selected = order.topk(self._beam, largest=False).indices
        parents = candidates.parents.gather(1, selected)
        self._cache.reorder(parents)
        beams.steps += 1
        if int(beams.steps.max()) >= beams.tokens.shape[2]:
            beams.tokens = torch.nn.functional.pad(beams.tokens, (0, _TOKENS_STEP), value=EOS)
            beams.scores = torch.nn.functional.pad(beams.scores, (0, _TOKENS_STEP))
        lineage = parents.unsqueeze(2).expand(-1, -1, beams.tokens.shape[2])
        at = beams.steps[:, None, None].expand(-1, self._beam, 1)
        beams.totals = candidates.scores.gather(1, selected)
        newest = candidates.tokens.gather(1, selected).unsqueeze(2)
        beams.tokens = beams.tokens.gather(1, lineage).scatter_(2, at, newest)
        beams.scores = beams.scores.gather(1, lineage).scatter_(2, at, beams.totals.unsqueeze(2))

    def _non_finite_error(self) -> ModelFormatError:
        return ModelFormatError(
            "the decoder's scores are not finite: the weights are damaged or exceed the range of "
            f"{self._decoder.embed_tokens.weight.dtype}; convert the checkpoint again or load it as float32"
        )


def _top_candidates(log_probabilities: Tensor, beams: _Beams) -> _Candidates:
    width, vocabulary = log_probabilities.shape[1:]
    totals = log_probabilities + beams.totals.unsqueeze(2)
    scores, places = totals.flatten(1).topk(2 * width)
    return _Candidates(scores, places // vocabulary, places % vocabulary)


def beam_search(
    search: BeamSearch, encoder_out: Tensor, padding_mask: Tensor | None, *, limits: Sequence[int]
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
    search.add(range(len(limits)), encoder_out, lengths, limits)
    found: dict[Hashable, list[Hypothesis]] = {}
    while search.keys:
        for clip, outcome in search.step().items():
            if isinstance(outcome, ModelFormatError):
                raise outcome
            found[clip] = outcome
    return [found[clip] for clip in range(len(limits))]
