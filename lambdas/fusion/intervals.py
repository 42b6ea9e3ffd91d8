"""Stretches of time: joined, intersected, searched."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

Span = tuple[float, float]
"""Start and end in seconds."""


def merge_spans(spans: Iterable[Span], gap_s: float = 0.0) -> list[Span]:
    """Spans in order, those that touch or are at most ``gap_s`` apart as one."""
    joined: list[Span] = []
    for start_s, end_s in sorted(spans):
        if joined and start_s <= joined[-1][1] + gap_s:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end_s))
        else:
            joined.append((start_s, end_s))
    return joined


def compute_overlap_ms(one: Sequence[Span], other: Sequence[Span]) -> int:
    """How long both last, in whole milliseconds. Each is in order and without overlaps."""
    total, i, j = 0.0, 0, 0
    while i < len(one) and j < len(other):
        total += max(0.0, min(one[i][1], other[j][1]) - max(one[i][0], other[j][0]))
        if one[i][1] <= other[j][1]:
            i += 1
        else:
            j += 1
    return round(total * 1000)


def compute_total_ms(spans: Sequence[Span]) -> int:
    """How long spans without overlaps last together, in whole milliseconds."""
    return round(sum(end_s - start_s for start_s, end_s in spans) * 1000)


def compute_distance_s(spans: Sequence[Span], word: Span) -> float:
    """How far the nearest span is from a word in time; 0 where they touch. There is at least one span."""
    return min(max(start_s - word[1], word[0] - end_s, 0.0) for start_s, end_s in spans)


def find_overlapping(spans: Sequence[Span], word: Span) -> Sequence[Span]:
    """Of spans in order and without overlaps, those that share time with a word, and its neighbours."""
    first = bisect_left(spans, (word[0], word[0]))
    return spans[max(0, first - 1) : bisect_right(spans, (word[1], float("inf"))) + 1]


def find_exclusive_spans(spans: Sequence[Span]) -> list[list[Span]]:
    """For each of several spans the parts that no other one covers."""
    lasting = [(n, span) for n, span in enumerate(spans) if span[1] > span[0]]
    # At one moment ends come before starts.
    edges = sorted([(span[0], 1, n) for n, span in lasting] + [(span[1], -1, n) for n, span in lasting])
    lonely: list[list[Span]] = [[] for _ in spans]
    open_now: set[int] = set()
    before_s = 0.0
    for time_s, step, number in edges:
        if len(open_now) == 1 and time_s > before_s:
            lonely[next(iter(open_now))].append((before_s, time_s))
        if step > 0:
            open_now.add(number)
        else:
            open_now.discard(number)
        before_s = time_s
    return [merge_spans(some) for some in lonely]
