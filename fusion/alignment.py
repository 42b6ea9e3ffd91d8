"""Global alignment in time of two hypotheses of the same speech.

Source: dynamic programming over pairs and gaps (Needleman and Wunsch 1970), as ROVER aligns the outputs of recognisers
before they vote (Fiscus 1997, "A post-processing system to yield reduced word error rates: Recognizer Output Voting
Error Reduction"). A cost that depends on times as well as texts is sclite's time-mediated alignment (NIST SCTK).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar


class Timed(Protocol):
    """An item with a start and an end."""

    @property
    def start_s(self) -> float:
        """Start in seconds."""

    @property
    def end_s(self) -> float:
        """End in seconds."""


T = TypeVar("T", bound=Timed)
PairCost = Callable[[T, T], float | None]

_PAIR, _LEFT, _RIGHT = 0, 1, 2


def align(
    left: Sequence[T], right: Sequence[T], pair_cost: PairCost[T], gap_cost: float, max_offset_s: float
) -> list[tuple[int, int]]:
    """Align two word sequences at the least total cost.

    Args:
        left: sorted by start.
        right: sorted by start.
        pair_cost: cost of treating two words as one; None if they cannot be the same word.
        gap_cost: cost of an unpaired word.
        max_offset_s: words whose starts are further apart are never paired. Bounds the work to
            O(words × words within the offset).

    Returns:
        (index in left, index in right) of every pair; both indices increase.
    """
    starts = [word.start_s for word in right]
    lows = [bisect_left(starts, word.start_s - max_offset_s) for word in left]
    highs = [bisect_right(starts, word.start_s + max_offset_s) for word in left]
    # State (i, j): i words of left and j of right are consumed. Gaps commute: before word i is considered, all words of
    # right that are too early for it may be consumed, and all words within its offset may be.
    first = [0, *lows]
    last = [*highs, len(right)]
    moves: list[list[int]] = []
    above: list[float] = []
    for row in range(len(left) + 1):
        above = _fill_row(row, left, right, (first, last), above, moves, pair_cost, gap_cost)
    return _trace_pairs(moves, first, len(left), len(right))


def _fill_row(
    row: int,
    left: Sequence[T],
    right: Sequence[T],
    band: tuple[list[int], list[int]],
    above: list[float],
    moves: list[list[int]],
    pair_cost: PairCost[T],
    gap_cost: float,
) -> list[float]:
    first, last = band
    costs: list[float] = []
    taken: list[int] = []
    for column in range(first[row], last[row] + 1):
        best, move = (0.0, _RIGHT) if row == 0 and column == 0 else (float("inf"), _RIGHT)
        if row and first[row - 1] <= column - 1 <= last[row - 1]:
            cost = pair_cost(left[row - 1], right[column - 1])
            if cost is not None:
                best, move = above[column - 1 - first[row - 1]] + cost, _PAIR
        if row and first[row - 1] <= column <= last[row - 1]:
            cost = above[column - first[row - 1]] + gap_cost
            if cost < best:
                best, move = cost, _LEFT
        if column > first[row] and costs[-1] + gap_cost < best:
            best, move = costs[-1] + gap_cost, _RIGHT
        costs.append(best)
        taken.append(move)
    moves.append(taken)
    return costs


def _trace_pairs(moves: list[list[int]], first: list[int], row: int, column: int) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    while row or column:
        move = moves[row][column - first[row]]
        if move == _PAIR:
            pairs.append((row - 1, column - 1))
        row -= move != _RIGHT
        column -= move != _LEFT
    return pairs[::-1]


def overlap_s(one: Timed, other: Timed) -> float:
    """Return the duration of the overlap; negative: the gap between the two."""
    return min(one.end_s, other.end_s) - max(one.start_s, other.start_s)


def distance_s(one: Timed, other: Timed) -> float:
    """Return the mean distance between the starts and between the ends."""
    return (abs(one.start_s - other.start_s) + abs(one.end_s - other.end_s)) / 2
