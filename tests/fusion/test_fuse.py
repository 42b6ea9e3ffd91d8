"""Tests of word selection: every hypothesis is accounted for."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from dataclasses import replace

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gorggle_lambdas.fusion import FusionInputError, FusionRules, Inputs, Result, fuse, load_result_schema
from gorggle_lambdas.fusion.text_normalization import normalize
from gorggle_lambdas.fusion.types import (
    Alternative,
    FaceBox,
    FaceTrack,
    Media,
    Model,
    NoiseSpan,
    Segment,
    SourceFailure,
    Window,
    Word,
)
from gorggle_lambdas.fusion.word_voting import FusedWord
from tests.fusion.factories import VOCABULARY, jittered, segment, sentences, spoken, window, word

unhurried = settings(deadline=None, max_examples=80)
VALIDATOR = jsonschema.Draft202012Validator(load_result_schema())


def fuse_words(
    lips: list[Word] | None,
    audio: list[Word] | None,
    *,
    origin: str = "lips",
    speaker: str = "spk_0",
    **more: object,
) -> Result:
    """One person, whose lips are read as face-1 and whose voice is ``speaker``; both sources read 600 s."""
    inputs = Inputs(
        Media(600.0),
        lips=None if lips is None else (window(lips, "face-1", origin, 600.0),),  # type: ignore[arg-type]
        audio=None if audio is None else (window(audio, speaker, "audio", 600.0),),
        **more,  # type: ignore[arg-type]
    )
    return fuse(inputs)


def words_of(found: Result) -> list[FusedWord]:
    return [w for s in found.segments for w in s.words]


def texts_and_sources(found: Result) -> list[tuple[str, str]]:
    return [(w.text, w.source) for w in words_of(found)]


def valid(found: Result) -> Result:
    """The result, once its JSON keeps the schema."""
    VALIDATOR.validate(json.loads(json.dumps(found.to_document(), allow_nan=False)))
    return found


def test_the_result_schema_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(load_result_schema())


def test_agreeing_words_are_kept_once_with_the_audio_text() -> None:
    found = fuse_words([word("hello", 1.0, 1.5, 0.8)], [word("Hello,", 1.05, 1.45, 0.9)])
    [said] = words_of(valid(found))
    assert (said.text, said.source, said.alternatives) == ("Hello,", "both", ())
    assert (said.start_s, said.end_s) == (1.05, 1.45)
    assert said.confidence == pytest.approx(0.98, abs=1e-3)


def test_the_more_probable_source_wins_and_the_other_is_an_alternative() -> None:
    found = fuse_words([word("bin", 1.0, 1.5, 0.9)], [word("pin", 1.0, 1.5, 0.4)])
    [said] = words_of(valid(found))
    assert (said.text, said.source) == ("bin", "lips")
    [other] = said.alternatives
    assert (other.text, other.source, other.confidence) == ("pin", "audio", pytest.approx(0.4))
    # One of the two or neither: 0.9·0.6 against 0.4·0.1 and 0.1·0.6.
    assert said.confidence == pytest.approx(0.54 / 0.64)


def test_a_tie_goes_to_the_audio() -> None:
    assert texts_and_sources(fuse_words([word("bin", 1, 2, 0.6)], [word("pin", 1, 2, 0.6)])) == [
        ("pin", "audio")
    ]


def test_noise_changes_the_selection() -> None:
    lips, audio = [word("bin", 1.0, 1.5, 0.6)], [word("pin", 1.0, 1.5, 0.8)]
    assert texts_and_sources(fuse_words(lips, audio)) == [("pin", "audio")]
    loud = (NoiseSpan(0.0, 10.0, -10.0),)
    assert texts_and_sources(fuse_words(lips, audio, noise=loud)) == [("bin", "lips")]
    elsewhere = (NoiseSpan(5.0, 10.0, -10.0),)
    assert texts_and_sources(fuse_words(lips, audio, noise=elsewhere)) == [("pin", "audio")]


def test_one_word_against_two_is_decided_jointly() -> None:
    lips = [word("i'm", 0, 0.3, 0.5), word("gonna", 0.3, 0.9, 0.3), word("win", 0.9, 1.2, 0.5)]
    audio = [word("I'm", 0, 0.3), word("going", 0.3, 0.6), word("to", 0.6, 0.9), word("win", 0.9, 1.2)]
    found = fuse_words(lips, audio)
    assert texts_and_sources(found) == [("I'm", "both"), ("going", "audio"), ("to", "audio"), ("win", "both")]
    assert [[a.text for a in w.alternatives] for w in words_of(found)] == [[], ["gonna"], [], []]
    surer = [replace(w, confidence=0.95) if w.text == "gonna" else w for w in lips]
    unsure = [replace(w, confidence=0.3) for w in audio]
    found = fuse_words(surer, unsure)
    assert [w.text for w in words_of(found)] == ["I'm", "gonna", "win"]
    assert [a.text for a in words_of(found)[1].alternatives] == ["going", "to"]


def test_an_agreed_word_does_not_replace_the_next_one() -> None:
    """Whatever duration one source gives it."""
    found = fuse_words(
        [word("hello", 1.0, 2.0, 0.9)], [word("hello", 1.0, 1.5, 0.9), word("you", 1.5, 1.7, 0.9)]
    )
    assert texts_and_sources(found) == [("hello", "both"), ("you", "audio")]


def test_words_of_one_source_are_kept() -> None:
    found = fuse_words(spoken("bin blue", 1), spoken("set white", 20))
    assert texts_and_sources(found) == [
        ("bin", "lips"),
        ("blue", "lips"),
        ("set", "audio"),
        ("white", "audio"),
    ]
    assert found.omissions == ()


def test_improbable_lip_words_in_transcribed_silence_are_omitted() -> None:
    found = valid(fuse_words([word("bin", 1, 1.5, 0.1), word("blue", 3, 3.5, 0.9)], [word("now", 9, 9.4)]))
    assert [w.text for w in words_of(found)] == ["blue", "now"]
    [omission] = found.omissions
    assert (omission.word.text, omission.word.source, omission.person) == ("bin", "lips", "person-1")
    assert "0.10 is below 0.30" in omission.reason


def test_improbable_lip_words_are_kept_without_audio_coverage() -> None:
    unsure = [word("bin", 1, 1.5, 0.1)]
    assert [w.text for w in words_of(fuse_words(unsure, None))] == ["bin"]
    failed = (SourceFailure("audio", "throttled", 0.0, 5.0),)
    assert [w.text for w in words_of(fuse_words(unsure, [word("now", 9, 9.4)], failures=failed))] == [
        "bin",
        "now",
    ]
    loud = (NoiseSpan(0.0, 5.0, -25.0),)
    assert [w.text for w in words_of(fuse_words(unsure, [word("now", 9, 9.4)], noise=loud))] == ["bin", "now"]


def test_an_audiovisual_model_has_origin_both() -> None:
    """Agreement with the audio does not raise its confidence, because the model used the audio too."""
    found = fuse_words([word("bin", 1, 1.5, 0.8)], [word("bin", 1, 1.5, 0.7)], origin="both")
    [said] = words_of(found)
    assert (said.source, said.confidence) == ("both", pytest.approx(0.8))
    assert texts_and_sources(fuse_words([word("bin", 1, 1.5, 0.1)], [word("x", 50, 51)], origin="both"))[
        0
    ] == (
        "bin",
        "both",
    )


def test_server_words_without_a_face_count_as_audio() -> None:
    heard = Segment(1, 2, "", "audio", (word("hello", 1, 1.4), word("there", 5, 5.4)))
    lips = (Window(0, 10, (heard,)),)
    alone = fuse(Inputs(Media(10), lips=lips))
    assert texts_and_sources(alone) == [("hello", "audio"), ("there", "audio")]
    transcript = (window([word("Hello", 1.02, 1.41)], "spk_0", "audio", 10.0),)
    both = fuse(Inputs(Media(10), lips=lips, audio=transcript))
    assert sorted(normalize(t) for t, _ in texts_and_sources(both)) == ["hello", "there"]


def test_other_hypotheses_of_a_source_are_alternatives() -> None:
    said = replace(word("two", 1, 1.5), alternatives=(Alternative("to", 0.3),))
    [found] = words_of(fuse_words(None, [said]))
    assert [(a.text, a.source) for a in found.alternatives] == [("to", "audio")]


def test_calibration_affects_the_selection() -> None:
    lips, audio = word("bin", 1, 1.5, 0.9), word("pin", 1, 1.5, 0.8)
    inputs = Inputs(Media(9), lips=(window([lips]),), audio=(window([audio], "spk_0", "audio"),))
    assert texts_and_sources(fuse(inputs)) == [("bin", "lips")]
    boastful = replace(FusionRules(), lips=replace(FusionRules().lips, offset=-2.0))
    assert texts_and_sources(fuse(inputs, boastful)) == [("pin", "audio")]


# What fails is said, and costs no more than it must.


def test_a_failed_source_degrades_the_result_and_is_reported() -> None:
    failed = (SourceFailure("lips", "no usable face"), SourceFailure("faces", "throttled"))
    found = valid(fuse_words(None, spoken("bin blue"), failures=failed))
    assert found.is_degraded
    assert {r.name: (r.status, [f.reason for f in r.failures]) for r in found.sources} == {
        "lips": ("failed", ["no usable face"]),
        "audio": ("used", []),
        "faces": ("failed", ["throttled"]),
    }
    assert texts_and_sources(found) == [("bin", "audio"), ("blue", "audio")]


def test_a_source_that_failed_in_part_is_partial() -> None:
    found = valid(
        fuse_words(spoken("bin"), spoken("bin"), failures=(SourceFailure("lips", "data loss", 60.0, 120.0),))
    )
    assert found.sources[0].status == "partial"
    document = found.to_document()["sources"]["lips"]
    assert document["failures"] == [{"reason": "data loss", "start_s": 60.0, "end_s": 120.0}]


def test_a_source_not_requested_is_absent() -> None:
    found = valid(fuse_words(spoken("bin blue"), None))
    assert [r.status for r in found.sources] == ["used", "absent", "absent"]
    assert not found.is_degraded


def test_fusion_without_sources_is_an_error() -> None:
    with pytest.raises(FusionInputError, match="lips: no GPU; audio: throttled"):
        fuse_words(
            None, None, failures=(SourceFailure("lips", "no GPU"), SourceFailure("audio", "throttled"))
        )


def test_silence_has_an_empty_result() -> None:
    found = valid(fuse_words([], []))
    assert (found.segments, found.people, found.omissions) == ((), (), ())


# Properties


@unhurried
@given(sentences(max_words=25), st.integers(0, 2**32))
def test_agreeing_sources_return_the_words(words: list[Word], seed: int) -> None:
    """Independent of timing errors."""
    heard = jittered(words, random.Random(seed), 0.08)
    found = fuse_words(words, heard)
    assert texts_and_sources(found) == [(w.text, "both") for w in words]


@unhurried
@given(sentences(max_words=25))
def test_a_single_source_returns_its_words_and_times(words: list[Word]) -> None:
    for found in (fuse_words(words, None), fuse_words(None, words)):
        got = [(w.text, w.start_s, w.end_s) for w in words_of(found)]
        assert got == [(w.text, w.start_s, w.end_s) for w in words]


@st.composite
def misheard_speech(draw: st.DrawFn) -> tuple[list[Word], list[Word]]:
    """One speech as two sources read it: words misread, missed, put in, split, moved."""
    words = draw(sentences(max_words=20, min_s=0.05))
    shake = random.Random(draw(st.integers(0, 2**32)))
    both = []
    for _ in range(2):
        read = []
        for w in words:
            kind = shake.random()
            if kind < 0.15:
                continue
            text = shake.choice(VOCABULARY) if kind < 0.4 else w.text
            read.append(Word(text, w.start_s, w.end_s, shake.random()))
            if kind > 0.9:
                read.append(Word(shake.choice(VOCABULARY), w.end_s, w.end_s + 0.1, shake.random()))
        both.append(sorted(jittered(read, shake, 0.1), key=lambda w: (w.start_s, w.end_s)))
    return both[0], both[1]


def accounted(found: Result) -> Counter[str]:
    """Every claim in a result: words (twice where two agreed), alternatives, omissions."""
    claims: Counter[str] = Counter()
    for w in words_of(found):
        claims[normalize(w.text)] += 2 if w.source == "both" else 1
        claims.update(normalize(a.text) for a in w.alternatives)
    claims.update(normalize(o.word.text) for o in found.omissions)
    return claims


@unhurried
@given(
    misheard_speech(), st.sampled_from(["spk_0", ""]), st.sampled_from([(), (NoiseSpan(0.0, 600.0, -5.0),)])
)
def test_every_hypothesis_is_a_word_an_alternative_or_an_omission(
    read: tuple[list[Word], list[Word]], speaker: str, noise: tuple[NoiseSpan, ...]
) -> None:
    """Nothing is added, duplicated, or dropped silently."""
    lips, audio = read
    found = valid(fuse_words(lips, audio, speaker=speaker, noise=noise))
    assert accounted(found) == Counter(normalize(w.text) for w in [*lips, *audio])
    written = {w.text for w in [*lips, *audio]}
    assert all(w.text in written for w in words_of(found))


@unhurried
@given(misheard_speech())
def test_words_are_sorted_and_do_not_overlap_per_person(read: tuple[list[Word], list[Word]]) -> None:
    found = fuse_words(*read)
    for person in found.people:
        words = [w for s in found.segments if s.person == person.name for w in s.words]
        assert all(w.start_s <= w.end_s for w in words)
        assert all(a.end_s <= b.start_s for a, b in itertools.pairwise(words))
    assert [s.start_s for s in found.segments] == sorted(s.start_s for s in found.segments)


@unhurried
@given(misheard_speech(), misheard_speech())
def test_every_hypothesis_of_two_people_is_accounted_for(
    one: tuple[list[Word], list[Word]], other: tuple[list[Word], list[Word]]
) -> None:
    lips = [segment(w, f"face-{n}") for n, (w, _) in enumerate((one, other)) if w]
    audio = [segment(w, f"spk_{n}", "audio") for n, (_, w) in enumerate((one, other)) if w]
    found = fuse(
        Inputs(Media(600), lips=(Window(0, 600, tuple(lips)),), audio=(Window(0, 600, tuple(audio)),))
    )
    VALIDATOR.validate(json.loads(json.dumps(found.to_document(), allow_nan=False)))
    assert accounted(found) == Counter(normalize(w.text) for side in (*one, *other) for w in side)


# The result


def test_a_complete_result_matches_the_schema() -> None:
    lips = Segment(1, 2, "face-1", "lips", (word("bin", 1, 1.4),), (FaceBox(1.2, 0.1, 0.2, 0.3, 0.4),))
    inputs = Inputs(
        Media(10.0, "a.mp4", 640, 360, 25.0, "h264", "aac"),
        lips=(Window(0, 10, (lips,)),),
        audio=(window([word("Bin.", 1, 1.4)], "spk_0", "audio", 10.0),),
        faces=(FaceTrack("track-1", (FaceBox(1.0, 0.1, 0.2, 0.3, 0.4), FaceBox(1.5, 0.1, 0.2, 0.3, 0.4))),),
        noise=(NoiseSpan(0, 10, 12.345),),
        model=Model("gorggle-mini-1", "Apache-2.0", "free", "https://www.apache.org/licenses/LICENSE-2.0"),
        language="en-GB",
        audio_engine="Amazon Transcribe",
        face_engine="Amazon Rekognition",
    )
    document = valid(fuse(inputs)).to_document()
    assert document["model"]["licence"]["name"] == "Apache-2.0"
    assert document["people"] == [
        {"name": "person-1", "first_s": 1.0, "voices": ["spk_0"], "faces": ["window-1/face-1", "track-1"]}
    ]
    assert [b["time_s"] for b in document["faces"][0]["boxes"]] == [1.0, 1.5]
    assert document["noise"] == [{"start_s": 0.0, "end_s": 10.0, "snr_db": 12.35}]
    assert document["sources"]["audio"]["engine"] == "Amazon Transcribe"
    said = document["segments"][0]["words"][0]
    assert all(isinstance(said[name], float) for name in ("start_s", "end_s", "confidence"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.pop("sources"),
        lambda d: d.update(extra=1),
        lambda d: d["segments"][0]["words"][0].update(source="guess"),
        lambda d: d["segments"][0]["words"][0].update(extra=1),
        lambda d: d["segments"][0]["words"][0].pop("alternatives"),
        lambda d: d["segments"][0]["words"][0].update(confidence=1.1),
        lambda d: d["segments"][0].update(person="Bob"),
        lambda d: d["sources"]["lips"].update(failures=[{"reason": "x", "start_s": 1}]),
        lambda d: d.update(schema_version="2.0"),
        lambda d: d.update(omissions=[{"text": "a"}]),
    ],
)
def test_the_schema_rejects_invalid_results(spoil: object) -> None:
    document = fuse_words(spoken("bin"), spoken("bin")).to_document()
    assert VALIDATOR.is_valid(document)
    assert callable(spoil)
    spoil(document)
    assert not VALIDATOR.is_valid(document)


def test_a_segment_ends_at_a_pause_or_another_speaker() -> None:
    first = segment([*spoken("bin blue", 0), *spoken("at f", 2)], "spk_0", "audio")
    other = segment([word("yes", 2.9, 2.95)], "spk_1", "audio")
    last = segment(spoken("two now", 3.0), "spk_0", "audio")
    found = fuse(Inputs(Media(9), audio=(Window(0, 9, (first, other, last)),)))
    assert [(s.person, s.text) for s in found.segments] == [
        ("person-1", "bin blue"),
        ("person-1", "at f"),
        ("person-2", "yes"),
        ("person-1", "two now"),
    ]
