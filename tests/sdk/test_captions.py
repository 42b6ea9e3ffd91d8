"""Captions keep the rules of their formats, whatever the segments: read back by a small reader of each format."""

from __future__ import annotations

import html
import itertools
import re
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gorggle import Segment, Word, to_srt, to_vtt
from gorggle.captions import MAX_CUE_LINES, MAX_LINE_CHARS

# Two cores are shared with other work: how long an example takes says nothing.
unhurried = settings(deadline=None)


@dataclass
class ReadCue:
    start_ms: int
    end_ms: int
    lines: list[str]
    voice: str = ""


def read_srt(text: str) -> list[ReadCue]:
    """Read SubRip strictly: numbered blocks between single blank lines."""
    if not text:
        return []
    assert text.endswith("\n")
    cues = []
    for number, block in enumerate(text[:-1].split("\n\n"), 1):
        counter, timing, *lines = block.split("\n")
        assert counter == str(number)
        found = re.fullmatch(
            r"(\d{2,}):([0-5]\d):([0-5]\d),(\d{3}) --> (\d{2,}):([0-5]\d):([0-5]\d),(\d{3})", timing
        )
        assert found, timing
        assert all(lines), "a blank line would end the cue"
        assert not any("-->" in line for line in lines)
        cues.append(ReadCue(*milliseconds(found), lines))
    return cues


def read_vtt(text: str) -> list[ReadCue]:
    """Read WebVTT as its standard has it: a header, then blocks; tags and escapes in the text."""
    header, *blocks = text.split("\n\n")
    assert header.rstrip("\n") == "WEBVTT"
    cues = []
    for block in blocks:
        timing, *lines = block.rstrip("\n").split("\n")
        found = re.fullmatch(
            r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3}) --> (\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})", timing
        )
        assert found, timing
        assert lines
        payload = "\n".join(lines)
        assert "-->" not in payload
        voice = re.match(r"<v ([^>\n]+)>", payload)
        spoken = payload[voice.end() :] if voice else payload
        assert not re.search(r"[<>]", spoken), "text must be escaped"
        assert not re.search(r"&(?!amp;|lt;|gt;)", payload), "ampersands must be escaped"
        plain = [html.unescape(line) for line in spoken.split("\n")]
        assert all(plain)
        cues.append(ReadCue(*milliseconds(found), plain, html.unescape(voice[1]) if voice else ""))
    return cues


def milliseconds(found: re.Match[str]) -> tuple[int, int]:
    times = [int(group) for group in found.groups()]
    start, end = (((h * 60 + m) * 60 + s) * 1000 + ms for h, m, s, ms in (times[:4], times[4:]))
    return start, end


def said(text: str) -> str:
    """Text without what captions may change: spaces and line breaks, control characters."""
    return "".join(c for c in text if not c.isspace() and not (ord(c) < 32 or 127 <= ord(c) < 160))


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


def text_of(segment: Segment) -> str:
    """What a segment's captions must hold: its words, or its text where it has none."""
    return said("".join(word.text for word in segment.words)) or said(segment.text)


def check_order(cues: list[ReadCue]) -> None:
    assert all(0 <= cue.start_ms < cue.end_ms for cue in cues)
    assert all(before.end_ms <= after.start_ms for before, after in itertools.pairwise(cues))


def check_size(cues: list[ReadCue]) -> None:
    assert all(1 <= len(cue.lines) <= MAX_CUE_LINES for cue in cues)
    assert all(len(line) <= MAX_LINE_CHARS for cue in cues for line in cue.lines)


@unhurried
@given(st.lists(segments(), max_size=5))
@example([Segment(360_000, 360_001, "a hundred hours")])
@example([Segment(0, 1, "at once", speaker="face-1"), Segment(0, 1, "at once", speaker="face-2")])
@example([Segment(1, 1, "no time at all")])
def test_vtt_is_valid_and_says_everything(given_segments: list[Segment]) -> None:
    cues = read_vtt(to_vtt(given_segments))
    check_order(cues)
    check_size(cues)
    expected = [text_of(segment) for segment in given_segments if segment.is_final]
    assert sorted("".join(expected)) == sorted(said("".join("".join(cue.lines) for cue in cues)))


@unhurried
@given(st.lists(segments(), max_size=5))
@example([Segment(360_000, 360_001, "a hundred hours")])
@example([Segment(0, 1, "one", speaker="face-1"), Segment(0, 9, "two", speaker="name " * 20)])
def test_srt_is_valid(given_segments: list[Segment]) -> None:
    cues = read_srt(to_srt(given_segments))
    check_order(cues)
    check_size(cues)


