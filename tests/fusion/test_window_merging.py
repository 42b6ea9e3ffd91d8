"""Tests of window merging: no word is duplicated or lost."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gorggle_fusion.types import FaceBox, Segment, Window, Word
from gorggle_fusion.window_merging import merge_audio_windows, merge_hypotheses, merge_lip_windows
from tests.fusion.factories import add_jitter, hypothesis, make_words, segment, sentences, texts, word

property_test = settings(deadline=None, max_examples=80)

JITTER_S = 0.08
# An overlap must contain the longest word plus the timing jitter. In a shorter one, a word could be cut by both windows.
MIN_OVERLAP_S = 0.6 + 2 * 0.15 + 2 * JITTER_S


def random_windows(words: list[Word], rng: random.Random) -> list[tuple[float, float]]:
    """Return random windows that cover all words with sufficient overlap; one in ten contains another."""
    end_s = max((w.end_s for w in words), default=1.0) + 0.5
    bounds = []
    start_s = 0.0
    while True:
        stop_s = start_s + MIN_OVERLAP_S + rng.uniform(0.3, 8)
        bounds.append((start_s, min(stop_s, end_s)))
        if stop_s >= end_s:
            return bounds
        if rng.random() < 0.1:
            inner_s = start_s + (stop_s - start_s) * 0.1
            bounds.append((inner_s, inner_s + (stop_s - start_s) * 0.8))
        start_s = max(start_s + 0.2, stop_s - MIN_OVERLAP_S - rng.uniform(0, 3))


def select_words(words: list[Word], bounds: tuple[float, float], at_border: str) -> list[Word]:
    """Return the words in a window; words across its borders are dropped, clipped or misrecognized."""
    selected = []
    for w in words:
        if bounds[0] <= w.start_s and w.end_s <= bounds[1]:
            selected.append(w)
        elif w.start_s < bounds[1] and w.end_s > bounds[0] and at_border != "dropped":
            clipped = replace(w, start_s=max(w.start_s, bounds[0]), end_s=min(w.end_s, bounds[1]))
            selected.append(clipped if at_border == "clipped" else replace(clipped, text="uh" + w.text[:1]))
    return selected


def window_with(words: list[Word], bounds: tuple[float, float], speaker: str) -> Window:
    return Window(*bounds, (segment(words, speaker),) if words else ())


@property_test
@given(
    sentences(max_words=40),
    st.integers(0, 2**32),
    st.sampled_from(["dropped", "clipped", "misread"]),
    st.sampled_from([0.0, JITTER_S]),
)
def test_overlapping_windows_are_merged_without_loss(
    words: list[Word], seed: int, at_border: str, jitter_s: float
) -> None:
    rng = random.Random(seed)
    windows = [
        window_with(add_jitter(select_words(words, bounds, at_border), rng, jitter_s), bounds, "face-1")
        for bounds in random_windows(words, rng)
    ]
    for merge in (merge_lip_windows, merge_audio_windows):
        hypotheses = merge(windows).hypotheses
        assert sorted(texts(hypotheses)) == sorted(texts(words))
        if jitter_s == 0:
            assert [(c.text, c.start_s, c.end_s) for c in hypotheses] == [
                (w.text, w.start_s, w.end_s) for w in words
            ]
        for expected, merged in zip(
            words, sorted(hypotheses, key=lambda c: (c.start_s + c.end_s) / 2), strict=True
        ):
            assert (
                abs((expected.start_s + expected.end_s - merged.start_s - merged.end_s) / 2)
                <= 0.25 + jitter_s
            )


@property_test
@given(sentences(max_words=20), sentences(max_words=20), st.integers(0, 2**32))
def test_simultaneous_speakers_stay_separate(first: list[Word], second: list[Word], seed: int) -> None:
    rng = random.Random(seed)
    # If both speakers used the same word, a window could not tell whose it is.
    second = [w for w in second if not any(w.text == o.text for o in first)]
    windows = []
    for bounds in random_windows([*first, *second], rng):
        window_words = [
            (add_jitter(select_words(words, bounds, "dropped"), rng, JITTER_S), name)
            for words, name in ((first, "face-1"), (second, "face-2"))
        ]
        windows.append(Window(*bounds, tuple(segment(w, name) for w, name in window_words if w)))
    hypotheses = merge_lip_windows(windows).hypotheses
    assert sorted(texts(hypotheses)) == sorted(texts(first) + texts(second))


def test_merging_is_independent_of_window_order() -> None:
    words = make_words("the bin is blue at f two now please")
    windows = [
        window_with(words[:5], (0.0, 2.1), "face-1"),
        window_with(words[3:], (1.1, 4.0), "face-1"),
    ]
    assert merge_lip_windows(windows) == merge_lip_windows(windows[::-1])


def test_a_repeated_word_is_kept_twice() -> None:
    words = make_words("no no no no no no", each_s=0.4)
    windows = [
        window_with(words[:4], (0.0, 1.7), "face-1"),
        window_with(words[2:], (0.7, 2.6), "face-1"),
    ]
    assert texts(merge_lip_windows(windows).hypotheses) == ["no"] * 6


def test_a_different_hypothesis_in_the_overlap_is_an_alternative() -> None:
    left = [word("bin", 1.0, 1.4), word("blue", 2.0, 2.4, 0.5)]
    right = [word("glue", 2.0, 2.4, 0.9), word("now", 5.0, 5.4)]
    windows = [window_with(left, (0.0, 3.0), "face-1"), window_with(right, (1.5, 6.0), "face-1")]
    hypotheses = merge_lip_windows(windows).hypotheses
    # "blue" ends 0.6 s before the end of its window, "glue" starts 0.5 s after the start of its window.
    assert texts(hypotheses) == ["bin", "blue", "now"]
    assert texts(hypotheses[1].alternatives) == ["glue"]


def test_a_duplicate_window_counts_once() -> None:
    first = window_with(make_words("bin blue at f"), (0.0, 2.0), "face-1")
    duplicate = window_with(make_words("bin glue at f"), (0.0, 2.0), "face-2")
    merged = merge_lip_windows([first, duplicate])
    assert texts(merged.hypotheses) == ["bin", "blue", "at", "f"]
    assert len(merged.faces) == 1


def test_words_of_one_window_only_are_kept() -> None:
    windows = [
        window_with([word("bin", 2.0, 2.4)], (0.0, 4.0), "face-1"),
        window_with([word("now", 3.0, 3.4)], (1.0, 6.0), "face-1"),
    ]
    assert texts(merge_lip_windows(windows).hypotheses) == ["bin", "now"]


def test_a_face_keeps_its_key_across_windows_by_its_words() -> None:
    box = FaceBox(1.0, 0.1, 0.1, 0.2, 0.2)
    first, second = make_words("bin blue at", 0.5), make_words("set white now", 0.6)
    left = Window(
        0.0, 3.0, (Segment(0.5, 2, "face-1", "lips", tuple(first), (box,)), segment(second, "face-2"))
    )
    right = Window(0.2, 5.0, (segment(second, "face-1"), segment(first, "face-2")))
    faces = {face.key: face for face in merge_lip_windows([left, right]).faces}
    assert set(faces) == {"window-1/face-1", "window-1/face-2"}
    assert [f.key for f in faces["window-1/face-1"].local_faces] == ["window-1/face-1", "window-2/face-2"]
    assert faces["window-1/face-1"].boxes == (box,)


def test_a_face_without_words_in_the_overlap_is_not_linked() -> None:
    left = window_with(make_words("bin blue"), (0.0, 3.0), "face-1")
    right = window_with(make_words("set white", 5.0), (2.0, 9.0), "face-1")
    assert [face.key for face in merge_lip_windows([left, right]).faces] == [
        "window-1/face-1",
        "window-2/face-1",
    ]


def test_a_word_assigned_to_another_speaker_is_not_duplicated() -> None:
    words = make_words("bin blue at f")
    left = Window(0.0, 3.0, (segment(words[:2], "face-1"), segment(words[2:], "face-2")))
    right = window_with(words, (0.0, 4.0), "face-1")
    assert texts(merge_lip_windows([left, right]).hypotheses) == texts(words)


@pytest.mark.parametrize("merge", [merge_lip_windows, merge_audio_windows])
@pytest.mark.parametrize("windows", [[], [Window(0, 1, ())], [Window(0, 5, ()), Window(4, 9, ())]])
def test_windows_without_segments_have_no_words(merge: object, windows: list[Window]) -> None:
    assert callable(merge)
    assert merge(windows).hypotheses == ()


def test_two_transcripts_of_the_same_audio_are_merged() -> None:
    first = [replace(hypothesis("hello", 1, 1.5, origin="audio"), speaker="spk_0", window=(0.0, 60.0))]
    second = [
        replace(hypothesis("Hello", 1.05, 1.5, origin="audio"), speaker="", window=(0.5, 8.0)),
        replace(hypothesis("you", 3, 3.2, origin="audio"), speaker="", window=(0.5, 8.0)),
    ]
    merged = merge_hypotheses(first, second)
    assert [(c.text, c.speaker) for c in merged] == [("hello", "spk_0"), ("you", "")]


@example(0.2)
@property_test
@given(st.floats(0.0, 1.0))
def test_a_fragment_at_the_edge_is_replaced_by_the_whole_word(cut_s: float) -> None:
    """The first window ends at a random position in "please", which only the second one contains completely."""
    bounds = (0.0, 5.0 + cut_s * 0.5)
    left = [word("bin", 4.4, 4.7), word("pl", 5.0, bounds[1])]
    right = [word("bin", 4.4, 4.7), word("please", 5.0, 5.6), word("now", 6, 6.4)]
    windows = [window_with(left, bounds, "face-1"), window_with(right, (4.0, 9.0), "face-1")]
    assert texts(merge_lip_windows(windows).hypotheses) == ["bin", "please", "now"]
