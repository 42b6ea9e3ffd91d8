"""Beam search over units, many clips at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inference_server.avhubert.config import EOS, PAD
from inference_server.avhubert.decoder import Decoder, DecoderState
from inference_server.errors import ModelFormatError

_NEVER = float("-inf")


@dataclass(frozen=True)
class Hypothesis:
    """One reading of a clip.

    ``tokens`` ends in ``</s>``; ``token_scores`` are the natural logarithms of their probabilities;
    ``score`` is their sum over the number of tokens to the power of the length penalty.
    """

    tokens: list[int]
    score: float
    token_scores: list[float]
    text: str = ""


@dataclass
class _Beams:
    """The unfinished hypotheses of n clips, w each.

    ``clips`` (n,) are places in the batch given; ``limits`` (n,) are in units without ``</s>``;
    ``tokens`` (n, w, 1 + steps) start with ``</s>``; ``scores`` (n, w, steps) are cumulative;
    ``finished`` (n,) counts the hypotheses that each clip has completed.
    """

    clips: Tensor
    limits: Tensor
    tokens: Tensor
    scores: Tensor
    finished: Tensor

    @property
    def steps(self) -> int:
        """How many units every hypothesis has."""
        return self.scores.shape[2]


@dataclass(frozen=True)
class _Candidates:
    """The best continuations of each clip's hypotheses, best first; all fields are (n, c)."""

    scores: Tensor
    parents: Tensor
    units: Tensor


def beam_search(
    decoder: Decoder,
    encoder_out: Tensor,
    padding_mask: Tensor | None,
    *,
    beam: int,
    length_penalty: float,
    limits: Sequence[int],
) -> list[list[Hypothesis]]:
    """Find the most probable readings of a batch of clips.

    Args:
        decoder: in evaluation mode.
        encoder_out: (B, T, D).
        padding_mask: (B, T), true where padded.
        beam: how many hypotheses live at a time, and the most that are returned for a clip.
        length_penalty: the power of the length that sums of log-probabilities are divided by.
        limits: for each clip the most units before ``</s>``, at least 1.

    Returns:
        For each clip its hypotheses without text, best first.

    Raises:
        ModelFormatError: the decoder gave scores that are not finite.

    Source: the rules of the reference's sequence generator, which the published results rest on.
    """
    state = decoder.start(encoder_out, padding_mask)
    beams = _start(encoder_out.device, limits)
    found: list[list[Hypothesis]] = [[] for _ in limits]
    while len(beams.clips):
        candidates = _candidates(_log_probabilities(decoder, beams, state), beams, beam)
        _collect(found, beams, candidates, beam, length_penalty)
        alive = (beams.finished < beam) & (beams.limits > beams.steps)
        beams = _advance(beams, candidates, state, alive.nonzero().squeeze(1), beam)
    # Sorting is stable: of equal scores the one that was complete first leads.
    return [sorted(hypotheses, key=lambda hypothesis: -hypothesis.score) for hypotheses in found]


def _start(device: torch.device, limits: Sequence[int]) -> _Beams:
    clips = len(limits)
    return _Beams(
        clips=torch.arange(clips, device=device),
        limits=torch.tensor(limits, device=device, dtype=torch.long),
        # One hypothesis each: that is how the first step expands only one beam.
        tokens=torch.full((clips, 1, 1), EOS, device=device, dtype=torch.long),
        scores=torch.zeros((clips, 1, 0), device=device),
        finished=torch.zeros(clips, device=device, dtype=torch.long),
    )


def _log_probabilities(decoder: Decoder, beams: _Beams, state: DecoderState) -> Tensor:
    """Of every next unit, (n, w, V), with what must not follow ruled out."""
    clips, width = beams.tokens.shape[:2]
    logits = decoder.step(beams.tokens[:, :, -1].flatten(), state).float()
    if not torch.isfinite(logits).all():
        raise ModelFormatError(
            "the decoder's scores are not finite: the weights are damaged, or their range is too wide for "
            f"{decoder.embed_tokens.weight.dtype}; convert the checkpoint again or load it as float32"
        )
    log_probabilities = logits.log_softmax(dim=-1).view(clips, width, -1)
    log_probabilities[:, :, PAD] = _NEVER
    if beams.steps == 0:
        log_probabilities[:, :, EOS] = _NEVER
    at_limit = beams.limits <= beams.steps
    forced = torch.full_like(log_probabilities, _NEVER)
    forced[:, :, EOS] = log_probabilities[:, :, EOS]
    return torch.where(at_limit[:, None, None], forced, log_probabilities)


def _candidates(log_probabilities: Tensor, beams: _Beams, beam: int) -> _Candidates:
    width, vocabulary = log_probabilities.shape[1:]
    if beams.steps:
        log_probabilities = log_probabilities + beams.scores[:, :, -1:]
    # One less than all there are: among them is always a <pad>.
    count = min(2 * beam, width * vocabulary - 1)
    scores, places = log_probabilities.flatten(1).topk(count)
    return _Candidates(scores, places // vocabulary, places % vocabulary)


def _collect(
    found: list[list[Hypothesis]], beams: _Beams, candidates: _Candidates, beam: int, length_penalty: float
) -> None:
    """Record what ends here; count it in ``beams.finished``."""
    ends = (candidates.units == EOS) & (candidates.scores > _NEVER)
    ends[:, beam:] = False
    # Where more end than there is room for, the best keep their places.
    ends &= ends.cumsum(1) + beams.finished[:, None] <= beam
    beams.finished += ends.sum(1)
    rows, ranks = ends.nonzero(as_tuple=True)
    if not len(rows):
        return
    parents = candidates.parents[rows, ranks]
    sums = torch.cat((beams.scores[rows, parents], candidates.scores[rows, ranks, None]), dim=1)
    each = sums.diff(dim=1, prepend=sums.new_zeros(len(rows), 1))
    length = beams.steps + 1
    for clip, tokens, total, token_scores in zip(
        beams.clips[rows].tolist(),
        beams.tokens[rows, parents, 1:].tolist(),
        sums[:, -1].tolist(),
        each.tolist(),
        strict=True,
    ):
        found[clip].append(Hypothesis([*tokens, EOS], total / length**length_penalty, token_scores))


def _advance(beams: _Beams, candidates: _Candidates, state: DecoderState, rows: Tensor, beam: int) -> _Beams:
    """Let the best unfinished candidates of the clips in ``rows`` live on; drop the other clips."""
    all_clips, width = beams.tokens.shape[:2]
    count = candidates.scores.shape[1]
    # Each hypothesis has one continuation that ends, so at least this many do not.
    survivors = min(beam, count - width)
    order = (candidates.units == EOS) * count + torch.arange(count, device=rows.device)
    chosen = order[rows].topk(survivors, largest=False).indices
    at = rows[:, None]
    parents = candidates.parents[at, chosen]
    if len(rows) < all_clips:
        state.keep_clips(rows)
    if len(rows) < all_clips or width > 1 or survivors > 1:
        state.reorder((at * width + parents).flatten())
    return _Beams(
        clips=beams.clips[rows],
        limits=beams.limits[rows],
        tokens=torch.cat((beams.tokens[at, parents], candidates.units[at, chosen].unsqueeze(2)), dim=2),
        scores=torch.cat((beams.scores[at, parents], candidates.scores[at, chosen].unsqueeze(2)), dim=2),
        finished=beams.finished[rows],
    )
