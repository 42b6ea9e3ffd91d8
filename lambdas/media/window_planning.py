"""The plan of windows: a long video is read in pieces that overlap, cut where nobody speaks."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Neighbouring windows share so much: the longest word and half a second, so that no word is cut in both.
OVERLAP_S = 2.0
# A cut is sought this far around the wished place, as a share of a window's length.
SEARCH_SHARE = 0.25
# No window is shorter: the rest of a video goes to the window before.
MIN_WINDOW_SHARE = 0.4
# A window is read from the last picture that stands for itself before it. Where that lies further back than this, a
# cut would be paid for with reading twice, so there is none.
MAX_LEAD_S = 30.0


@dataclass(frozen=True)
class Window:
    """A piece of the video; ``index`` counts from 0."""

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
        window_duration_s: how long a window should be, without the overlap.
        find_pause_s: gives the best place for a cut between two moments.
        keyframes_s: where pictures stand for themselves, in order; empty where there are no pictures.

    Returns:
        Windows in order that cover the whole; neighbours overlap by ``OVERLAP_S``.
    """
    cuts = _plan_cuts(duration_s, window_duration_s, find_pause_s, keyframes_s)
    bounds = [0.0, *cuts, duration_s]
    half_s = OVERLAP_S / 2
    return tuple(
        Window(
            index,
            round(max(0.0, start_s - half_s), 3),
            round(min(duration_s, end_s + half_s), 3),
        )
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
    wished_s = window_duration_s
    while duration_s - wished_s >= MIN_WINDOW_SHARE * window_duration_s:
        reach_s = SEARCH_SHARE * window_duration_s
        cut_s = find_pause_s(wished_s - reach_s, wished_s + reach_s)
        if (
            duration_s - cut_s >= OVERLAP_S
            and cut_s - last_s >= OVERLAP_S
            and _has_near_keyframe(cut_s, keyframes_s)
        ):
            cuts.append(round(cut_s, 3))
            last_s = cut_s
            wished_s = cut_s + window_duration_s
        else:
            wished_s += window_duration_s
    return cuts


def _has_near_keyframe(cut_s: float, keyframes_s: Sequence[float]) -> bool:
    if not keyframes_s:
        return True
    start_s = cut_s - OVERLAP_S / 2
    index = bisect_right(keyframes_s, start_s)
    return index > 0 and start_s - keyframes_s[index - 1] <= MAX_LEAD_S
