"""Calibration error of word confidences."""

from __future__ import annotations

import pytest

from gorggle_evaluation.word_confidence import compute_confidence_error


def test_confidences_that_equal_the_share_of_correct_words_have_no_error() -> None:
    error = compute_confidence_error([(0.75, True)] * 3 + [(0.75, False)] + [(1.0, True)] * 4)
    assert error is not None
    assert error.expected_calibration_error == pytest.approx(0)
    assert [(one.words, one.share_correct) for one in error.bins] == [(4, 0.75), (4, 1.0)]


def test_the_error_is_weighted_by_the_words_of_each_bin() -> None:
    # Four words with 0.9, of which half are correct; one with 0.1 that is not.
    error = compute_confidence_error([(0.9, True), (0.9, False)] * 2 + [(0.1, False)])
    assert error is not None
    assert error.expected_calibration_error == pytest.approx((4 * 0.4 + 1 * 0.1) / 5)
    assert (error.mean_confidence, error.share_correct, error.words) == (pytest.approx(0.74), 0.4, 5)


def test_without_words_there_is_no_error() -> None:
    assert compute_confidence_error([]) is None
