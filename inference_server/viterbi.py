"""Forced alignment: the most probable path through a fixed sequence of states, with optional pauses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def find_best_path(
    scores: NDArray[np.floating], is_pause: NDArray[np.bool_], pause_cost: float
) -> NDArray[np.int64]:
    """Find the best left-to-right path with the Viterbi algorithm.

    Args:
        scores: (states, T), log-probabilities. There are at least as many frames as states that are not pauses.
        is_pause: (states,), states that may be skipped; the first and the last are, and no two follow each other.
        pause_cost: subtracted for entering a pause between others.

    Returns:
        The state of each frame, (T,).
    """
    states, frames = scores.shape
    may_skip = np.zeros(states, bool)
    may_skip[2:] = is_pause[1:-1]
    entry_cost = np.where(is_pause, pause_cost, 0.0)
    entry_cost[[0, -1]] = 0.0
    best = np.full(states, -np.inf)
    best[:2] = scores[:2, 0]
    came_by = np.zeros((states, frames), np.int64)
    for frame in range(1, frames):
        advance = np.concatenate(([-np.inf], best[:-1])) - entry_cost
        skip = np.where(may_skip, np.concatenate(([-np.inf, -np.inf], best[:-2])), -np.inf)
        choices = np.stack((best, advance, skip))
        came_by[:, frame] = choices.argmax(axis=0)
        best = choices.max(axis=0) + scores[:, frame]
    path = np.empty(frames, np.int64)
    path[-1] = states - 1 if best[-1] > best[-2] else states - 2
    for frame in range(frames - 1, 0, -1):
        path[frame - 1] = path[frame] - came_by[path[frame], frame]
    return path
