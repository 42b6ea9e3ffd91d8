"""Ranking of a lip reader's hypotheses by the audio, and the words' confidences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest

from gorggle_server.events import Hypothesis, Word
from gorggle_server.inference.hypothesis_ranking import AudioLikelihood, rank_hypotheses

CLEAN_DB, NOISY_DB = 40.0, -5.0


def hypothesis(text: str, log_probability: float) -> Hypothesis:
    words = tuple(Word(word, 0.4 * index, 0.4 * (index + 1), 0.5) for index, word in enumerate(text.split()))
    return Hypothesis(text, 0.5, words, log_probability=log_probability)


class Scorer:
    """Scores texts by a table."""

    def __init__(self, values: Mapping[str, float], fit: float = 0.0) -> None:
        self._values, self._fit = values, fit

    def score(self, texts: Sequence[str]) -> list[float]:
        return [self._values[text] for text in texts]

    def compute_fit(self, score: float) -> float:
        assert score in self._values.values()
        return self._fit


def rank(
    seen: Sequence[Hypothesis],
    values: Mapping[str, float],
    heard: Sequence[Hypothesis] = (),
    snr_db: float = CLEAN_DB,
) -> list[Hypothesis]:
    return rank_hypotheses(seen, heard, AudioLikelihood(Scorer(values)), snr_db)


def test_the_audio_corrects_the_lips_unless_noise_hides_it() -> None:
    seen = [hypothesis("at f two", -1.0), hypothesis("at s two", -2.0)]
    values = {"at f two": -60.0, "at s two": -40.0}
    assert rank(seen, values)[0].text == "at s two"
    assert rank(seen, values, snr_db=NOISY_DB)[0].text == "at f two"


def test_hypotheses_from_the_audio_alone_are_candidates() -> None:
    seen = [hypothesis("at f two", -1.0), hypothesis("at f do", -3.0)]
    heard = [hypothesis("at s two", -0.5), hypothesis("at f two", -2.0)]
    values = {"at f two": -60.0, "at s two": -30.0, "at f do": -70.0}
    ranked = rank(seen, values, heard)
    assert [each.text for each in ranked] == ["at s two", "at f two", "at f do"]


def test_confidences_are_posterior_probabilities_of_the_words() -> None:
    seen = [hypothesis("at f two", math.log(0.6)), hypothesis("at s two", math.log(0.2))]
    best, other = rank(seen, {"at f two": -40.0, "at s two": -40.0})
    assert [word.confidence for word in best.words] == pytest.approx([1.0, 0.75, 1.0])
    assert [word.confidence for word in other.words] == pytest.approx([1.0, 0.25, 1.0])
    assert best.confidence == pytest.approx(0.75 ** (1 / 3))
    # Word times stay.
    assert [word.start_s for word in best.words] == pytest.approx([0.0, 0.4, 0.8])


def test_a_word_that_other_hypotheses_lack_or_shift_keeps_its_share() -> None:
    seen = [hypothesis("bin blue now", math.log(0.5)), hypothesis("blue now", math.log(0.5))]
    best = rank(seen, {"bin blue now": -10.0, "blue now": -10.0})[0]
    by_text = {word.text: word.confidence for word in best.words}
    assert by_text["blue"] == by_text["now"] == pytest.approx(1.0)


def test_numbers_are_compared_as_spoken() -> None:
    seen = [hypothesis("at f2", -1.0)]
    assert rank(seen, {"at ftwo": -10.0})[0].text == "at f2"


def test_impossible_texts_are_last_and_no_hypotheses_are_none() -> None:
    seen = [hypothesis("at f two", -1.0), hypothesis("a", -9.0)]
    assert rank(seen, {"at f two": -math.inf, "a": -30.0})[0].text == "a"
    assert rank(seen, {"at f two": -math.inf, "a": -math.inf})[0].text == "at f two"
    assert rank([], {}) == []
    (empty,) = rank([hypothesis("", 0.0)], {"": -5.0})
    assert (empty.text, empty.confidence) == ("", 0.0)
