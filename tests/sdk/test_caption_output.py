"""``gorggle.to_srt`` and ``to_vtt``: output for arbitrary segments, checked with strict parsers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gorggle import Segment, Word, to_srt, to_vtt
from gorggle.captions import Cue, check_captions
from gorggle.captions.formats import SRT_LOOK_ALIKES
from gorggle.captions.text import clean_text
from tests.sdk.caption_parsers import ParsedCue, read_srt, read_webvtt

# The duration of an example depends on the load of the machine.
no_deadline = settings(deadline=None)

texts = st.text(st.characters(codec="utf-8"), max_size=60)
spoken_texts = st.one_of(
    texts,
    st.sampled_from(
        ["-->", "a --> b", "<i>", "&amp;", "42", "\n\n", "x" * 100, "word " * 40, "\u2028", "\x00", "é\u0301"]
    ),
)
times = st.floats(-1, 500_000, allow_nan=False)


@st.composite
def words(draw: st.DrawFn) -> Word:
    start_s, length_s = draw(times), draw(st.floats(-1, 30))
    return Word(draw(spoken_texts), start_s, start_s + length_s)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    start_s, length_s = draw(times), draw(st.floats(-1, 30))
    return Segment(
        start_s,
        start_s + length_s,
        draw(spoken_texts),
        is_final=draw(st.booleans() | st.just(True)),
        speaker=draw(st.sampled_from(["", "face-1", "face-2", "voice", "<b> & -->", "a\nb", "name " * 20])),
        words=tuple(draw(st.lists(words(), max_size=6))),
    )


def remove_whitespace(text: str) -> str:
    return "".join(clean_text(text).split())


def expected_characters(segment: Segment) -> str:
    """Return the characters of the segment's words, or of its text if it has no words."""
    return "".join(remove_whitespace(word.text) for word in segment.words) or remove_whitespace(segment.text)


def check_rules(cues: list[ParsedCue]) -> None:
    assert check_captions([Cue(cue.start_ms, cue.end_ms, cue.voice, cue.lines) for cue in cues]) == []
    assert all(0 <= cue.start_ms < cue.end_ms for cue in cues)
    assert all(before.end_ms <= after.start_ms for before, after in itertools.pairwise(cues))


@no_deadline
@given(st.lists(segments(), max_size=5))
@example([Segment(360_000, 360_001, "a hundred hours")])
@example([Segment(0, 1, "at once", speaker="face-1"), Segment(0, 1, "at once", speaker="face-2")])
@example([Segment(1, 1, "no time at all")])
def test_vtt_is_valid_and_contains_all_characters(input_segments: list[Segment]) -> None:
    cues = read_webvtt(to_vtt(input_segments))
    check_rules(cues)
    expected = [expected_characters(segment) for segment in input_segments if segment.is_final]
    assert sorted("".join(expected)) == sorted(remove_whitespace("".join("".join(cue.lines) for cue in cues)))


@no_deadline
@given(st.lists(segments(), max_size=5))
@example([Segment(360_000, 360_001, "a hundred hours")])
@example([Segment(0, 1, "one", speaker="face-1"), Segment(0, 9, "two", speaker="name " * 20)])
def test_srt_is_valid(input_segments: list[Segment]) -> None:
    check_rules(read_srt(to_srt(input_segments)))


@no_deadline
@given(segments())
def test_srt_contains_all_characters(segment: Segment) -> None:
    cues = read_srt(to_srt([segment]))
    expected = expected_characters(segment) if segment.is_final else ""
    assert remove_whitespace("".join("".join(cue.lines) for cue in cues)) == expected.translate(
        SRT_LOOK_ALIKES
    )


@no_deadline
@given(st.lists(st.text("abcdefg", min_size=1, max_size=12), min_size=1, max_size=60), st.floats(0.5, 2))
def test_long_segments_are_split_between_words_at_word_timestamps(texts: list[str], word_s: float) -> None:
    segment_words = tuple(
        Word(text, index * word_s, (index + 1) * word_s) for index, text in enumerate(texts)
    )
    cues = read_webvtt(to_vtt([Segment(0, len(texts) * word_s, " ".join(texts), words=segment_words)]))
    index = 0
    for cue in cues:
        shown = " ".join(cue.lines).split()
        assert shown == texts[index : index + len(shown)]
        # The minimum duration of a caption of one short word can delay the next caption.
        assert 0 <= cue.start_ms - round(segment_words[index].start_s * 1000) <= 834 + 80
        index += len(shown)
    assert index == len(texts)


def test_timestamps_and_words_are_kept() -> None:
    segment = Segment(
        0.52, 2.1, "bin blue", words=(Word("bin", 0.52, 0.9), Word("blue", 1.2, 2.1)), speaker="face-1"
    )
    assert to_srt([segment]) == "1\n00:00:00,520 --> 00:00:02,100\nbin blue\n"
    assert to_vtt([segment]) == "WEBVTT\n\n1\n00:00:00.520 --> 00:00:02.100\n<v Person 1>bin blue\n"


def test_a_short_word_is_shown_for_the_minimum_duration() -> None:
    [cue] = read_srt(to_srt([Segment(1.0, 1.2, "yes")]))
    assert (cue.start_ms, cue.end_ms) == (1000, 1834)


def test_srt_names_speakers_only_if_there_are_several() -> None:
    first, second = Segment(0, 1, "one", speaker="face-1"), Segment(1, 2, "two", speaker="face-2")
    assert "Person" not in to_srt([first, Segment(1, 2, "two", speaker="face-1")])
    named = read_srt(to_srt([first, second], names={"face-2": "Ana"}))
    assert [cue.lines for cue in named] == [("Person\u00a01: one",), ("Ana: two",)]


def test_vtt_names_each_speaker_and_escapes_markup() -> None:
    text = to_vtt([Segment(0, 1, "a < b --> c & d", speaker="R&D <x>")])
    assert text.splitlines()[4] == "<v R&amp;D &lt;x&gt;>a &lt; b --&gt; c &amp; d"


def test_text_without_word_timestamps_is_spread_over_the_segment() -> None:
    text = "a piece of text that is far too long for one line and even for two lines of a caption together"
    cues = read_srt(to_srt([Segment(10, 16, text)]))
    assert len(cues) == 2
    assert (cues[0].start_ms, cues[-1].end_ms) == (10_000, 16_000)
    assert cues[1].start_ms - cues[0].end_ms == 80
    assert " ".join(" ".join(cue.lines) for cue in cues) == text


def test_overlapping_speakers_are_shown_one_after_the_other() -> None:
    cues = read_webvtt(
        to_vtt([Segment(0, 4, "long", speaker="face-1"), Segment(1, 2, "short", speaker="voice")])
    )
    assert [(cue.voice, cue.start_ms, cue.end_ms) for cue in cues] == [
        ("Person 1", 0, 920),
        ("Voice", 1000, 2000),
    ]


@pytest.mark.parametrize(
    "segments_without_speech", [[], [Segment(0, 1, "  \n ")], [Segment(0, 1, "interim", is_final=False)]]
)
def test_no_speech_produces_empty_captions(segments_without_speech: list[Segment]) -> None:
    assert to_srt(segments_without_speech) == ""
    assert to_vtt(segments_without_speech) == "WEBVTT\n"
