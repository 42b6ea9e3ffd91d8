"""Tests of speaker resolution from voices, lips and faces."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from gorggle_lambdas.fusion import Inputs, fuse
from gorggle_lambdas.fusion.intervals import compute_overlap_ms, find_exclusive_spans, merge_spans
from gorggle_lambdas.fusion.result import Result
from gorggle_lambdas.fusion.types import FaceBox, FaceTrack, Media, Segment, Window
from tests.fusion.factories import segment, spoken, word

LEFT, RIGHT = (0.1, 0.2, 0.2, 0.3), (0.6, 0.2, 0.2, 0.3)
ENDS_S = 60.0


def boxes(place: tuple[float, float, float, float], start_s: float, end_s: float) -> tuple[FaceBox, ...]:
    count = int((end_s - start_s) * 5) + 1
    return tuple(FaceBox(start_s + n / 5, *place) for n in range(count))


def lips(
    speaker: str, text: str, start_s: float, place: tuple[float, float, float, float] | None = None
) -> Segment:
    words = spoken(text, start_s)
    seen = boxes(place, start_s, words[-1].end_s) if place else ()
    return Segment(start_s, words[-1].end_s, speaker, "lips", tuple(words), seen)


def voice(speaker: str, text: str, start_s: float) -> Segment:
    return segment(spoken(text, start_s), speaker, "audio")


def result(
    lip_windows: list[Window] | None = None,
    audio: list[Segment] | None = None,
    tracks: list[FaceTrack] | None = None,
) -> Result:
    return fuse(
        Inputs(
            Media(ENDS_S),
            lips=None if lip_windows is None else tuple(lip_windows),
            audio=None if audio is None else (Window(0, ENDS_S, tuple(audio)),),
            faces=None if tracks is None else tuple(tracks),
        )
    )


def one_window(*segments: Segment) -> list[Window]:
    return [Window(0, ENDS_S, segments)]


def who(found: Result) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    return [(p.name, p.voices, (*p.lips, *p.tracks)) for p in found.people]


def test_a_voice_belongs_to_the_lips_that_move_with_it() -> None:
    found = result(
        one_window(lips("face-1", "bin blue at f", 1), lips("face-2", "set white now", 5)),
        [voice("spk_1", "bin blue at f", 1), voice("spk_0", "set white now", 5)],
    )
    assert who(found) == [
        ("person-1", ("spk_1",), ("window-1/face-1",)),
        ("person-2", ("spk_0",), ("window-1/face-2",)),
    ]
    assert [(s.person, s.text) for s in found.segments] == [
        ("person-1", "bin blue at f"),
        ("person-2", "set white now"),
    ]


def test_simultaneous_speakers_get_their_own_voices() -> None:
    found = result(
        one_window(lips("face-1", "bin blue at f two now", 1), lips("face-2", "set white with nine", 2)),
        [voice("spk_0", "bin blue at f two now", 1), voice("spk_1", "set white with nine", 2)],
    )
    assert [p.voices for p in found.people] == [("spk_0",), ("spk_1",)]
    assert sorted(s.text for s in found.segments) == ["bin blue at f two now", "set white with nine"]
    assert all(w.source == "both" for s in found.segments for w in s.words)


def test_a_person_may_have_only_a_voice_or_a_face() -> None:
    found = result(
        one_window(lips("face-1", "bin blue", 1)),
        [voice("spk_0", "who is there", 10)],
        [FaceTrack("track-1", boxes(RIGHT, 20, 24))],
    )
    assert who(found) == [
        ("person-1", (), ("window-1/face-1",)),
        ("person-2", ("spk_0",), ()),
        ("person-3", (), ("track-1",)),
    ]


def test_a_track_joins_a_face_across_windows_without_shared_words() -> None:
    windows = [
        Window(0, 10, (lips("face-1", "bin blue", 1, LEFT), lips("face-2", "set white", 4, RIGHT))),
        Window(9, 20, (lips("face-1", "lay green", 12, RIGHT), lips("face-2", "two now", 15, LEFT))),
    ]
    tracks = [FaceTrack("track-1", boxes(LEFT, 0, 20)), FaceTrack("track-2", boxes(RIGHT, 0, 20))]
    assert who(result(windows, None, tracks)) == [
        ("person-1", (), ("window-1/face-1", "window-2/face-2", "track-1")),
        ("person-2", (), ("window-1/face-2", "window-2/face-1", "track-2")),
    ]


def test_a_voice_joins_a_face_across_windows() -> None:
    windows = [
        Window(0, 10, (lips("face-1", "bin blue", 1),)),
        Window(9, 20, (lips("face-1", "two now", 12),)),
    ]
    found = result(windows, [voice("spk_0", "bin blue", 1), voice("spk_0", "two now", 12)])
    assert who(found) == [("person-1", ("spk_0",), ("window-1/face-1", "window-2/face-1"))]
    assert len(result(windows).people) == 2


def test_boxes_in_the_overlap_join_a_face_and_separate_others() -> None:
    def windows(place: tuple[float, float, float, float]) -> list[Window]:
        return [
            Window(0, 10, (lips("face-1", "bin blue now", 8, LEFT),)),
            Window(7, 20, (lips("face-1", "bin blue now", 8, place),)),
        ]

    assert len(result(windows(LEFT)).people) == 1
    assert len(result(windows(RIGHT)).people) == 2


def test_interrupted_tracks_of_one_face_are_one_person() -> None:
    window = one_window(lips("face-1", "bin blue at f two now please", 1, LEFT))
    tracks = [FaceTrack("a", boxes(LEFT, 0, 2)), FaceTrack("b", boxes(LEFT, 2.4, 6))]
    assert who(result(window, None, tracks)) == [("person-1", (), ("window-1/face-1", "a", "b"))]


def test_two_faces_in_one_frame_are_two_people() -> None:
    window = one_window(lips("face-1", "bin blue", 1), lips("face-2", "bin blue", 1.05))
    found = result(window, [voice("spk_0", "bin blue", 1)])
    assert len(found.people) == 2
    assert [p.voices for p in found.people] == [("spk_0",), ()]


def test_two_faces_of_one_window_stay_separate_in_the_next() -> None:
    """Diarisation found one voice only: it must not join a face with another visible at the same time."""
    windows = [
        Window(
            0, 12, (lips("face-1", "bin blue at f two now please again", 1), lips("face-2", "set white", 8))
        ),
        Window(7, 20, (lips("face-1", "set white", 8), lips("face-1", "lay green", 13))),
    ]
    said = [("bin blue at f two now please again", 1), ("set white", 8), ("lay green", 13)]
    found = result(windows, [voice("spk_0", text, start_s) for text, start_s in said])
    assert who(found) == [
        ("person-1", ("spk_0",), ("window-1/face-1",)),
        ("person-2", (), ("window-1/face-2",)),
    ]


def test_simultaneous_tracks_are_two_people_even_at_one_position() -> None:
    window = one_window(lips("face-1", "bin blue at f", 1, LEFT))
    tracks = [FaceTrack("a", boxes(LEFT, 0, 4)), FaceTrack("b", boxes(LEFT, 1, 4))]
    assert len(result(window, None, tracks).people) == 2


def test_an_interrupted_track_is_joined_to_its_own_face() -> None:
    """While that face takes another of its tracks, its neighbour does not take this one."""
    near_left = (LEFT[0] + 0.096, *LEFT[1:])
    text = "bin blue at f two now please again soon lay green by seven " * 2
    window = one_window(lips("face-1", text, 1, LEFT), lips("face-2", text[::-1], 1, near_left))
    tracks = [
        FaceTrack(name, boxes(LEFT, at, at + 2.4)) for name, at in (("a", 0), ("c", 3), ("d", 6), ("e", 9))
    ]
    found = result(window, None, [*tracks, FaceTrack("b", boxes(near_left, 0, 2.4))])
    assert {p.lips: p.tracks for p in found.people} == {
        ("window-1/face-1",): ("a", "c", "d", "e"),
        ("window-1/face-2",): ("b",),
    }


def test_a_voice_rarely_alone_with_a_face_is_not_joined() -> None:
    tracks = [FaceTrack("track-1", boxes(LEFT, 0, 10)), FaceTrack("track-2", boxes(RIGHT, 2.5, 10))]
    found = result(None, [voice("spk_0", "bin blue at f two now please again soon lay green", 1)], tracks)
    assert len(found.people) == 3


def test_a_voice_without_lips_belongs_to_the_only_visible_face() -> None:
    tracks = [FaceTrack("track-1", boxes(LEFT, 0, 10)), FaceTrack("track-2", boxes(RIGHT, 10, 20))]
    audio = [voice("spk_0", "bin blue at f two", 2), voice("spk_1", "set white with nine", 12)]
    assert [(p.voices, p.tracks) for p in result(None, audio, tracks).people] == [
        (("spk_0",), ("track-1",)),
        (("spk_1",), ("track-2",)),
    ]


def test_a_voice_with_two_visible_faces_is_not_joined() -> None:
    tracks = [FaceTrack("track-1", boxes(LEFT, 0, 10)), FaceTrack("track-2", boxes(RIGHT, 0, 10))]
    found = result(None, [voice("spk_0", "bin blue at f two", 2)], tracks)
    assert len(found.people) == 3


def test_audio_without_speakers_is_assigned_to_moving_lips() -> None:
    found = result(
        one_window(lips("face-1", "bin blue", 1), lips("face-2", "set white", 5)),
        [voice("", "bin blue", 1), voice("", "set white", 5), voice("", "far away", 30)],
    )
    assert [(s.person, s.text) for s in found.segments] == [
        ("person-1", "bin blue"),
        ("person-2", "set white"),
        ("person-3", "far away"),
    ]
    assert who(found)[2] == ("person-3", (), ())


def test_audio_words_with_a_face_key_keep_their_face() -> None:
    unseen = segment(spoken("set white", 5), "face-1", "audio")
    found = result(one_window(lips("face-1", "bin blue", 1), unseen), [voice("spk_0", "bin blue", 1)])
    assert who(found) == [("person-1", ("spk_0",), ("window-1/face-1",))]
    assert [(w.text, w.source) for s in found.segments for w in s.words][2:] == [
        ("set", "audio"),
        ("white", "audio"),
    ]


def test_lips_take_precedence_over_diarisation() -> None:
    """Diarisation assigns the last words of face-1 to the other voice: they are not duplicated."""
    found = result(
        one_window(lips("face-1", "bin blue at f two now", 1), lips("face-2", "set white with nine", 6)),
        [
            voice("spk_0", "bin blue at f", 1),
            segment(spoken("two now", 1 + 4 * 0.4), "spk_1", "audio"),
            voice("spk_1", "set white with nine", 6),
        ],
    )
    assert [(s.person, s.text) for s in found.segments] == [
        ("person-1", "bin blue at f two now"),
        ("person-2", "set white with nine"),
    ]


def test_people_are_named_by_first_appearance() -> None:
    found = result(
        None, [voice("spk_9", "bin", 1), voice("spk_0", "blue", 5)], [FaceTrack("t", boxes(LEFT, 0, 0.4))]
    )
    assert [(p.name, p.first_s) for p in found.people] == [("person-1", 0), ("person-2", 1), ("person-3", 5)]


@settings(deadline=None, max_examples=40)
@given(st.randoms(use_true_random=False))
def test_the_result_is_independent_of_input_order(shake: object) -> None:
    windows = [
        Window(0, 10, (lips("face-1", "bin blue now", 8, LEFT), lips("face-2", "set white", 4, RIGHT))),
        Window(7, 20, (lips("face-1", "bin blue now", 8, LEFT), lips("face-2", "two now", 15, RIGHT))),
    ]
    audio = [voice("spk_0", "bin blue now", 8), voice("spk_1", "set white", 4), voice("spk_1", "two now", 15)]
    tracks = [FaceTrack("a", boxes(LEFT, 0, 20)), FaceTrack("b", boxes(RIGHT, 0, 20))]
    expected = result(windows, audio, tracks)
    for some in (windows, audio, tracks):
        shake.shuffle(some)  # type: ignore[attr-defined]
    shuffled = [
        Window(w.start_s, w.end_s, tuple(sorted(w.segments, key=lambda _: shake.random()))) for w in windows
    ]  # type: ignore[attr-defined]
    assert result(shuffled, audio, tracks) == expected
    assert len(expected.people) == 2


spans = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 5)).map(lambda s: (float(s[0]), float(s[0] + s[1]))),
    max_size=6,
)


@settings(deadline=None)
@given(spans, spans)
def test_span_durations_match_sampled_durations(
    one: list[tuple[float, float]], other: list[tuple[float, float]]
) -> None:
    def covered(some: list[tuple[float, float]], moment: int) -> int:
        return sum(start_s <= moment < end_s for start_s, end_s in some)

    moments = range(26)
    shared = compute_overlap_ms(merge_spans(one), merge_spans(other))
    assert shared == 1000 * sum(bool(covered(one, m)) and bool(covered(other, m)) for m in moments)
    for span, lonely in zip(one, find_exclusive_spans(one), strict=True):
        for m in moments:
            assert bool(covered(lonely, m)) == (bool(covered([span], m)) and covered(one, m) == 1)
        assert all(a[1] < b[0] for a, b in itertools.pairwise(lonely))


def test_words_without_duration_have_a_speaker() -> None:
    found = result(None, [segment([word("oh", 1, 1)], "", "audio")])
    assert [s.person for s in found.segments] == ["person-1"]
