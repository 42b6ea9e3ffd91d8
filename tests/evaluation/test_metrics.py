"""Word alignment, word error rates with confidence intervals, and timestamp errors."""

from __future__ import annotations

from dataclasses import dataclass

import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gorggle_evaluation.metrics import (
    align_words,
    bootstrap_interval,
    compute_error_rate,
    compute_time_error,
    compute_time_offsets_s,
)

TEXTS = st.lists(st.sampled_from(["bin", "blue", "at", "f", "two"]), max_size=8)


@dataclass(frozen=True)
class Span:
    start_s: float
    end_s: float


def test_errors_are_counted_by_kind() -> None:
    one = align_words(["bin", "blue", "at", "f", "two", "now"], ["bin", "blue", "at", "s", "two", "now"])
    other = align_words(["set", "red", "in", "a"], ["set", "in", "a", "soon", "soon"])
    metrics = compute_error_rate([one, other])
    assert (metrics.substitutions, metrics.insertions, metrics.deletions) == (1, 2, 1)
    assert (metrics.words, metrics.clips) == (10, 2)
    assert metrics.rate == pytest.approx(0.4)


def test_missing_words_are_deletions_and_extra_words_insertions() -> None:
    assert align_words(["bin", "blue"], []).deletions == (0, 1)
    assert align_words([], ["bin"]).insertions == (0,)
    assert align_words(["a"], ["b"]).substitutions == ((0, 0),)


@given(TEXTS, TEXTS)
def test_every_word_occurs_once_in_the_alignment(reference: list[str], hypothesis: list[str]) -> None:
    alignment = align_words(reference, hypothesis)
    paired = (*alignment.correct, *alignment.substitutions)
    assert sorted([i for i, _ in paired] + list(alignment.deletions)) == list(range(len(reference)))
    assert sorted([j for _, j in paired] + list(alignment.insertions)) == list(range(len(hypothesis)))
    assert all(reference[i] == hypothesis[j] for i, j in alignment.correct)
    assert all(reference[i] != hypothesis[j] for i, j in alignment.substitutions)


@given(TEXTS.filter(bool), TEXTS)
def test_the_rate_equals_that_of_jiwer(reference: list[str], hypothesis: list[str]) -> None:
    metrics = compute_error_rate([align_words(reference, hypothesis)])
    assert metrics.rate == pytest.approx(jiwer.wer(" ".join(reference), " ".join(hypothesis)))
    assert metrics.interval is None


@given(TEXTS.filter(bool))
def test_equal_texts_have_no_error(reference: list[str]) -> None:
    assert compute_error_rate([align_words(reference, reference)] * 2).rate == 0


def test_the_interval_contains_the_rate_and_narrows_with_more_clips() -> None:
    rng = np.random.default_rng(1)
    errors = rng.binomial(6, 0.2, 400)
    few = bootstrap_interval(errors[:25], np.full(25, 6), seed=3)
    many = bootstrap_interval(errors, np.full(400, 6), seed=3)
    assert few is not None
    assert many is not None
    assert many[0] < 0.2 < many[1]
    assert many[1] - many[0] < 0.5 * (few[1] - few[0])
    # The interval of the binomial distribution is 0.2 ± 1.96 * sqrt(0.2 * 0.8 / 2400).
    assert many[1] - many[0] == pytest.approx(0.032, rel=0.2)


def test_the_interval_is_deterministic_for_a_seed() -> None:
    counts, totals = np.array([0, 1, 2, 3]), np.full(4, 6)
    assert bootstrap_interval(counts, totals, 1) == bootstrap_interval(counts, totals, 1)


def test_starts_and_ends_are_compared_separately() -> None:
    pairs = [
        (Span(1.0, 1.3), Span(1.1, 1.3)),  # 100 ms, 0 ms
        (Span(2.0, 2.3), Span(1.98, 2.41)),  # 20 ms, 110 ms
        (Span(3.0, 3.3), Span(3.0, 3.8)),  # 0 ms, 500 ms
    ]
    metrics = compute_time_error(compute_time_offsets_s(pairs))
    assert metrics is not None
    assert metrics.median_start_ms == pytest.approx(20)
    assert metrics.mean_start_ms == pytest.approx(40)
    assert metrics.median_end_ms == pytest.approx(110)
    assert metrics.mean_end_ms == pytest.approx(610 / 3)
    assert metrics.median_ms == pytest.approx(60)
    assert metrics.within_100_ms == pytest.approx(4 / 6)
    assert metrics.within_120_ms == pytest.approx(5 / 6)
    assert metrics.words_within_100_ms == pytest.approx(1 / 3)
    assert metrics.words_within_120_ms == pytest.approx(2 / 3)
    assert metrics.words == 3


def test_a_late_word_has_a_positive_offset() -> None:
    assert compute_time_offsets_s([(Span(1, 2), Span(1.5, 1.9))]) == pytest.approx(np.array([[0.5, -0.1]]))


def test_without_correct_words_there_is_no_time_error() -> None:
    assert compute_time_error(compute_time_offsets_s([])) is None
    assert compute_time_offsets_s([]).shape == (0, 2)
