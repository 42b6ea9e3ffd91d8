"""Plans overlapping windows of a long video, cut in pauses."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Overlap of neighbouring windows: the longest word and half a second, so that each word is complete in one window.
OVERLAP_S = 2.0
# A cut is searched this far around the target, as a fraction of a window's duration.
SEARCH_SHARE = 0.25
# Minimum window duration; a shorter rest is added to the previous window.
MIN_WINDOW_SHARE = 0.4
# A window is read from the last key frame before it. There is no cut where that key frame is further back, because too
# much would be processed twice.
MAX_LEAD_S = 30.0


@dataclass(frozen=True)
class Window:
    """A window of the video; ``index`` starts at 0."""

    index: int
    start_s: float
    end_s: float


def plan_windows(
    duration_s: float,
    window_duration_s: float,
    find_pause_s: Callable[[float, float], float],
    keyframes_s: Sequence[float],
) -> tuple[Window, ...]:
    """Plan the windows of a video.

    Args:
        duration_s: of the whole.
        window_duration_s: target duration of a window without the overlap.
        find_pause_s: returns the best time for a cut between two times.
        keyframes_s: sorted times of key frames; empty without video.

    Returns:
        Sorted windows that cover the whole; neighbours overlap by ``OVERLAP_S``.
    """
    cuts = _plan_cuts(duration_s, window_duration_s, find_pause_s, keyframes_s)
    bounds = [0.0, *cuts, duration_s]
    half_s = OVERLAP_S / 2
    return tuple(
        Window(index, round(max(0.0, start_s - half_s), 3), round(min(duration_s, end_s + half_s), 3))
        for index, (start_s, end_s) in enumerate(itertools.pairwise(bounds))
    )


def _plan_cuts(
    duration_s: float,
    window_duration_s: float,
    find_pause_s: Callable[[float, float], float],
    keyframes_s: Sequence[float],
) -> list[float]:
    cuts: list[float] = []
    last_s = 0.0
    target_s = window_duration_s
    while duration_s - target_s >= MIN_WINDOW_SHARE * window_duration_s:
        search_s = SEARCH_SHARE * window_duration_s
        cut_s = find_pause_s(target_s - search_s, target_s + search_s)
        if (
            duration_s - cut_s >= OVERLAP_S
            and cut_s - last_s >= OVERLAP_S
            and _has_near_keyframe(cut_s, keyframes_s)
        ):
            cuts.append(round(cut_s, 3))
            last_s = cut_s
            target_s = cut_s + window_duration_s
        else:
            target_s += window_duration_s
    return cuts


def _has_near_keyframe(cut_s: float, keyframes_s: Sequence[float]) -> bool:
    if not keyframes_s:
        return True
    start_s = cut_s - OVERLAP_S / 2
    index = bisect_right(keyframes_s, start_s)
    return index > 0 and start_s - keyframes_s[index - 1] <= MAX_LEAD_S
