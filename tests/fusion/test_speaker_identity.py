"""Tests of speaker resolution from voices, lips and faces."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from gorggle_fusion import Inputs, fuse
from gorggle_fusion.intervals import compute_overlap_ms, find_exclusive_spans, merge_spans
from gorggle_fusion.result import Result
from gorggle_fusion.types import FaceBox, FaceTrack, Media, Segment, Window
from tests.fusion.factories import make_words, segment, word

LEFT, RIGHT = (0.1, 0.2, 0.2, 0.3), (0.6, 0.2, 0.2, 0.3)
DURATION_S = 60.0


def boxes(position: tuple[float, float, float, float], start_s: float, end_s: float) -> tuple[FaceBox, ...]:
    count = int((end_s - start_s) * 5) + 1
    return tuple(FaceBox(start_s + n / 5, *position) for n in range(count))


def lips(
    speaker: str, text: str, start_s: float, position: tuple[float, float, float, float] | None = None
) -> Segment:
    words = make_words(text, start_s)
    face_boxes = boxes(position, start_s, words[-1].end_s) if position else ()
    return Segment(start_s, words[-1].end_s, speaker, "lips", tuple(words), face_boxes)


def voice(speaker: str, text: str, start_s: float) -> Segment:
    return segment(make_words(text, start_s), speaker, "audio")


def fuse_sources(
    lip_windows: list[Window] | None = None,
    audio: list[Segment] | None = None,
    tracks: list[FaceTrack] | None = None,
) -> Result:
    return fuse(
        Inputs(
            Media(DURATION_S),
            lips=None if lip_windows is None else tuple(lip_windows),
            audio=None if audio is None else (Window(0, DURATION_S, tuple(audio)),),
            faces=None if tracks is None else tuple(tracks),
        )
    )


def one_window(*segments: Segment) -> list[Window]:
    return [Window(0, DURATION_S, segments)]


def list_people(result: Result) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    return [(p.name, p.voices, (*p.lips, *p.tracks)) for p in result.people]


def test_a_voice_is_joined_to_the_lips_with_the_same_words() -> None:
    result = fuse_sources(
        one_window(lips("face-1", "bin blue at f", 1), lips("face-2", "set white now", 5)),
        [voice("spk_1", "bin blue at f", 1), voice("spk_0", "set white now", 5)],
    )
    assert list_people(result) == [
        ("person-1", ("spk_1",), ("window-1/face-1",)),
        ("person-2", ("spk_0",), ("window-1/face-2",)),
    ]
    assert [(s.person, s.text) for s in result.segments] == [
        ("person-1", "bin blue at f"),
        ("person-2", "set white now"),
    ]


def test_simultaneous_speakers_get_their_own_voices() -> None:
    result = fuse_sources(
        one_window(lips("face-1", "bin blue at f two now", 1), lips("face-2", "set white with nine", 2)),
        [voice("spk_0", "bin blue at f two now", 1), voice("spk_1", "set white with nine", 2)],
    )
    assert [p.voices for p in result.people] == [("spk_0",), ("spk_1",)]
    assert sorted(s.text for s in result.segments) == ["bin blue at f two now", "set white with nine"]
    assert all(w.source == "both" for s in result.segments for w in s.words)


def test_a_person_may_have_only_a_voice_or_a_face() -> None:
    result = fuse_sources(
        one_window(lips("face-1", "bin blue", 1)),
        [voice("spk_0", "who is there", 10)],
        [FaceTrack("track-1", boxes(RIGHT, 20, 24))],
    )
    assert list_people(result) == [
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
    assert list_people(fuse_sources(windows, None, tracks)) == [
        ("person-1", (), ("window-1/face-1", "window-2/face-2", "track-1")),
        ("person-2", (), ("window-1/face-2", "window-2/face-1", "track-2")),
    ]


def test_a_voice_joins_a_face_across_windows() -> None:
    windows = [
        Window(0, 10, (lips("face-1", "bin blue", 1),)),
        Window(9, 20, (lips("face-1", "two now", 12),)),
    ]
    result = fuse_sources(windows, [voice("spk_0", "bin blue", 1), voice("spk_0", "two now", 12)])
    assert list_people(result) == [("person-1", ("spk_0",), ("window-1/face-1", "window-2/face-1"))]
    assert len(fuse_sources(windows).people) == 2


def test_boxes_in_the_overlap_join_a_face_and_separate_others() -> None:
    def windows(position: tuple[float, float, float, float]) -> list[Window]:
        return [
            Window(0, 10, (lips("face-1", "bin blue now", 8, LEFT),)),
            Window(7, 20, (lips("face-1", "bin blue now", 8, position),)),
        ]

    assert len(fuse_sources(windows(LEFT)).people) == 1
    assert len(fuse_sources(windows(RIGHT)).people) == 2


def test_interrupted_tracks_of_one_face_are_one_person() -> None:
    window = one_window(lips("face-1", "bin blue at f two now please", 1, LEFT))
    tracks = [FaceTrack("a", boxes(LEFT, 0, 2)), FaceTrack("b", boxes(LEFT, 2.4, 6))]
    assert list_people(fuse_sources(window, None, tracks)) == [
        ("person-1", (), ("window-1/face-1", "a", "b"))
    ]


def test_two_faces_in_one_frame_are_two_people() -> None:
    window = one_window(lips("face-1", "bin blue", 1), lips("face-2", "bin blue", 1.05))
    result = fuse_sources(window, [voice("spk_0", "bin blue", 1)])
    assert len(result.people) == 2
    assert [p.voices for p in result.people] == [("spk_0",), ()]


def test_two_faces_of_one_window_stay_separate_in_the_next() -> None:
    """Diarisation returned one voice, which must not join two faces that are visible at the same time."""
    windows = [
        Window(
            0, 12, (lips("face-1", "bin blue at f two now please again", 1), lips("face-2", "set white", 8))
        ),
        Window(7, 20, (lips("face-1", "set white", 8), lips("face-1", "lay green", 13))),
    ]
    utterances = [("bin blue at f two now please again", 1), ("set white", 8), ("lay green", 13)]
    result = fuse_sources(windows, [voice("spk_0", text, start_s) for text, start_s in utterances])
    assert list_people(result) == [
        ("person-1", ("spk_0",), ("window-1/face-1",)),
        ("person-2", (), ("window-1/face-2",)),
    ]


def test_simultaneous_tracks_are_two_people_even_at_one_position() -> None:
    window = one_window(lips("face-1", "bin blue at f", 1, LEFT))
    tracks = [FaceTrack("a", boxes(LEFT, 0, 4)), FaceTrack("b", boxes(LEFT, 1, 4))]
    assert len(fuse_sources(window, None, tracks).people) == 2


def test_an_interrupted_track_is_joined_to_its_own_face() -> None:
    """A track is not assigned to a neighbouring face while its own face is assigned another track."""
    near_left = (LEFT[0] + 0.096, *LEFT[1:])
    text = "bin blue at f two now please again soon lay green by seven " * 2
    window = one_window(lips("face-1", text, 1, LEFT), lips("face-2", text[::-1], 1, near_left))
    tracks = [
        FaceTrack(name, boxes(LEFT, at, at + 2.4)) for name, at in (("a", 0), ("c", 3), ("d", 6), ("e", 9))
    ]
    result = fuse_sources(window, None, [*tracks, FaceTrack("b", boxes(near_left, 0, 2.4))])
    assert {p.lips: p.tracks for p in result.people} == {
        ("window-1/face-1",): ("a", "c", "d", "e"),
        ("window-1/face-2",): ("b",),
    }


def test_a_voice_rarely_alone_with_a_face_is_not_joined() -> None:
    tracks = [FaceTrack("track-1", boxes(LEFT, 0, 10)), FaceTrack("track-2", boxes(RIGHT, 2.5, 10))]
    result = fuse_sources(
        None, [voice("spk_0", "bin blue at f two now please again soon lay green", 1)], tracks
    )
    assert len(result.people) == 3


def test_a_voice_without_lips_belongs_to_the_only_visible_face() -> None:
    tracks = [FaceTrack("track-1", boxes(LEFT, 0, 10)), FaceTrack("track-2", boxes(RIGHT, 10, 20))]
    audio = [voice("spk_0", "bin blue at f two", 2), voice("spk_1", "set white with nine", 12)]
    assert [(p.voices, p.tracks) for p in fuse_sources(None, audio, tracks).people] == [
        (("spk_0",), ("track-1",)),
        (("spk_1",), ("track-2",)),
    ]


def test_a_voice_with_two_visible_faces_is_not_joined() -> None:
    tracks = [FaceTrack("track-1", boxes(LEFT, 0, 10)), FaceTrack("track-2", boxes(RIGHT, 0, 10))]
    result = fuse_sources(None, [voice("spk_0", "bin blue at f two", 2)], tracks)
    assert len(result.people) == 3


def test_audio_without_speakers_is_assigned_to_moving_lips() -> None:
    result = fuse_sources(
        one_window(lips("face-1", "bin blue", 1), lips("face-2", "set white", 5)),
        [voice("", "bin blue", 1), voice("", "set white", 5), voice("", "far away", 30)],
    )
    assert [(s.person, s.text) for s in result.segments] == [
        ("person-1", "bin blue"),
        ("person-2", "set white"),
        ("person-3", "far away"),
    ]
    assert list_people(result)[2] == ("person-3", (), ())


def test_audio_words_with_a_face_key_keep_their_face() -> None:
    audio_segment = segment(make_words("set white", 5), "face-1", "audio")
    result = fuse_sources(
        one_window(lips("face-1", "bin blue", 1), audio_segment), [voice("spk_0", "bin blue", 1)]
    )
    assert list_people(result) == [("person-1", ("spk_0",), ("window-1/face-1",))]
    assert [(w.text, w.source) for s in result.segments for w in s.words][2:] == [
        ("set", "audio"),
        ("white", "audio"),
    ]


def test_lips_take_precedence_over_diarisation() -> None:
    """Diarisation assigns the last words of face-1 to the other voice: they are not duplicated."""
    result = fuse_sources(
        one_window(lips("face-1", "bin blue at f two now", 1), lips("face-2", "set white with nine", 6)),
        [
            voice("spk_0", "bin blue at f", 1),
            segment(make_words("two now", 1 + 4 * 0.4), "spk_1", "audio"),
            voice("spk_1", "set white with nine", 6),
        ],
    )
    assert [(s.person, s.text) for s in result.segments] == [
        ("person-1", "bin blue at f two now"),
        ("person-2", "set white with nine"),
    ]


def test_people_are_named_by_first_appearance() -> None:
    result = fuse_sources(
        None, [voice("spk_9", "bin", 1), voice("spk_0", "blue", 5)], [FaceTrack("t", boxes(LEFT, 0, 0.4))]
    )
    assert [(p.name, p.first_s) for p in result.people] == [("person-1", 0), ("person-2", 1), ("person-3", 5)]


@settings(deadline=None, max_examples=40)
@given(st.randoms(use_true_random=False))
def test_the_result_is_independent_of_input_order(rng: object) -> None:
    windows = [
        Window(0, 10, (lips("face-1", "bin blue now", 8, LEFT), lips("face-2", "set white", 4, RIGHT))),
        Window(7, 20, (lips("face-1", "bin blue now", 8, LEFT), lips("face-2", "two now", 15, RIGHT))),
    ]
    audio = [voice("spk_0", "bin blue now", 8), voice("spk_1", "set white", 4), voice("spk_1", "two now", 15)]
    tracks = [FaceTrack("a", boxes(LEFT, 0, 20)), FaceTrack("b", boxes(RIGHT, 0, 20))]
    expected = fuse_sources(windows, audio, tracks)
    for source in (windows, audio, tracks):
        rng.shuffle(source)  # type: ignore[attr-defined]
    shuffled = [
        Window(w.start_s, w.end_s, tuple(sorted(w.segments, key=lambda _: rng.random()))) for w in windows
    ]  # type: ignore[attr-defined]
    assert fuse_sources(shuffled, audio, tracks) == expected
    assert len(expected.people) == 2


random_spans = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 5)).map(lambda s: (float(s[0]), float(s[0] + s[1]))),
    max_size=6,
)


@settings(deadline=None)
@given(random_spans, random_spans)
def test_span_durations_match_sampled_durations(
    one: list[tuple[float, float]], other: list[tuple[float, float]]
) -> None:
    def count_spans(spans: list[tuple[float, float]], time_s: int) -> int:
        return sum(start_s <= time_s < end_s for start_s, end_s in spans)

    times_s = range(26)
    shared = compute_overlap_ms(merge_spans(one), merge_spans(other))
    assert shared == 1000 * sum(bool(count_spans(one, m)) and bool(count_spans(other, m)) for m in times_s)
    for span, exclusive in zip(one, find_exclusive_spans(one), strict=True):
        for m in times_s:
            assert bool(count_spans(exclusive, m)) == (
                bool(count_spans([span], m)) and count_spans(one, m) == 1
            )
        assert all(a[1] < b[0] for a, b in itertools.pairwise(exclusive))


def test_words_without_duration_have_a_speaker() -> None:
    result = fuse_sources(None, [segment([word("oh", 1, 1)], "", "audio")])
    assert [s.person for s in result.segments] == ["person-1"]
