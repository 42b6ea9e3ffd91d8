"""Operations on time spans: merge, intersect, search."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

Span = tuple[float, float]
"""Start and end in seconds."""


def merge_spans(spans: Iterable[Span], gap_s: float = 0.0) -> list[Span]:
    """Return the spans in order, merging those that touch or are at most ``gap_s`` apart."""
    joined: list[Span] = []
    for start_s, end_s in sorted(spans):
        if joined and start_s <= joined[-1][1] + gap_s:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end_s))
        else:
            joined.append((start_s, end_s))
    return joined


def compute_overlap_ms(one: Sequence[Span], other: Sequence[Span]) -> int:
    """Return the duration of the intersection in whole milliseconds. Each list is sorted and free of overlaps."""
    total, i, j = 0.0, 0, 0
    while i < len(one) and j < len(other):
        total += max(0.0, min(one[i][1], other[j][1]) - max(one[i][0], other[j][0]))
        if one[i][1] <= other[j][1]:
            i += 1
        else:
            j += 1
    return round(total * 1000)


def compute_total_ms(spans: Sequence[Span]) -> int:
    """Return the total duration of non-overlapping spans in whole milliseconds."""
    return round(sum(end_s - start_s for start_s, end_s in spans) * 1000)


def compute_distance_s(spans: Sequence[Span], word: Span) -> float:
    """Return the distance in time between a word and the nearest span; 0 if they touch. There is at least one span."""
    return min(max(start_s - word[1], word[0] - end_s, 0.0) for start_s, end_s in spans)


def find_overlapping(spans: Sequence[Span], word: Span) -> Sequence[Span]:
    """Return the spans that overlap a word, and their neighbours. Spans are sorted and free of overlaps."""
    first = bisect_left(spans, (word[0], word[0]))
    return spans[max(0, first - 1) : bisect_right(spans, (word[1], float("inf"))) + 1]


def find_exclusive_spans(spans: Sequence[Span]) -> list[list[Span]]:
    """Return, for each of several spans, the parts that no other one covers."""
    nonempty = [(n, span) for n, span in enumerate(spans) if span[1] > span[0]]
    # At equal times ends sort before starts.
    edges = sorted([(span[0], 1, n) for n, span in nonempty] + [(span[1], -1, n) for n, span in nonempty])
    exclusive: list[list[Span]] = [[] for _ in spans]
    active: set[int] = set()
    previous_s = 0.0
    for time_s, step, number in edges:
        if len(active) == 1 and time_s > previous_s:
            exclusive[next(iter(active))].append((previous_s, time_s))
        if step > 0:
            active.add(number)
        else:
            active.discard(number)
        previous_s = time_s
    return [merge_spans(parts) for parts in exclusive]
