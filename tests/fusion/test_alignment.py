"""Tests of the banded alignment, compared with a brute-force search."""

from __future__ import annotations

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from gorggle_fusion.alignment import align
from gorggle_fusion.word_hypotheses import WordHypothesis
from tests.fusion.factories import hypothesis

property_test = settings(deadline=None, max_examples=60)


def pair_cost(one: WordHypothesis, other: WordHypothesis) -> float | None:
    offset_s = abs(one.start_s - other.start_s)
    return (one.text != other.text) + offset_s if offset_s <= 1 else None


def compute_cost(
    pairs: list[tuple[int, int]], left: list[WordHypothesis], right: list[WordHypothesis], gap: float
) -> float:
    costs = [pair_cost(left[i], right[j]) for i, j in pairs]
    assert None not in costs
    return sum(c for c in costs if c is not None) + gap * (len(left) + len(right) - 2 * len(pairs))


def find_min_cost(left: list[WordHypothesis], right: list[WordHypothesis], gap: float) -> float:
    best = gap * (len(left) + len(right))
    for size in range(1, min(len(left), len(right)) + 1):
        for left_indices in itertools.combinations(range(len(left)), size):
            for right_indices in itertools.combinations(range(len(right)), size):
                pairs = list(zip(left_indices, right_indices, strict=True))
                if all(pair_cost(left[i], right[j]) is not None for i, j in pairs):
                    best = min(best, compute_cost(pairs, left, right, gap))
    return best


def random_hypotheses(rng: random.Random) -> list[WordHypothesis]:
    starts = sorted(rng.uniform(0, 3) for _ in range(rng.randint(0, 5)))
    return [hypothesis(rng.choice("abc"), start_s, start_s + 0.2) for start_s in starts]


@property_test
@given(st.integers(0, 2**32), st.floats(0.1, 2))
def test_the_alignment_has_the_minimum_cost(seed: int, gap: float) -> None:
    rng = random.Random(seed)
    left, right = random_hypotheses(rng), random_hypotheses(rng)
    pairs = align(left, right, pair_cost, gap, 1.0)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(pairs))
    assert abs(compute_cost(pairs, left, right, gap) - find_min_cost(left, right, gap)) < 1e-9


def test_the_number_of_comparisons_is_linear_in_the_number_of_words() -> None:
    num_calls = 0

    def counting_cost(one: WordHypothesis, other: WordHypothesis) -> float | None:
        nonlocal num_calls
        num_calls += 1
        return pair_cost(one, other)

    words = [hypothesis("abc"[n % 3], n * 0.36, n * 0.36 + 0.3) for n in range(20_000)]
    pairs = align(words, words, counting_cost, 0.75, 1.0)
    assert pairs == [(n, n) for n in range(20_000)]
    assert num_calls < 20 * len(words)
