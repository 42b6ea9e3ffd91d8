"""Compares the banded alignment with a brute-force search."""

from __future__ import annotations

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from gorggle_lambdas.fusion.alignment import align
from gorggle_lambdas.fusion.word_hypotheses import WordHypothesis
from tests.fusion.factories import hypothesis

unhurried = settings(deadline=None, max_examples=60)


def pair_cost(one: WordHypothesis, other: WordHypothesis) -> float | None:
    apart_s = abs(one.start_s - other.start_s)
    return (one.text != other.text) + apart_s if apart_s <= 1 else None


def cost_of(
    pairs: list[tuple[int, int]], left: list[WordHypothesis], right: list[WordHypothesis], gap: float
) -> float:
    costs = [pair_cost(left[i], right[j]) for i, j in pairs]
    assert None not in costs
    return sum(c for c in costs if c is not None) + gap * (len(left) + len(right) - 2 * len(pairs))


def cheapest_of_all(left: list[WordHypothesis], right: list[WordHypothesis], gap: float) -> float:
    best = gap * (len(left) + len(right))
    for size in range(1, min(len(left), len(right)) + 1):
        for some in itertools.combinations(range(len(left)), size):
            for others in itertools.combinations(range(len(right)), size):
                pairs = list(zip(some, others, strict=True))
                if all(pair_cost(left[i], right[j]) is not None for i, j in pairs):
                    best = min(best, cost_of(pairs, left, right, gap))
    return best


def drawn_claims(shake: random.Random) -> list[WordHypothesis]:
    starts = sorted(shake.uniform(0, 3) for _ in range(shake.randint(0, 5)))
    return [hypothesis(shake.choice("abc"), start_s, start_s + 0.2) for start_s in starts]


@unhurried
@given(st.integers(0, 2**32), st.floats(0.1, 2))
def test_no_alignment_is_cheaper(seed: int, gap: float) -> None:
    shake = random.Random(seed)
    left, right = drawn_claims(shake), drawn_claims(shake)
    pairs = align(left, right, pair_cost, gap, 1.0)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(pairs))
    assert abs(cost_of(pairs, left, right, gap) - cheapest_of_all(left, right, gap)) < 1e-9


def test_two_hours_of_words_are_aligned_within_the_maximum_offset() -> None:
    asked = 0

    def counted(one: WordHypothesis, other: WordHypothesis) -> float | None:
        nonlocal asked
        asked += 1
        return pair_cost(one, other)

    words = [hypothesis("abc"[n % 3], n * 0.36, n * 0.36 + 0.3) for n in range(20_000)]
    pairs = align(words, words, counted, 0.75, 1.0)
    assert pairs == [(n, n) for n in range(20_000)]
    assert asked < 20 * len(words)
