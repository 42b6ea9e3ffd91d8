"""Tests of window merging: no word is duplicated or lost."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gorggle_lambdas.fusion.types import FaceBox, Segment, Window, Word
from gorggle_lambdas.fusion.window_merging import merge_audio_windows, merge_hypotheses, merge_lip_windows
from tests.fusion.factories import hypothesis, jittered, segment, sentences, spoken, texts, word

unhurried = settings(deadline=None, max_examples=80)

JITTER_S = 0.08
# An overlap must hold the longest word whole, and what times jitter: a shorter one cannot give back what it cuts.
MIN_OVERLAP_S = 0.6 + 2 * 0.15 + 2 * JITTER_S


def cut_windows(words: list[Word], shake: random.Random) -> list[tuple[float, float]]:
    """Any windows that cover everything and overlap enough; now and then one lies within another."""
    end_s = max((w.end_s for w in words), default=1.0) + 0.5
    bounds = []
    start_s = 0.0
    while True:
        stop_s = start_s + MIN_OVERLAP_S + shake.uniform(0.3, 8)
        bounds.append((start_s, min(stop_s, end_s)))
        if stop_s >= end_s:
            return bounds
        if shake.random() < 0.1:
            inner_s = start_s + (stop_s - start_s) * 0.1
            bounds.append((inner_s, inner_s + (stop_s - start_s) * 0.8))
        start_s = max(start_s + 0.2, stop_s - MIN_OVERLAP_S - shake.uniform(0, 3))


def seen_in(words: list[Word], bounds: tuple[float, float], at_border: str) -> list[Word]:
    """What a window holds of the words; those that its borders cut are dropped, clipped, or read as something else."""
    seen = []
    for w in words:
        if bounds[0] <= w.start_s and w.end_s <= bounds[1]:
            seen.append(w)
        elif w.start_s < bounds[1] and w.end_s > bounds[0] and at_border != "dropped":
            clipped = replace(w, start_s=max(w.start_s, bounds[0]), end_s=min(w.end_s, bounds[1]))
            seen.append(clipped if at_border == "clipped" else replace(clipped, text="uh" + w.text[:1]))
    return seen


def window_with(words: list[Word], bounds: tuple[float, float], speaker: str) -> Window:
    return Window(*bounds, (segment(words, speaker),) if words else ())


@unhurried
@given(
    sentences(max_words=40),
    st.integers(0, 2**32),
    st.sampled_from(["dropped", "clipped", "misread"]),
    st.sampled_from([0.0, JITTER_S]),
)
def test_any_overlapping_windows_return_the_words(
    words: list[Word], seed: int, at_border: str, jitter_s: float
) -> None:
    shake = random.Random(seed)
    windows = [
        window_with(jittered(seen_in(words, bounds, at_border), shake, jitter_s), bounds, "face-1")
        for bounds in cut_windows(words, shake)
    ]
    for merge in (merge_lip_windows, merge_audio_windows):
        claims = merge(windows).hypotheses
        assert sorted(texts(claims)) == sorted(texts(words))
        if jitter_s == 0:
            assert [(c.text, c.start_s, c.end_s) for c in claims] == [
                (w.text, w.start_s, w.end_s) for w in words
            ]
        for said, found in zip(words, sorted(claims, key=lambda c: (c.start_s + c.end_s) / 2), strict=True):
            assert abs((said.start_s + said.end_s - found.start_s - found.end_s) / 2) <= 0.25 + jitter_s


@unhurried
@given(sentences(max_words=20), sentences(max_words=20), st.integers(0, 2**32))
def test_simultaneous_speakers_stay_separate(first: list[Word], second: list[Word], seed: int) -> None:
    shake = random.Random(seed)
    # No word of both at one time: which of them a window then means cannot be known.
    second = [w for w in second if not any(w.text == o.text for o in first)]
    windows = []
    for bounds in cut_windows([*first, *second], shake):
        spoken_here = [
            (jittered(seen_in(said, bounds, "dropped"), shake, JITTER_S), name)
            for said, name in ((first, "face-1"), (second, "face-2"))
        ]
        windows.append(Window(*bounds, tuple(segment(w, name) for w, name in spoken_here if w)))
    claims = merge_lip_windows(windows).hypotheses
    assert sorted(texts(claims)) == sorted(texts(first) + texts(second))


def test_merging_is_independent_of_window_order() -> None:
    words = spoken("the bin is blue at f two now please")
    windows = [
        window_with(words[:5], (0.0, 2.1), "face-1"),
        window_with(words[3:], (1.1, 4.0), "face-1"),
    ]
    assert merge_lip_windows(windows) == merge_lip_windows(windows[::-1])


def test_a_repeated_word_is_kept_twice() -> None:
    words = spoken("no no no no no no", each_s=0.4)
    windows = [
        window_with(words[:4], (0.0, 1.7), "face-1"),
        window_with(words[2:], (0.7, 2.6), "face-1"),
    ]
    assert texts(merge_lip_windows(windows).hypotheses) == ["no"] * 6


def test_a_different_hypothesis_in_the_overlap_is_an_alternative() -> None:
    left = [word("bin", 1.0, 1.4), word("blue", 2.0, 2.4, 0.5)]
    right = [word("glue", 2.0, 2.4, 0.9), word("now", 5.0, 5.4)]
    windows = [window_with(left, (0.0, 3.0), "face-1"), window_with(right, (1.5, 6.0), "face-1")]
    claims = merge_lip_windows(windows).hypotheses
    # 0.6 s from its window's border beats 0.5 s.
    assert texts(claims) == ["bin", "blue", "now"]
    assert texts(claims[1].alternatives) == ["glue"]


def test_a_duplicate_window_counts_once() -> None:
    once = window_with(spoken("bin blue at f"), (0.0, 2.0), "face-1")
    again = window_with(spoken("bin glue at f"), (0.0, 2.0), "face-2")
    merged = merge_lip_windows([once, again])
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
    first, second = spoken("bin blue at", 0.5), spoken("set white now", 0.6)
    left = Window(
        0.0, 3.0, (Segment(0.5, 2, "face-1", "lips", tuple(first), (box,)), segment(second, "face-2"))
    )
    right = Window(0.2, 5.0, (segment(second, "face-1"), segment(first, "face-2")))
    faces = {face.key: face for face in merge_lip_windows([left, right]).faces}
    assert set(faces) == {"window-1/face-1", "window-1/face-2"}
    assert [f.key for f in faces["window-1/face-1"].local_faces] == ["window-1/face-1", "window-2/face-2"]
    assert faces["window-1/face-1"].boxes == (box,)


def test_a_face_without_words_in_the_overlap_is_not_linked() -> None:
    left = window_with(spoken("bin blue"), (0.0, 3.0), "face-1")
    right = window_with(spoken("set white", 5.0), (2.0, 9.0), "face-1")
    assert [face.key for face in merge_lip_windows([left, right]).faces] == [
        "window-1/face-1",
        "window-2/face-1",
    ]


def test_a_word_assigned_to_another_speaker_is_not_duplicated() -> None:
    words = spoken("bin blue at f")
    left = Window(0.0, 3.0, (segment(words[:2], "face-1"), segment(words[2:], "face-2")))
    right = window_with(words, (0.0, 4.0), "face-1")
    assert texts(merge_lip_windows([left, right]).hypotheses) == texts(words)


@pytest.mark.parametrize("merge", [merge_lip_windows, merge_audio_windows])
@pytest.mark.parametrize("windows", [[], [Window(0, 1, ())], [Window(0, 5, ()), Window(4, 9, ())]])
def test_silence_has_no_words(merge: object, windows: list[Window]) -> None:
    assert callable(merge)
    assert merge(windows).hypotheses == ()


def test_two_transcripts_of_the_same_audio_are_merged() -> None:
    first = [replace(hypothesis("hello", 1, 1.5, origin="audio"), speaker="spk_0", window=(0.0, 60.0))]
    second = [
        replace(hypothesis("Hello", 1.05, 1.5, origin="audio"), speaker="", window=(0.5, 8.0)),
        replace(hypothesis("you", 3, 3.2, origin="audio"), speaker="", window=(0.5, 8.0)),
    ]
    found = merge_hypotheses(first, second)
    assert [(c.text, c.speaker) for c in found] == [("hello", "spk_0"), ("you", "")]


@example(0.2)
@unhurried
@given(st.floats(0.0, 1.0))
def test_a_fragment_at_the_edge_is_replaced_by_the_whole_word(cut_s: float) -> None:
    """However much of "please" the first window contains, only the second one's word is kept."""
    bounds = (0.0, 5.0 + cut_s * 0.5)
    left = [word("bin", 4.4, 4.7), word("pl", 5.0, bounds[1])]
    right = [word("bin", 4.4, 4.7), word("please", 5.0, 5.6), word("now", 6, 6.4)]
    windows = [window_with(left, bounds, "face-1"), window_with(right, (4.0, 9.0), "face-1")]
    assert texts(merge_lip_windows(windows).hypotheses) == ["bin", "please", "now"]
