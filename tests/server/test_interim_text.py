"""Interim results: text stabilization and update rate."""

from __future__ import annotations

import pytest

from gorggle_server.events import Hypothesis, Word
from gorggle_server.streaming.interim_text import MIN_FIRST_FRAMES, InterimRateLimiter, StableTextTracker


def make_hypothesis(text: str, first_s: float = 0.0) -> Hypothesis:
    """Return a hypothesis whose words each last a third of a second."""
    words = tuple(
        Word(word, first_s + number / 3, first_s + (number + 1) / 3, 0.8)
        for number, word in enumerate(text.split())
    )
    return Hypothesis(text, 0.8, words)


def test_words_become_stable_when_two_successive_hypotheses_agree() -> None:
    text = StableTextTracker()
    assert text.update(make_hypothesis("bin blue"), 9.0).text == "bin blue"
    assert text.stable_words == 0
    assert text.update(make_hypothesis("bin blue at"), 9.0).text == "bin blue at"
    assert text.stable_words == 2
    assert text.update(make_hypothesis("bin blue by f"), 9.0).text == "bin blue by f"
    assert text.stable_words == 2


def test_words_near_the_end_do_not_become_stable() -> None:
    text = StableTextTracker()
    for _ in range(3):
        text.update(make_hypothesis("bin blue at"), 0.7)
    assert text.stable_words == 2


def test_stable_words_are_a_prefix_of_every_later_text() -> None:
    text = StableTextTracker()
    text.update(make_hypothesis("bin blue at"), 9.0)
    text.update(make_hypothesis("bin blue at f"), 9.0)
    assert text.stable_words == 3
    contradicting = text.update(make_hypothesis("pin blue by f two"), 9.0)
    assert contradicting.text == "bin blue at f two"
    assert [word.text for word in contradicting.words] == contradicting.text.split()
    assert 0 < contradicting.confidence <= 1
    assert text.finalize(make_hypothesis("place red with f two now")).text == "bin blue at f two now"


def test_a_final_hypothesis_without_words_keeps_the_stable_words() -> None:
    text = StableTextTracker()
    text.update(make_hypothesis("bin blue"), 9.0)
    text.update(make_hypothesis("bin blue"), 9.0)
    assert text.finalize(Hypothesis("", 0.0)).text == "bin blue"


def test_stable_words_take_the_timestamps_of_the_later_hypothesis() -> None:
    text = StableTextTracker()
    text.update(make_hypothesis("bin blue"), 9.0)
    text.update(make_hypothesis("bin blue"), 9.0)
    later = text.finalize(make_hypothesis("bin blue at", first_s=0.1))
    assert later.words[0].start_s == pytest.approx(0.1)


def test_resumed_stable_words_stay_stable() -> None:
    text = StableTextTracker(make_hypothesis("bin blue").words)
    assert text.stable_words == 2
    assert text.update(make_hypothesis("pin blue at"), 9.0).text == "bin blue at"


def test_interim_decoding_requires_a_minimum_utterance_length() -> None:
    assert not InterimRateLimiter().is_due(MIN_FIRST_FRAMES - 1, 0, 0.0)
    assert InterimRateLimiter().is_due(MIN_FIRST_FRAMES, 0, 0.0)


def test_interim_updates_are_less_frequent_on_a_slow_device() -> None:
    limiter = InterimRateLimiter()
    limiter.record_latency(0.05)
    assert limiter.is_due(30, 20, 0.5)
    limiter.record_latency(0.8)
    assert not limiter.is_due(30, 20, 5.0), "too few new frames"
    assert not limiter.is_due(80, 20, 1.0), "decoding would use more than half of the elapsed time"
    assert limiter.is_due(80, 20, 2.0)
