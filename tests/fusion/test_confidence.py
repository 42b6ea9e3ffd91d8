"""Tests of calibration, noise weighting, and combination of confidences."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gorggle_fusion.confidence import (
    Calibration,
    NoiseCurve,
    NoiseWeighting,
    fit_calibration,
    noisy_or,
    winner_probability,
)
from gorggle_fusion.result import join_words
from gorggle_fusion.text_normalization import edit_distance, normalize
from gorggle_fusion.types import NoiseSpan

probabilities = st.floats(0, 1)
open_probabilities = st.floats(0.001, 0.999)
property_test = settings(deadline=None)


@property_test
@given(probabilities)
def test_the_default_calibration_is_the_identity(stated: float) -> None:
    assert Calibration().probability(stated) == pytest.approx(stated, abs=2e-4)


@property_test
@given(probabilities, probabilities, st.floats(0.1, 4), st.floats(-3, 3))
def test_calibration_is_monotonic_and_in_range(one: float, other: float, slope: float, offset: float) -> None:
    calibration = Calibration(slope, offset)
    low, high = sorted((one, other))
    assert 0 < calibration.probability(low) <= calibration.probability(high) < 1


def test_a_known_calibration_is_recovered() -> None:
    """The simulated source is overconfident: fewer words are correct than its confidences state."""
    true = Calibration(0.6, -0.5)
    rng = random.Random(1)
    stated = [rng.uniform(0.02, 0.98) for _ in range(4000)]
    is_correct = [rng.random() < true.probability(confidence) for confidence in stated]
    fitted = fit_calibration(stated, is_correct)
    assert fitted.slope == pytest.approx(true.slope, abs=0.08)
    assert fitted.offset == pytest.approx(true.offset, abs=0.08)


def test_a_fit_to_separable_words_is_finite() -> None:
    fitted = fit_calibration([0.1, 0.2, 0.8, 0.9], [False, False, True, True])
    assert 1 < fitted.slope < 50
    assert math.isfinite(fitted.offset)


@pytest.mark.parametrize("is_correct", [[], [True], [False, False]])
def test_a_fit_requires_correct_and_incorrect_words(is_correct: list[bool]) -> None:
    with pytest.raises(ValueError, match="needs correct and incorrect ones"):
        fit_calibration([0.5] * len(is_correct), is_correct)


@property_test
@given(open_probabilities, open_probabilities)
def test_agreement_raises_and_conflict_lowers_confidence(one: float, other: float) -> None:
    assert max(one, other) <= noisy_or(one, other) <= 1
    assert 0 < winner_probability(one, other) <= one + 1e-12
    assert winner_probability(one, other) + winner_probability(other, one) <= 1 + 1e-12


def test_the_noise_weight_matches_the_embedded_model() -> None:
    weighting = NoiseWeighting()
    assert weighting.compute_weight(None) == 1
    for snr_db, accuracy in ((10, 0.94), (0, 0.77), (-10, 0.45)):
        assert weighting.compute_weight(snr_db) == pytest.approx(accuracy, abs=0.04)


def test_noise_applies_where_it_was_measured() -> None:
    curve = NoiseCurve([NoiseSpan(10, 20, 3.0), NoiseSpan(0, 5, 30.0)])
    assert [curve.get_snr_db(time_s) for time_s in (-1, 2, 7, 15, 25)] == [None, 30.0, None, 3.0, None]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Hello,", "hello"),
        ("Don’t", "don't"),
        ("ＡＢＣ", "abc"),
        ("Straße", "STRASSE"),
        ("well-known", "wellknown"),
    ],
)
def test_words_are_compared_independent_of_spelling(one: str, other: str) -> None:
    assert normalize(one) == normalize(other)
    assert edit_distance(one, other) == 0


@property_test
@given(st.text(max_size=8), st.text(max_size=8))
def test_edit_distance_is_normalized_and_symmetric(one: str, other: str) -> None:
    assert 0 <= edit_distance(one, other) <= 1
    assert edit_distance(one, other) == edit_distance(other, one)
    assert (edit_distance(one, other) == 0) == (normalize(one) == normalize(other))


def test_words_are_joined_according_to_their_script() -> None:
    assert (
        join_words(["今日", "は", "OK", "です。", "hello", "world", "สวัสดี", "ครับ"])
        == "今日は OK です。 hello world สวัสดีครับ"
    )