@unhurried
@given(segments())
def test_srt_says_everything(segment: Segment) -> None:
    cues = read_srt(to_srt([segment]))
    expected = text_of(segment) if segment.is_final else ""
    assert said("".join("".join(cue.lines) for cue in cues)) == expected.replace("-->", "→")


@unhurried
@given(st.lists(st.text("abcdefg", min_size=1, max_size=12), min_size=1, max_size=60), st.floats(0.05, 2))
def test_long_segments_are_cut_at_words_by_the_words_own_times(texts: list[str], word_s: float) -> None:
    said_words = tuple(Word(text, index * word_s, (index + 1) * word_s) for index, text in enumerate(texts))
    cues = read_vtt(to_vtt([Segment(0, len(texts) * word_s, " ".join(texts), words=said_words)]))
    at = 0
    for cue in cues:
        shown = " ".join(cue.lines).split()
        assert shown == texts[at : at + len(shown)]
        assert cue.start_ms == round(said_words[at].start_s * 1000)
        at += len(shown)
        assert cue.end_ms == round(said_words[at - 1].end_s * 1000)
        assert cue.end_ms - cue.start_ms <= 7000
    assert at == len(texts)


def test_times_and_words_are_kept_exactly() -> None:
    segment = Segment(
        0.52, 2.1, "bin blue", words=(Word("bin", 0.52, 0.9), Word("blue", 1.2, 2.1)), speaker="face-1"
    )
    assert to_srt([segment]) == "1\n00:00:00,520 --> 00:00:02,100\nbin blue\n"
    assert to_vtt([segment]) == "WEBVTT\n\n00:00:00.520 --> 00:00:02.100\n<v face-1>bin blue\n"


def test_speakers_are_named_in_srt_only_where_there_are_several() -> None:
    first, second = Segment(0, 1, "one", speaker="face-1"), Segment(1, 2, "two", speaker="face-2")
    assert "face" not in to_srt([first, Segment(1, 2, "two", speaker="face-1")])
    assert [cue.lines for cue in read_srt(to_srt([first, second]))] == [["face-1: one"], ["face-2: two"]]


def test_vtt_names_each_speaker_and_escapes_what_means_something() -> None:
    text = to_vtt([Segment(0, 1, "a < b --> c & d", speaker="R&D <x>")])
    assert text.splitlines()[3] == "<v R&amp;D &lt;x&gt;>a &lt; b --&gt; c &amp; d"


def test_a_segment_without_words_is_spread_over_its_time() -> None:
    text = "a piece of text that is far too long for one line and even for two lines of a caption together"
    cues = read_srt(to_srt([Segment(10, 16, text)]))
    assert len(cues) == 2
    assert (cues[0].start_ms, cues[-1].end_ms) == (10_000, 16_000)
    assert cues[0].end_ms == cues[1].start_ms
    assert " ".join(" ".join(cue.lines) for cue in cues) == text


def test_two_lines_are_about_equal() -> None:
    [cue] = read_srt(to_srt([Segment(0, 3, "place white with letter p four again please and now")]))
    assert cue.lines == ["place white with letter p", "four again please and now"]


def test_those_who_talk_at_once_are_shown_one_after_the_other() -> None:
    cues = read_vtt(
        to_vtt([Segment(0, 4, "long", speaker="face-1"), Segment(1, 2, "short", speaker="face-2")])
    )
    assert [(cue.voice, cue.start_ms, cue.end_ms) for cue in cues] == [
        ("face-1", 0, 1000),
        ("face-2", 1000, 2000),
    ]
    cues = read_vtt(to_vtt([Segment(0, 4, "one", speaker="face-1"), Segment(0, 4, "two", speaker="face-2")]))
    assert [(cue.voice, cue.start_ms, cue.end_ms) for cue in cues] == [
        ("face-1", 0, 500),
        ("face-2", 500, 4000),
    ]


@pytest.mark.parametrize(
    "nothing", [[], [Segment(0, 1, "  \n ")], [Segment(0, 1, "interim", is_final=False)]]
)
def test_nothing_said_makes_empty_captions(nothing: list[Segment]) -> None:
    assert to_srt(nothing) == ""
    assert to_vtt(nothing) == "WEBVTT\n"
