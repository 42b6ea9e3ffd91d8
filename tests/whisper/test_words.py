"""Words of tokens, and their times."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gorggle_server.whisper import (
    AlignedTokens,
    TimedWord,
    measure_loudness,
    split_words,
    time_words,
    trim_silence,
)


def split(*pieces: str) -> list[str]:
    return [word.text for word in split_words((piece, 1) for piece in pieces)]


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ((" Hello", ",", " Mis", "ter", " Smith", "."), ["Hello,", "Mister", "Smith."]),
        (("It", "'s", " 4", ":", "30", "."), ["It's", "4:30."]),
        ((" Bonjour", " !", " «", "Oui", " »"), ["Bonjour!", "«Oui»"]),
        ((" rock", " &", " roll"), ["rock", "&", "roll"]),
        ((" ", "well", " ", " now", " "), ["well", "now"]),
        (("今", "天", "很", "好", "，", "走", "吧", "。"), ["今天很好，", "走吧。"]),
        (("「", "は", "い", "。", "」"), ["「はい。」"]),
        ((), []),
        ((" ", "\n"), []),
    ],
)
def test_tokens_are_grouped_into_words(pieces: tuple[str, ...], words: list[str]) -> None:
    assert split(*pieces) == words


PIECES = st.lists(
    st.tuples(st.sampled_from([" a", "b", ",", " !", " ", "。", "語", " 語", "\n", "𝄞"]), st.integers(1, 3))
)


@given(PIECES)
def test_words_cover_tokens_in_order_and_have_no_white_space(pieces: list[tuple[str, int]]) -> None:
    words = split_words(pieces)
    assert " ".join(word.text for word in words).split() == [word.text for word in words]
    assert "".join(word.text for word in words) == "".join("".join(text for text, _ in pieces).split())
    assert all(word.first < word.end for word in words)
    assert all(before.end <= after.first for before, after in itertools.pairwise(words))
    assert not words or words[-1].end <= sum(count for _, count in pieces)


@given(PIECES, st.floats(0.04, 30), st.data())
def test_times_lie_within_the_waveform_and_do_not_overlap(
    pieces: list[tuple[str, int]], duration_s: float, data: st.DataObject
) -> None:
    count = sum(tokens for _, tokens in pieces)
    starts = data.draw(st.lists(st.floats(0, duration_s), min_size=count + 1, max_size=count + 1))
    words = split_words(pieces)
    shift_s = data.draw(st.floats(-0.2, 0.2))
    timed = time_words(words, AlignedTokens(sorted(starts), [-0.5] * count), duration_s, shift_s)
    loudness = data.draw(st.lists(st.sampled_from([0.0, 40.0]), max_size=int(duration_s / 0.02)))
    timed = trim_silence(timed, np.array(loudness))
    assert [word.text for word in timed] == [word.text for word in words]
    assert all(0 <= word.start_s < word.end_s <= duration_s + 1e-9 for word in timed)
    assert all(before.end_s <= after.start_s + 1e-9 for before, after in itertools.pairwise(timed))


def test_a_word_lasts_from_its_first_token_to_the_token_after_its_last() -> None:
    words = split_words([(" Mis", 1), ("ter", 2), (" Smith", 1)])
    aligned = AlignedTokens([0.2, 0.3, 0.4, 0.9, 1.3], [-0.1, -0.2, -0.3, -0.4])
    first, second = time_words(words, aligned, duration_s=2.0)
    assert (first.start_s, first.end_s) == (0.2, 0.9)
    assert (second.start_s, second.end_s) == (0.9, 1.3)
    assert first.confidence == pytest.approx(0.8187, abs=1e-4)


def test_words_are_shifted_but_not_beyond_the_waveform() -> None:
    words = split_words([(" a", 1), (" b", 1)])
    first, second = time_words(words, AlignedTokens([0.05, 0.5, 1.0], [-0.1, -0.1]), 1.0, shift_s=-0.09)
    assert (first.start_s, first.end_s) == (0.0, pytest.approx(0.41))
    assert (second.start_s, second.end_s) == (pytest.approx(0.41), pytest.approx(0.91))


def make_waveform(*parts: tuple[float, float]) -> np.ndarray:
    """Return noise with parts of (amplitude, seconds)."""
    rng = np.random.default_rng(0)
    return np.concatenate(
        [amplitude * rng.standard_normal(round(16_000 * seconds)) for amplitude, seconds in parts]
    ).astype(np.int16)


def test_silence_is_cut_off_the_words() -> None:
    loudness = measure_loudness(make_waveform((10, 0.5), (2000, 0.5), (10, 0.4), (2000, 0.3), (10, 0.3)))
    words = [TimedWord("a", 0.0, 1.2, 0.9), TimedWord("b", 1.2, 2.0, 0.9)]
    times = [(word.start_s, word.end_s) for word in trim_silence(words, loudness)]
    np.testing.assert_allclose(times, [(0.5, 1.0), (1.4, 1.7)], atol=0.001)


@pytest.mark.parametrize("amplitude", [10, 2000])
def test_words_keep_their_times_where_all_is_equally_loud(amplitude: float) -> None:
    words = [TimedWord("a", 0.1, 0.4, 0.9)]
    assert trim_silence(words, measure_loudness(make_waveform((amplitude, 1.0)))) == words
    assert trim_silence(words, measure_loudness(make_waveform((amplitude, 0.001)))) == words
