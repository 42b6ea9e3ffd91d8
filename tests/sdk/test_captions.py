"""Property-based tests of caption layout, and round trips through each caption format."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gorggle import Segment, Word
from gorggle.captions import CaptionRules, Cue, build_cues, check_captions, display_name, to_plain_text
from gorggle.captions.formats import SRT_LOOK_ALIKES, write_srt, write_ttml, write_vtt
from gorggle.captions.text import clean_text, display_width, is_right_to_left, split_word
from tests.fusion import factories
from tests.fusion.factories import sentences
from tests.sdk.caption_parsers import ParsedCue, read_srt, read_ttml, read_webvtt

no_deadline = settings(deadline=None, max_examples=80)


def word(text: str, start_s: float, end_s: float) -> Word:
    return Word(text, start_s, end_s)


def make_words(text: str, start_s: float = 0.0, each_s: float = 0.4) -> list[Word]:
    return [Word(w.text, w.start_s, w.end_s) for w in factories.make_words(text, start_s, each_s)]


def make_segment(words: Sequence[Any], speaker: str = "person-1") -> Segment:
    own_words = tuple(Word(w.text, w.start_s, w.end_s) for w in words)
    return Segment(
        own_words[0].start_s,
        own_words[-1].end_s,
        " ".join(w.text for w in own_words),
        speaker=speaker,
        words=own_words,
    )


HOSTILE = [
    "-->",
    "00:00:01.000 --> 00:00:02.000",
    "<script>alert(1)</script>",
    "</v><v Mallory>",
    "&lt;b&gt;",
    "&amp",
    "{\\an8}",
    "]]>",
    "<!--",
    "a\n\nb",
    "\r\n2\r\n",
    "\u2028x\u2029y\x85z",
    "\x00\x07\x1b[31m",
    "\u202eevil\u202c",
    "\u2066x",
    "\ufffe\uffff\ufdd0",
    "\ud800",
    "NOTE",
    "STYLE",
    "1",
    "WEBVTT",
    "w" * 130,
    "é\u0301" * 60,
    "漢字仮名交じり文の長い一行は空白なしに続くので切る場所を選ぶ。" * 2,
    "ภาษาไทยไม่มีช่องว่างระหว่างคำ",
    "שלום",
    "مرحبا",
    "👩\u200d👩\u200d👧\u200d👦",
    "\u0301",
    "\u200d",
    "12",
    "people.",
]
hostile_texts = st.one_of(
    st.text(st.characters(), min_size=1, max_size=50),
    st.sampled_from(HOSTILE),
    st.sampled_from(
        [
            "and",
            "of",
            "the",
            "7",
            "apples,",
            "Mr",
            "Smith",
            "said",
            "no.",
            "Why?",
            "Because",
            "seven",
            "people",
        ]
    ),
)
speaker_ids = st.sampled_from(["person-1", "person-2", "person-3"])


@st.composite
def hostile_segments(draw: st.DrawFn) -> list[Segment]:
    """Segments of arbitrary text and timing: speakers overlap, words last from 0 to 61 s."""
    result = []
    for _ in range(draw(st.integers(0, 6))):
        at_s = draw(st.floats(0, 30) | st.floats(0, 400_000))
        words = []
        for text in draw(st.lists(hostile_texts, min_size=1, max_size=25)):
            length_s = draw(st.sampled_from([0.0, 0.001, 0.1, 0.3, 0.9, 8.0, 61.0]))
            words.append(Word(text, at_s, at_s + length_s))
            at_s += length_s + draw(st.sampled_from([0.0, 0.05, 0.6]))
        result.append(make_segment(words, draw(speaker_ids)))
    return sorted(result, key=lambda segment: segment.start_s)


display_names = st.dictionaries(speaker_ids, st.sampled_from(["", *HOSTILE, "Ana", "name " * 20]), max_size=3)
caption_rules = st.builds(
    CaptionRules,
    max_line_chars=st.sampled_from([42, 42, 37, 12]),
    max_lines=st.sampled_from([2, 2, 1, 3]),
    max_chars_per_s=st.sampled_from([17.0, 12.5, 25.0]),
)


def remove_whitespace(text: str) -> str:
    return "".join(clean_text(text).split())


def characters_by_speaker(segments: list[Segment], names: dict[str, str]) -> dict[str, str]:
    result: dict[str, str] = {}
    for segment in segments:
        name = display_name(segment.speaker, names)
        result[name] = result.get(name, "") + "".join(remove_whitespace(w.text) for w in segment.words)
    return {name: "".join(sorted(text)) for name, text in result.items() if text}


def displayed_characters_by_speaker(cues: tuple[Cue, ...]) -> dict[str, str]:
    result: dict[str, str] = {}
    for cue in cues:
        result[cue.speaker] = result.get(cue.speaker, "") + remove_whitespace(" ".join(cue.lines))
    return {name: "".join(sorted(text)) for name, text in result.items()}


@no_deadline
@given(hostile_segments(), caption_rules, display_names)
def test_captions_satisfy_all_rules_and_contain_all_characters_of_each_speaker(
    segments: list[Segment], rules: CaptionRules, names: dict[str, str]
) -> None:
    cues = build_cues(segments, rules, names)
    assert check_captions(cues, rules) == []
    assert displayed_characters_by_speaker(cues) == characters_by_speaker(segments, names)


def test_neighbouring_lines_of_three_do_not_fit_on_one() -> None:
    texts = ["0", "0", "0.", "0", "000", "0000000", "00000\r000000\u0e5c\u0e5c\u0e5c\u0e5c\u2648\U0001ee38"]
    segments = [
        make_segment([word(text, 0, 0) for text in texts], "person-1"),
        *(make_segment([word("0", 0, 0)], speaker) for speaker in ("person-1", "person-1", "person-2")),
    ]
    rules = CaptionRules(max_line_chars=37, max_lines=3)
    cues = build_cues(segments, rules, label_speakers=True)
    assert check_captions(cues, rules) == []


@no_deadline
@given(hostile_segments(), caption_rules, display_names)
def test_captions_with_labels_satisfy_all_rules(
    segments: list[Segment], rules: CaptionRules, names: dict[str, str]
) -> None:
    cues = build_cues(segments, rules, names, label_speakers=True)
    assert check_captions(cues, rules) == []
    unlabelled = build_cues(segments, rules, names)
    assert sum(len(remove_whitespace("".join(c.lines))) for c in cues) >= sum(
        len(remove_whitespace("".join(c.lines))) for c in unlabelled
    )


def times_and_lines(cues: tuple[Cue, ...]) -> list[tuple[int, int, tuple[str, ...]]]:
    return [(cue.start_ms, cue.end_ms, cue.lines) for cue in cues]


@no_deadline
@given(hostile_segments(), display_names)
@example([make_segment([word("-->", 0, 1)])], {"person-1": "a\n--> <b>"})
@example([make_segment([word("x", 0, 1)])], {"person-1": "a--"})
@example([make_segment([word("<script>", 0, 1)]), make_segment([word("x", 1, 2)], "person-2")], {})
def test_webvtt_round_trip(segments: list[Segment], names: dict[str, str]) -> None:
    cues = build_cues(segments, names=names)
    parsed = read_webvtt(write_vtt(cues))
    assert [(c.start_ms, c.end_ms, c.lines, c.voice) for c in parsed] == [
        (c.start_ms, c.end_ms, c.lines, c.speaker) for c in cues
    ]


@no_deadline
@given(hostile_segments(), display_names)
def test_ttml_round_trip(segments: list[Segment], names: dict[str, str]) -> None:
    cues = build_cues(segments, names=names)
    parsed = read_ttml(write_ttml(cues, "en-GB"))
    assert [(c.start_ms, c.end_ms, c.lines, c.voice) for c in parsed] == [
        (c.start_ms, c.end_ms, c.lines, c.speaker) for c in cues
    ]


@no_deadline
@given(hostile_segments(), display_names)
def test_srt_round_trip_except_look_alikes(segments: list[Segment], names: dict[str, str]) -> None:
    cues = build_cues(segments, names=names, label_speakers=True)
    parsed = read_srt(write_srt(cues))
    expected = [
        ParsedCue(c.start_ms, c.end_ms, tuple(line.translate(SRT_LOOK_ALIKES) for line in c.lines))
        for c in cues
    ]
    assert parsed == expected


@no_deadline
@given(hostile_segments(), display_names)
def test_plain_text_has_one_line_per_segment(segments: list[Segment], names: dict[str, str]) -> None:
    lines = to_plain_text(segments, names).split("\n")
    assert lines.pop() == ""
    assert len(lines) == sum(bool(clean_text(segment.text)) for segment in segments)
    assert all(line == clean_text(line) for line in lines)


@pytest.mark.parametrize(("write", "empty"), [(write_vtt, "WEBVTT\n"), (write_srt, "")])
def test_no_segments_produce_an_empty_file(write: object, empty: str) -> None:
    assert callable(write)
    assert write(build_cues([])) == empty
    assert read_ttml(write_ttml([])) == []
    assert to_plain_text([]) == ""


@no_deadline
@given(sentences(min_words=1, max_words=40))
def test_captions_of_a_single_speaker_start_with_their_words(words: list[Any]) -> None:
    """With words of at least 0.17 s, only the minimum duration of a caption can delay the next one."""
    cues = build_cues([make_segment(words)])
    starts = [round(w.start_s * 1000) for w in words]
    for before, cue in itertools.pairwise([None, *cues]):
        assert cue is not None
        assert cue.start_ms in starts or (before is not None and before.duration_ms == 834)


def build_lines(text: str, each_s: float = 0.3) -> list[tuple[str, ...]]:
    return [cue.lines for cue in build_cues([make_segment(make_words(text, each_s=each_s))])]


def test_a_line_that_fits_is_not_broken() -> None:
    assert build_lines("this all fits on one line of a caption") == [
        ("this all fits on one line of a caption",)
    ]


def test_lines_break_after_punctuation_and_before_conjunctions() -> None:
    assert build_lines("We could have gone home, you know that we all wanted") == [
        ("We could have gone home,", "you know that we all wanted")
    ]
    assert build_lines("She brought her brother along and nobody minded it") == [
        ("She brought her brother along", "and nobody minded it")
    ]


def test_captions_end_at_sentence_boundaries() -> None:
    text = (
        "This is what the man told everybody in town. Nobody believed a single word of it but they listened."
    )
    assert [" ".join(lines) for lines in build_lines(text)] == [
        "This is what the man told everybody in town.",
        "Nobody believed a single word of it but they listened.",
    ]
    assert build_lines("Yes. I do.") == [("Yes. I do.",)]


@pytest.mark.parametrize("number", ["25", "3,500", "seven", "$40", "21st"])
def test_a_number_stays_with_its_noun(number: str) -> None:
    """Check all positions in a long sentence."""
    filler = (
        "walking slowly through empty gardens while something moved behind broken windows yesterday evening"
    )
    for at in range(1, 12):
        words = filler.split()
        words[at:at] = [number, "horses"]
        cues = build_lines(" ".join(words))
        lines = [line for cue in cues for line in cue]
        assert any(f"{number} horses" in line for line in lines), lines


def test_lines_are_balanced() -> None:
    for first, second in build_lines("everybody wondered whether somebody else understood everything", 0.3):
        assert abs(len(first) - len(second)) <= 12


def test_captions_of_long_speech_without_pauses_last_at_most_seven_seconds() -> None:
    cues = build_cues([make_segment(make_words("very slow speech that goes on for long", each_s=2.5))])
    assert len(cues) >= 3
    assert all(cue.duration_ms <= 7000 for cue in cues)


def test_captions_last_for_the_minimum_duration_and_the_reading_time() -> None:
    [cue] = build_cues([make_segment([word("Yes", 1.0, 1.2)])])
    assert (cue.start_ms, cue.end_ms) == (1000, 1834)
    [cue] = build_cues([make_segment(make_words("extraordinarily quick understatement", 1.0, 0.1))])
    assert cue.end_ms - cue.start_ms == CaptionRules().min_reading_ms(36)


def test_the_reading_time_is_shortened_by_the_next_speech() -> None:
    fast = make_segment(make_words("extraordinarily quick understatement", 1.0, 0.35))
    following = make_segment([word("Indeed", 2.3, 2.6)], "person-2")
    first, second = build_cues([fast, following])
    assert (first.end_ms, second.start_ms) == (2220, 2300)


def test_captions_of_overlapping_speakers_alternate_with_a_delay() -> None:
    one = make_segment(make_words("I never said that you were wrong", 1.0, 0.3), "person-1")
    other = make_segment(make_words("you always say that I am wrong", 1.1, 0.3), "person-2")
    first, second = build_cues([one, other])
    assert (first.speaker, second.speaker) == ("Person 1", "Person 2")
    assert second.start_ms - 1100 <= CaptionRules().max_delay_ms
    assert first.end_ms + 80 == second.start_ms


def test_labels_are_added_where_the_speaker_changes() -> None:
    segments = [
        make_segment(make_words("hello", 0), "person-1"),
        make_segment(make_words("again", 3), "person-1"),
        make_segment(make_words("good morning", 6), "person-2"),
    ]
    cues = build_cues(segments, names={"person-2": "Ana"}, label_speakers=True)
    assert [cue.lines for cue in cues] == [("Person\u00a01: hello",), ("again",), ("Ana: good morning",)]
    alone = build_cues(segments[:2], label_speakers=True)
    assert [cue.lines for cue in alone] == [("hello",), ("again",)]


def test_all_captions_of_interrupted_speakers_have_labels() -> None:
    long = make_segment(
        make_words("this goes on and on for longer than any one caption could ever possibly hold", 0)
    )
    other = make_segment(make_words("stop", 1.0), "person-2")
    assert all(": " in cue.lines[0] for cue in build_cues([long, other], label_speakers=True))


def test_japanese_has_no_spaces_and_is_two_columns_wide() -> None:
    words = [
        word(c, at * 0.2, at * 0.2 + 0.2)
        for at, c in enumerate("今日は天気がいいから散歩しましょう、と彼は言いました。")
    ]
    [cue] = build_cues([make_segment(words)])
    assert cue.lines == ("今日は天気がいいから散歩しましょう、", "と彼は言いました。")
    assert display_width(cue.lines[0]) == 36


def test_korean_keeps_its_spaces() -> None:
    assert build_lines("안녕하세요 여러분") == [("안녕하세요 여러분",)]


def test_a_word_longer_than_a_line_is_split_between_grapheme_clusters() -> None:
    pieces = list(split_word("e\u0301" * 50, 42))
    assert [display_width(piece) for piece in pieces] == [42, 8]
    assert all(not piece.startswith("\u0301") for piece in pieces)
    assert "".join(split_word("👩\u200d👧" * 30, 42)) == "👩\u200d👧" * 30
    assert list(split_word("漢" * 21 + "。字", 42)) == ["漢" * 20, "漢。字"]


def test_direction_overrides_are_removed_and_direction_marks_are_kept() -> None:
    assert clean_text("a\u202eb\u2066c\u200fd") == "abc\u200fd"
    assert is_right_to_left("12 שלום a")
    assert not is_right_to_left("hello שלום")
    rtl = write_ttml(build_cues([make_segment([word("שלום", 0, 1)])]))
    assert 'tts:direction="rtl"' in rtl


def test_an_invalid_language_is_written_as_an_empty_tag() -> None:
    assert 'xml:lang="de-CH"' in write_ttml([], "de-CH")
    assert 'xml:lang=""' in write_ttml([], 'en" onload="x')


def test_hours_can_have_more_than_two_digits() -> None:
    cues = [Cue(360_000_000, 360_001_000, "", ("late",))]
    assert "100:00:00.000 --> 100:00:01.000" in write_vtt(cues)
    assert read_ttml(write_ttml(cues))[0].start_ms == 360_000_000


GOOD = Cue(1000, 3000, "person-1", ("Hello there,", "this is a second line that is rather long"))


def find_broken_rules(*cues: Cue) -> set[str]:
    return {problem.rule for problem in check_captions(cues)}


def test_the_linter_accepts_valid_captions() -> None:
    good = replace(GOOD, end_ms=5000)
    assert check_captions([good, replace(GOOD, start_ms=5080, end_ms=9000)]) == []


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (replace(GOOD, lines=("x" * 43,)), "line length"),
        (replace(GOOD, lines=("漢" * 22,)), "line length"),
        (replace(GOOD, lines=("a" * 30, "b" * 30, "c" * 30)), "line count"),
        (replace(GOOD, lines=()), "text"),
        (replace(GOOD, lines=("",)), "text"),
        (replace(GOOD, lines=("a\x07b",)), "text"),
        (replace(GOOD, lines=(" a",)), "text"),
        (replace(GOOD, speaker="a\nb"), "text"),
        (replace(GOOD, lines=("Hello", "there")), "needless break"),
        (
            replace(GOOD, lines=("he found as many as 25", "horses that nobody else had seen")),
            "number and noun",
        ),
        (replace(GOOD, end_ms=1833), "duration"),
        (replace(GOOD, end_ms=8001), "duration"),
        (replace(GOOD, end_ms=1000), "duration"),
        (replace(GOOD, start_ms=-1000), "order"),
        (replace(GOOD, end_ms=3000), "reading speed"),
    ],
)
def test_the_linter_finds_each_broken_rule(broken: Cue, rule: str) -> None:
    assert rule in find_broken_rules(broken)
    assert rule in find_broken_rules(replace(GOOD, start_ms=-9000, end_ms=-3000), broken)


@pytest.mark.parametrize("end", ["25.", "25,", "seven.", "25 and", "route", "x25"])
def test_a_break_after_a_number_without_a_noun_is_allowed(end: str) -> None:
    lines = (f"he found as many as {end}", "Horses that nobody else had seen")
    assert find_broken_rules(replace(GOOD, lines=lines, end_ms=6000)) == set()


def test_the_linter_finds_short_gaps_and_overlaps() -> None:
    first = replace(GOOD, end_ms=5000)
    assert find_broken_rules(first, replace(GOOD, start_ms=5079, end_ms=9000)) == {"gap"}
    assert find_broken_rules(first, replace(GOOD, start_ms=4999, end_ms=9000)) == {"order"}


def test_a_caption_can_exceed_the_reading_speed_if_the_next_one_follows() -> None:
    assert find_broken_rules(GOOD, replace(GOOD, start_ms=3080, end_ms=8000)) == set()
    assert find_broken_rules(GOOD, replace(GOOD, start_ms=3500, end_ms=8000)) == {"reading speed"}


@pytest.mark.parametrize(
    "values",
    [
        {"max_line_chars": 9},
        {"max_lines": 0},
        {"max_chars_per_s": 0.0},
        {"min_duration_ms": 8000},
        {"min_gap_ms": -1},
    ],
)
def test_inconsistent_rules_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        CaptionRules(**values)


def test_every_caption_of_doubtful_words_is_marked() -> None:
    """And passes the linter; names precede the mark."""
    long = make_segment(make_words("place red in h seven please " * 8))
    doubtful = replace(long, is_doubtful=True)
    cues = build_cues([doubtful])
    assert len(cues) > 2
    assert all(cue.lines[0].startswith("(?) place" if cue is cues[0] else "(?) ") for cue in cues)
    assert not check_captions(cues)
    other = make_segment(make_words("bin blue", 60), "person-2")
    labelled = build_cues([doubtful, other], label_speakers=True)
    assert labelled[0].lines[0].replace("\u00a0", " ").startswith("Person 1: (?) place")
    assert labelled[1].lines[0].startswith("(?) ")
    assert labelled[-1].lines[0].replace("\u00a0", " ") == "Person 2: bin blue"
    assert to_plain_text([doubtful, other]).splitlines()[0].startswith("Person 1: (?) place")
