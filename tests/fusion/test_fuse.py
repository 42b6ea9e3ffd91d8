"""Tests of fusion: word selection, omissions, failed sources, and the result document."""

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

from gorggle_fusion import (
    FusionInputError,
    FusionRules,
    Inputs,
    Result,
    fuse,
    load_result_schema,
    word_voting,
)
from gorggle_fusion.text_normalization import edit_distance, normalize
from gorggle_fusion.types import (
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
from gorggle_fusion.word_voting import FusedWord
from tests.fusion.factories import VOCABULARY, add_jitter, make_words, segment, sentences, window, word

property_test = settings(deadline=None, max_examples=80)
VALIDATOR = jsonschema.Draft202012Validator(load_result_schema())


def fuse_words(
    lips: list[Word] | None,
    audio: list[Word] | None,
    *,
    origin: str = "lips",
    speaker: str = "spk_0",
    **more: object,
) -> Result:
    """Fuse words of one person, whose face is face-1 and whose voice is ``speaker``, in a window of 600 s."""
    inputs = Inputs(
        Media(600.0),
        lips=None if lips is None else (window(lips, "face-1", origin, 600.0),),  # type: ignore[arg-type]
        audio=None if audio is None else (window(audio, speaker, "audio", 600.0),),
        **more,  # type: ignore[arg-type]
    )
    return fuse(inputs)


def list_words(result: Result) -> list[FusedWord]:
    return [w for s in result.segments for w in s.words]


def texts_and_sources(result: Result) -> list[tuple[str, str]]:
    return [(w.text, w.source) for w in list_words(result)]


def validate(result: Result) -> Result:
    """Validate a result against the JSON schema and return it."""
    VALIDATOR.validate(json.loads(json.dumps(result.to_document(), allow_nan=False)))
    return result


def test_the_result_schema_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(load_result_schema())


def test_agreeing_words_are_kept_once_with_the_audio_text() -> None:
    result = fuse_words([word("hello", 1.0, 1.5, 0.8)], [word("Hello,", 1.05, 1.45, 0.9)])
    [fused_word] = list_words(validate(result))
    assert (fused_word.text, fused_word.source, fused_word.alternatives) == ("Hello,", "both", ())
    assert (fused_word.start_s, fused_word.end_s) == (1.05, 1.45)
    assert fused_word.confidence == pytest.approx(0.98, abs=1e-3)


def test_the_more_probable_source_wins_and_the_other_is_an_alternative() -> None:
    result = fuse_words([word("bin", 1.0, 1.5, 0.9)], [word("pin", 1.0, 1.5, 0.4)])
    [fused_word] = list_words(validate(result))
    assert (fused_word.text, fused_word.source) == ("bin", "lips")
    [other] = fused_word.alternatives
    assert (other.text, other.source, other.confidence) == ("pin", "audio", pytest.approx(0.4))
    # P(lips correct, audio wrong) = 0.9·0.6; the other cases are 0.4·0.1 (audio correct) and 0.1·0.6 (neither).
    assert fused_word.confidence == pytest.approx(0.54 / 0.64)


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
    result = fuse_words(lips, audio)
    assert texts_and_sources(result) == [
        ("I'm", "both"),
        ("going", "audio"),
        ("to", "audio"),
        ("win", "both"),
    ]
    assert [[a.text for a in w.alternatives] for w in list_words(result)] == [[], ["gonna"], [], []]
    confident_lips = [replace(w, confidence=0.95) if w.text == "gonna" else w for w in lips]
    uncertain_audio = [replace(w, confidence=0.3) for w in audio]
    result = fuse_words(confident_lips, uncertain_audio)
    assert [w.text for w in list_words(result)] == ["I'm", "gonna", "win"]
    assert [a.text for a in list_words(result)[1].alternatives] == ["going", "to"]


def test_an_agreed_word_does_not_replace_the_next_one() -> None:
    """Although one source gives it a duration that covers the next word."""
    result = fuse_words(
        [word("hello", 1.0, 2.0, 0.9)], [word("hello", 1.0, 1.5, 0.9), word("you", 1.5, 1.7, 0.9)]
    )
    assert texts_and_sources(result) == [("hello", "both"), ("you", "audio")]


def test_words_of_one_source_are_kept() -> None:
    result = fuse_words(make_words("bin blue", 1), make_words("set white", 20))
    assert texts_and_sources(result) == [
        ("bin", "lips"),
        ("blue", "lips"),
        ("set", "audio"),
        ("white", "audio"),
    ]
    assert result.omissions == ()


def test_improbable_lip_words_in_transcribed_silence_are_omitted() -> None:
    result = validate(
        fuse_words([word("bin", 1, 1.5, 0.1), word("blue", 3, 3.5, 0.9)], [word("now", 9, 9.4)])
    )
    assert [w.text for w in list_words(result)] == ["blue", "now"]
    [omission] = result.omissions
    assert (omission.word.text, omission.word.source, omission.person) == ("bin", "lips", "person-1")
    assert "0.10 is below 0.30" in omission.reason


def test_improbable_lip_words_are_kept_without_audio_coverage() -> None:
    improbable = [word("bin", 1, 1.5, 0.1)]
    assert [w.text for w in list_words(fuse_words(improbable, None))] == ["bin"]
    failed = (SourceFailure("audio", "throttled", 0.0, 5.0),)
    assert [w.text for w in list_words(fuse_words(improbable, [word("now", 9, 9.4)], failures=failed))] == [
        "bin",
        "now",
    ]
    loud = (NoiseSpan(0.0, 5.0, -25.0),)
    assert [w.text for w in list_words(fuse_words(improbable, [word("now", 9, 9.4)], noise=loud))] == [
        "bin",
        "now",
    ]


def test_an_audiovisual_model_has_origin_both() -> None:
    """Agreement with the audio does not raise its confidence, because the model used the audio too."""
    result = fuse_words([word("bin", 1, 1.5, 0.8)], [word("bin", 1, 1.5, 0.7)], origin="both")
    [fused_word] = list_words(result)
    assert (fused_word.source, fused_word.confidence) == ("both", pytest.approx(0.8))
    assert texts_and_sources(fuse_words([word("bin", 1, 1.5, 0.1)], [word("x", 50, 51)], origin="both"))[
        0
    ] == (
        "bin",
        "both",
    )


def test_server_words_without_a_face_count_as_audio() -> None:
    audio_segment = Segment(1, 2, "", "audio", (word("hello", 1, 1.4), word("there", 5, 5.4)))
    lips = (Window(0, 10, (audio_segment,)),)
    without_transcript = fuse(Inputs(Media(10), lips=lips))
    assert texts_and_sources(without_transcript) == [("hello", "audio"), ("there", "audio")]
    transcript = (window([word("Hello", 1.02, 1.41)], "spk_0", "audio", 10.0),)
    with_transcript = fuse(Inputs(Media(10), lips=lips, audio=transcript))
    assert sorted(normalize(t) for t, _ in texts_and_sources(with_transcript)) == ["hello", "there"]


CLOSED_MODEL = Model("gorggle-mini-1", "Apache-2.0", has_open_vocabulary=False)


@pytest.mark.parametrize("origin", ["lips", "both"])
def test_a_closed_vocabulary_never_overwrites_open_speech(origin: str) -> None:
    """However confident it is: it has no other words."""
    lips = [word("bin", 1, 1.5, 0.99), word("blue", 3, 3.5, 0.99)]
    result = validate(fuse_words(lips, [word("Good", 1, 1.5, 0.3)], origin=origin, model=CLOSED_MODEL))
    assert texts_and_sources(result) == [("Good", "audio")]
    assert [other.text for other in list_words(result)[0].alternatives] == ["bin"]
    [omission] = result.omissions
    assert (omission.word.text, "closed vocabulary" in omission.reason) == ("blue", True)
    assert result.to_document()["model"]["has_open_vocabulary"] is False


def test_a_closed_vocabulary_without_a_face_never_overwrites_open_speech() -> None:
    """Where the server saw no face, the lip reading model transcribed the audio."""
    lips = [word("bin", 10, 10.5, 0.99), word("blue", 30, 30.5, 0.99)]
    audio = [word("Good", 10, 10.5, 0.3), word("morning", 50, 50.5, 0.3)]
    heard = Window(8, 32, (segment(lips, "", "audio"),))
    # Its words are further from the edges of their window than the audio's, which decides between windows.
    windows = (
        Window(9.6, 10.6, (segment(audio[:1], "spk_0", "audio"),)),
        window(audio[1:], "spk_0", "audio", 600.0),
    )
    result = validate(fuse(Inputs(Media(600.0), lips=(heard,), audio=windows, model=CLOSED_MODEL)))
    assert texts_and_sources(result) == [("Good", "audio"), ("morning", "audio")]
    assert [omission.word.text for omission in result.omissions] == ["blue"]
    assert "closed vocabulary" in result.omissions[0].reason


def test_a_closed_vocabulary_is_used_where_noise_defeats_the_audio() -> None:
    lips = [word("bin", 1, 1.5, 0.9)]
    loud = (NoiseSpan(0.0, 10.0, -20.0),)
    result = fuse_words(lips, [word("now", 50, 51)], noise=loud, model=CLOSED_MODEL)
    assert texts_and_sources(result) == [("bin", "lips"), ("now", "audio")]


def test_words_that_noise_makes_doubtful_are_marked() -> None:
    lips = [word("bin", 1, 1.5, 0.9)]
    loud = (NoiseSpan(0.0, 10.0, -20.0),)
    result = validate(fuse_words(lips, [word("now", 1, 1.5, 0.9)], noise=loud, model=CLOSED_MODEL))
    assert [(w.text, w.is_doubtful) for w in list_words(result)] == [("bin", True)]
    clean = validate(fuse_words([word("bin", 1, 1.5, 0.9)], [word("Bin", 1, 1.5, 0.9)], model=CLOSED_MODEL))
    assert [(w.text, w.is_doubtful) for w in list_words(clean)] == [("Bin", False)]


@pytest.mark.parametrize("audio_text", ["blue", "bin", ""])
def test_words_that_the_server_marks_are_doubtful_until_another_source_has_them(audio_text: str) -> None:
    marked = replace(segment([word("bin", 1, 1.5, 0.9)]), is_doubtful=True)
    audio = [word(audio_text, 1, 1.5, 0.4)] if audio_text else []
    windows = Window(0, 10, (marked,)), window(audio, "spk_0", "audio", 10.0)
    result = validate(fuse(Inputs(Media(10.0), lips=windows[:1], audio=windows[1:] if audio else None)))
    [fused_word] = list_words(result)
    assert (fused_word.text, fused_word.is_doubtful) == ("bin", audio_text != "bin")
    [segment_fields] = result.to_document()["segments"]
    assert segment_fields["words"][0].get("is_doubtful", False) == fused_word.is_doubtful


def test_a_closed_vocabulary_takes_part_where_it_sounds_like_the_audio() -> None:
    lips, audio = (
        make_words("bin blue at f two now", confidence=0.9),
        make_words("Bin blew at F 2 now.", confidence=0.6),
    )
    result = validate(fuse_words(lips, audio, model=CLOSED_MODEL))
    assert texts_and_sources(result) == [
        ("Bin", "both"),
        ("blue", "lips"),
        ("at", "both"),
        ("F", "both"),
        ("2", "both"),
        ("now.", "both"),
    ]


def test_words_written_together_agree_with_their_parts_and_keep_their_alternatives() -> None:
    f_word = replace(word("f", 1.0, 1.2), alternatives=(Alternative("s", 0.2),))
    result = validate(fuse_words([f_word, word("two", 1.2, 1.6)], [word("F2", 1.0, 1.6)]))
    assert texts_and_sources(result) == [("F2", "both")]
    assert [other.text for other in list_words(result)[0].alternatives] == ["s"]


def test_an_hour_without_a_pause_is_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []

    def record_lengths(one: str, other: str) -> float:
        lengths.append(max(len(one), len(other)))
        return edit_distance(one, other)

    monkeypatch.setattr(word_voting, "edit_distance", record_lengths)
    lips = make_words("bin blue at f two now " * 1500)
    audio = make_words("I was at home with her " * 1500)
    result = fuse_words(lips, audio, model=CLOSED_MODEL)
    assert max(lengths) <= 500, "the time grows with the square of the length"
    assert {source for _, source in texts_and_sources(result)} <= {"audio", "both"}


def test_two_closed_vocabularies_are_decided_by_confidence() -> None:
    result = fuse_words(
        [word("bin", 1, 1.5, 0.9)],
        [word("pin", 1, 1.5, 0.4)],
        model=CLOSED_MODEL,
        audio_has_open_vocabulary=False,
    )
    assert texts_and_sources(result) == [("bin", "lips")]


def test_other_hypotheses_of_a_source_are_alternatives() -> None:
    audio_word = replace(word("two", 1, 1.5), alternatives=(Alternative("to", 0.3),))
    [fused_word] = list_words(fuse_words(None, [audio_word]))
    assert [(a.text, a.source) for a in fused_word.alternatives] == [("to", "audio")]


def test_calibration_affects_the_selection() -> None:
    lips, audio = word("bin", 1, 1.5, 0.9), word("pin", 1, 1.5, 0.8)
    inputs = Inputs(Media(9), lips=(window([lips]),), audio=(window([audio], "spk_0", "audio"),))
    assert texts_and_sources(fuse(inputs)) == [("bin", "lips")]
    lower_lip_confidence = replace(FusionRules(), lips=replace(FusionRules().lips, offset=-2.0))
    assert texts_and_sources(fuse(inputs, lower_lip_confidence)) == [("pin", "audio")]


# Failed sources


def test_a_failed_source_degrades_the_result_and_is_reported() -> None:
    failed = (SourceFailure("lips", "no usable face"), SourceFailure("faces", "throttled"))
    result = validate(fuse_words(None, make_words("bin blue"), failures=failed))
    assert result.is_degraded
    assert {r.name: (r.status, [f.reason for f in r.failures]) for r in result.sources} == {
        "lips": ("failed", ["no usable face"]),
        "audio": ("used", []),
        "faces": ("failed", ["throttled"]),
    }
    assert texts_and_sources(result) == [("bin", "audio"), ("blue", "audio")]


def test_a_source_that_failed_in_part_is_partial() -> None:
    result = validate(
        fuse_words(
            make_words("bin"), make_words("bin"), failures=(SourceFailure("lips", "data loss", 60.0, 120.0),)
        )
    )
    assert result.sources[0].status == "partial"
    document = result.to_document()["sources"]["lips"]
    assert document["failures"] == [{"reason": "data loss", "start_s": 60.0, "end_s": 120.0}]


def test_a_source_not_requested_is_absent() -> None:
    result = validate(fuse_words(make_words("bin blue"), None))
    assert [r.status for r in result.sources] == ["used", "absent", "absent"]
    assert not result.is_degraded


def test_fusion_without_sources_is_an_error() -> None:
    with pytest.raises(FusionInputError, match="lips: no GPU; audio: throttled"):
        fuse_words(
            None, None, failures=(SourceFailure("lips", "no GPU"), SourceFailure("audio", "throttled"))
        )


def test_silence_has_an_empty_result() -> None:
    result = validate(fuse_words([], []))
    assert (result.segments, result.people, result.omissions) == ((), (), ())


# Properties


@property_test
@given(sentences(max_words=25), st.integers(0, 2**32))
def test_agreeing_sources_return_the_words(words: list[Word], seed: int) -> None:
    """Timing errors of up to 80 ms have no effect."""
    audio = add_jitter(words, random.Random(seed), 0.08)
    result = fuse_words(words, audio)
    assert texts_and_sources(result) == [(w.text, "both") for w in words]


@property_test
@given(sentences(max_words=25))
def test_a_single_source_returns_its_words_and_times(words: list[Word]) -> None:
    for result in (fuse_words(words, None), fuse_words(None, words)):
        fused_words = [(w.text, w.start_s, w.end_s) for w in list_words(result)]
        assert fused_words == [(w.text, w.start_s, w.end_s) for w in words]


@st.composite
def noisy_transcripts(draw: st.DrawFn) -> tuple[list[Word], list[Word]]:
    """Draw words as recognized by two sources, with substitutions, deletions, insertions and timing errors."""
    words = draw(sentences(max_words=20, min_s=0.05))
    rng = random.Random(draw(st.integers(0, 2**32)))
    transcripts = []
    for _ in range(2):
        recognized = []
        for w in words:
            error = rng.random()
            if error < 0.15:
                continue
            text = rng.choice(VOCABULARY) if error < 0.4 else w.text
            recognized.append(Word(text, w.start_s, w.end_s, rng.random()))
            if error > 0.9:
                recognized.append(Word(rng.choice(VOCABULARY), w.end_s, w.end_s + 0.1, rng.random()))
        transcripts.append(sorted(add_jitter(recognized, rng, 0.1), key=lambda w: (w.start_s, w.end_s)))
    return transcripts[0], transcripts[1]


def count_hypotheses(result: Result) -> Counter[str]:
    """Count the hypotheses in a result: words (twice if two sources agreed), alternatives and omissions."""
    hypotheses: Counter[str] = Counter()
    for w in list_words(result):
        hypotheses[normalize(w.text)] += 2 if w.source == "both" else 1
        hypotheses.update(normalize(a.text) for a in w.alternatives)
    hypotheses.update(normalize(o.word.text) for o in result.omissions)
    return hypotheses


@property_test
@given(
    noisy_transcripts(), st.sampled_from(["spk_0", ""]), st.sampled_from([(), (NoiseSpan(0.0, 600.0, -5.0),)])
)
def test_every_hypothesis_is_a_word_an_alternative_or_an_omission(
    transcripts: tuple[list[Word], list[Word]], speaker: str, noise: tuple[NoiseSpan, ...]
) -> None:
    """No hypothesis is added, duplicated or lost."""
    lips, audio = transcripts
    result = validate(fuse_words(lips, audio, speaker=speaker, noise=noise))
    assert count_hypotheses(result) == Counter(normalize(w.text) for w in [*lips, *audio])
    input_texts = {w.text for w in [*lips, *audio]}
    assert all(w.text in input_texts for w in list_words(result))


@property_test
@given(noisy_transcripts())
def test_words_are_sorted_and_do_not_overlap_per_person(transcripts: tuple[list[Word], list[Word]]) -> None:
    result = fuse_words(*transcripts)
    for person in result.people:
        words = [w for s in result.segments if s.person == person.name for w in s.words]
        assert all(w.start_s <= w.end_s for w in words)
        assert all(a.end_s <= b.start_s for a, b in itertools.pairwise(words))
    assert [s.start_s for s in result.segments] == sorted(s.start_s for s in result.segments)


@property_test
@given(noisy_transcripts(), noisy_transcripts())
def test_every_hypothesis_of_two_people_is_accounted_for(
    one: tuple[list[Word], list[Word]], other: tuple[list[Word], list[Word]]
) -> None:
    lips = [segment(w, f"face-{n}") for n, (w, _) in enumerate((one, other)) if w]
    audio = [segment(w, f"spk_{n}", "audio") for n, (_, w) in enumerate((one, other)) if w]
    result = fuse(
        Inputs(Media(600), lips=(Window(0, 600, tuple(lips)),), audio=(Window(0, 600, tuple(audio)),))
    )
    VALIDATOR.validate(json.loads(json.dumps(result.to_document(), allow_nan=False)))
    assert count_hypotheses(result) == Counter(normalize(w.text) for words in (*one, *other) for w in words)


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
    document = validate(fuse(inputs)).to_document()
    assert document["model"]["licence"]["name"] == "Apache-2.0"
    assert document["people"] == [
        {"name": "person-1", "first_s": 1.0, "voices": ["spk_0"], "faces": ["window-1/face-1", "track-1"]}
    ]
    assert [b["time_s"] for b in document["faces"][0]["boxes"]] == [1.0, 1.5]
    assert document["noise"] == [{"start_s": 0.0, "end_s": 10.0, "snr_db": 12.35}]
    assert document["sources"]["audio"]["engine"] == "Amazon Transcribe"
    first_word = document["segments"][0]["words"][0]
    assert all(isinstance(first_word[name], float) for name in ("start_s", "end_s", "confidence"))


@pytest.mark.parametrize(
    "corrupt",
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
def test_the_schema_rejects_invalid_results(corrupt: object) -> None:
    document = fuse_words(make_words("bin"), make_words("bin")).to_document()
    assert VALIDATOR.is_valid(document)
    assert callable(corrupt)
    corrupt(document)
    assert not VALIDATOR.is_valid(document)


def test_a_segment_ends_at_a_pause_or_another_speaker() -> None:
    first = segment([*make_words("bin blue", 0), *make_words("at f", 2)], "spk_0", "audio")
    other = segment([word("yes", 2.9, 2.95)], "spk_1", "audio")
    last = segment(make_words("two now", 3.0), "spk_0", "audio")
    result = fuse(Inputs(Media(9), audio=(Window(0, 9, (first, other, last)),)))
    assert [(s.person, s.text) for s in result.segments] == [
        ("person-1", "bin blue"),
        ("person-1", "at f"),
        ("person-2", "yes"),
        ("person-1", "two now"),
    ]
