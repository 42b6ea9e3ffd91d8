"""Attribution of recognized words to speakers."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gorggle_evaluation.speaker_attribution import Attribution, attribute_words, map_speakers_to_faces

COUNTS = st.dictionaries(
    st.tuples(st.sampled_from("ABCD"), st.sampled_from(["face-1", "face-2", "face-3", "face-4", "face-5"])),
    st.integers(1, 9),
)


def test_face_labels_are_matched_in_any_order() -> None:
    attribution = attribute_words(["ann", "ann", "ben"], [(0, "face-2"), (1, "face-2"), (2, "face-1")])
    assert (attribution.correct, attribution.recognized, attribution.words) == (3, 3, 3)


def test_words_of_another_speaker_and_deleted_words_are_incorrect() -> None:
    reference_speakers = ["ann", "ann", "ben", "ben", "ben"]
    attribution = attribute_words(
        reference_speakers, [(0, "face-1"), (1, "face-2"), (2, "face-2"), (3, "face-2")]
    )
    assert attribution.share_of_recognized == pytest.approx(3 / 4)
    assert attribution.share_of_reference == pytest.approx(3 / 5)


def test_two_speakers_on_one_face_are_not_both_correct() -> None:
    attribution = attribute_words(["ann", "ben", "ben"], [(0, "face-1"), (1, "face-1"), (2, "face-1")])
    assert attribution.correct == 2


def test_one_speaker_on_two_faces_is_correct_on_one_of_them() -> None:
    assert attribute_words(["ann"] * 3, [(0, "face-1"), (1, "face-1"), (2, "face-9")]).correct == 2


def test_off_screen_speech_is_not_attributed() -> None:
    assert attribute_words(["ann", "ben"], [(0, "voice"), (1, "voice")]).correct == 0


def test_the_best_mapping_is_not_the_greedy_one() -> None:
    counts = {("A", "face-1"): 5, ("A", "face-2"): 4, ("B", "face-1"): 4}
    assert map_speakers_to_faces(counts) == {"A": "face-2", "B": "face-1"}


@given(COUNTS)
def test_the_mapping_is_optimal(counts: dict[tuple[str, str], int]) -> None:
    mapping = map_speakers_to_faces(counts)
    assert len(set(mapping.values())) == len(mapping)
    faces = ["face-1", "face-2", "face-3", "face-4", "face-5"]
    best = max(
        sum(counts.get(pair, 0) for pair in zip("ABCD", order, strict=False))
        for order in itertools.permutations(faces, 4)
    )
    assert sum(Counter(counts)[speaker, face] for speaker, face in mapping.items()) == best


def test_attributions_of_clips_are_summed() -> None:
    assert Attribution.combine([]) is None
    assert Attribution.combine([Attribution(1, 2, 3, 1), Attribution(4, 5, 6, 1)]) == Attribution(5, 7, 9, 2)
