"""Active speaker detection: assign each span of speech to the faces whose mouths move in it. Pure functions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gorggle_server.streaming.endpointing import FrameSpan
from gorggle_server.streaming.stream_buffer import FaceTrack

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Minimum share of a span in which a face must be visible to be judged.
MIN_COVERAGE = 0.5
# Minimum share of a span in which the mouth must move: a still face is a listener.
MIN_SPEAKING_SHARE = 0.2
# Minimum duration of a turn: shorter turns are not trusted.
MIN_TURN_FRAMES = 15
# Cost of a speaker change in log probability: about half a second of clear evidence.
SWITCH_COST = 8.0
# Lips rest between words: average the evidence over half a second.
SMOOTHING_FRAMES = 13
# How far the boundary between two turns may move to fall into a pause.
CUT_SEARCH_FRAMES = 8


@dataclass(frozen=True)
class SpeakerTurn:
    """A span of speech and the face it belongs to; None if no visible person speaks."""

    span: FrameSpan
    track: FaceTrack | None


def assign_turns(
    span: FrameSpan,
    tracks: Sequence[FaceTrack],
    audio_vad: NDArray[np.float32],
    correlation: dict[int, float] | None = None,
) -> list[SpeakerTurn]:
    """Divide a span of speech among the visible faces.

    Args:
        span: where speech was detected.
        tracks: the known faces.
        audio_vad: (T,), speech probability per frame of the span: boundaries fall where it is low.
        correlation: for each face, the correlation of its mouth movement with the audio over the span, −1 to 1.

    Returns:
        Consecutive turns that fill the span.
    """
    candidates = [track for track in tracks if track.crops and track.get_coverage(span) >= MIN_COVERAGE]
    if not candidates:
        return [SpeakerTurn(span, None)]
    speaking = np.stack([_smooth(track.get_speaking(span)) for track in candidates])
    bonus = np.array([(correlation or {}).get(track.track_id, 0.0) for track in candidates])[:, None]
    chosen = _find_best_path(np.log(speaking + 0.05) + bonus)
    turns = []
    for first, last, index in _split_turns(_merge_short_turns(chosen), audio_vad):
        turn_span = FrameSpan(span.start + first, span.start + last)
        share = float((candidates[index].get_speaking(turn_span) >= 0.5).mean()) if turn_span.frames else 0.0
        turns.append(SpeakerTurn(turn_span, candidates[index] if share >= MIN_SPEAKING_SHARE else None))
    return _join_turns(turns)


def _smooth(curve: NDArray[np.float32]) -> NDArray[np.float32]:
    width = min(SMOOTHING_FRAMES, len(curve))
    smooth = np.convolve(
        np.pad(curve, width // 2, mode="edge"), np.ones(width, np.float32) / width, mode="valid"
    )
    return smooth[: len(curve)].astype(np.float32)


def _find_best_path(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the sequence of candidates with the best total score, minus ``SWITCH_COST`` per change (Viterbi)."""
    candidates, frames = scores.shape
    if candidates == 1:
        return np.zeros(frames, np.intp)
    came_from = np.zeros((candidates, frames), np.intp)
    best = scores[:, 0].copy()
    for frame in range(1, frames):
        leader = int(best.argmax())
        stays = best >= best[leader] - SWITCH_COST
        came_from[:, frame] = np.where(stays, np.arange(candidates), leader)
        best = np.where(stays, best, best[leader] - SWITCH_COST) + scores[:, frame]
    path = np.empty(frames, np.intp)
    path[-1] = best.argmax()
    for frame in range(frames - 1, 0, -1):
        path[frame - 1] = came_from[path[frame], frame]
    return path


def _merge_short_turns(path: NDArray[np.intp]) -> NDArray[np.intp]:
    """Merge turns that are too short into the previous turn (the first one into the next turn)."""
    path = path.copy()
    edges = [0, *(np.flatnonzero(np.diff(path)) + 1), len(path)]
    for first, last in itertools.pairwise(edges):
        if last - first < MIN_TURN_FRAMES:
            if first > 0:
                path[first:last] = path[first - 1]
            elif last < len(path):
                path[first:last] = path[last]
    return path


def _split_turns(path: NDArray[np.intp], audio_vad: NDArray[np.float32]) -> list[tuple[int, int, int]]:
    """Return first frame, end and candidate of each turn, with boundaries moved into the nearest pause."""
    cuts: list[int] = []
    for change in (np.flatnonzero(np.diff(path)) + 1).tolist():
        first = max(change - CUT_SEARCH_FRAMES, cuts[-1] + 1 if cuts else 1)
        window = audio_vad[first : change + CUT_SEARCH_FRAMES + 1]
        cuts.append(first + int(window.argmin()) if len(window) else change)
    starts, ends = [0, *cuts], [*cuts, len(path)]
    # Take the candidate at the middle of the turn, which no moved boundary reaches.
    return [
        (first, last, int(path[(first + last) // 2]))
        for first, last in zip(starts, ends, strict=True)
        if last > first
    ]


def _join_turns(turns: Sequence[SpeakerTurn]) -> list[SpeakerTurn]:
    """Join neighbouring turns of the same face."""
    joined: list[SpeakerTurn] = []
    for turn in turns:
        if joined and joined[-1].track is turn.track:
            joined[-1] = SpeakerTurn(FrameSpan(joined[-1].span.start, turn.span.end), turn.track)
        else:
            joined.append(turn)
    return joined
