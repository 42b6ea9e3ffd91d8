"""Likelihoods of texts, compared with a sum over all alignments."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from gorggle_server.moonshine.text_scoring import LetterTextScorer, score_texts
from gorggle_server.moonshine.word_alignment import LETTERS, SILENCE, spell


def make_random_scores(frames: int) -> np.ndarray:
    return np.random.default_rng(frames).normal(size=(frames, 1 + len(LETTERS))).astype(np.float32)


def sum_over_alignments(scores: np.ndarray, text: str) -> float:
    """Sum the probability of every sequence of states that spells the text."""
    states = [SILENCE]
    for word in text.split():
        states += [*spell(word), SILENCE]
    emissions = np.hstack((scores, scores[:, 1:].max(axis=1, keepdims=True)))
    needed = {index for index, state in enumerate(states) if state != SILENCE}
    total = 0.0
    for path in itertools.combinations_with_replacement(range(len(states)), len(scores)):
        if needed <= set(path):
            total += math.exp(sum(emissions[frame, states[state]] for frame, state in enumerate(path)))
    return math.log(total) if total else -math.inf


@pytest.mark.parametrize("text", ["", "a", "ab", "aa", "a b", "at &", "cab"])
def test_the_likelihood_is_the_sum_over_all_alignments(text: str) -> None:
    for frames in (3, 5, 6):
        scores = make_random_scores(frames)
        (value,) = score_texts(scores, [text])
        assert value == pytest.approx(sum_over_alignments(scores, text), abs=1e-4)


def test_texts_do_not_influence_each_other() -> None:
    scores, texts = make_random_scores(40), ["bin blue", "", "set white at f two now", "7 &"]
    together = score_texts(scores, texts)
    assert together == pytest.approx([score_texts(scores, [text])[0] for text in texts])
    assert score_texts(scores, []) == []


def test_a_text_with_more_letters_than_frames_is_impossible() -> None:
    assert score_texts(make_random_scores(3), ["abcd", "abc"])[0] == -math.inf
    assert math.isfinite(score_texts(make_random_scores(3), ["abcd", "abc"])[1])


def test_the_fit_is_the_distance_from_the_likeliest_letters() -> None:
    scores = np.full((5, 1 + len(LETTERS)), -9.0, np.float32)
    for frame, letter in enumerate((SILENCE, *spell("ab"), *spell("b"), SILENCE)):
        scores[frame, letter] = 0.0
    scorer = LetterTextScorer(scores)
    exact, other = scorer.score(["ab", "cb"])
    assert scorer.compute_fit(exact) == pytest.approx(0.0, abs=1e-3)
    assert scorer.compute_fit(other) == pytest.approx(-9 / 3, abs=0.3), "one of three frames of speech"
