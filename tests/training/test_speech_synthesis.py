"""Synthesized speech: word and phoneme timestamps match the audio."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest

from gorggle_server.input_format import SAMPLE_RATE_HZ
from gorggle_training.speech_synthesis import (
    LANGUAGES,
    VARIANTS,
    Speech,
    TimedPhoneme,
    Voice,
    join_speech,
    synthesize,
)

VOICES = [Voice(), Voice("en-us", "f2", 160, 60), Voice("en-gb-x-rp", "Andy", 95, 40)]
VOWELS = "aɛɪiouʊɔeəæɑɒʌɜʉ"


def is_vowel(phoneme: TimedPhoneme) -> bool:
    return phoneme.symbol.strip("ˈˌ")[0] in VOWELS


def slice_audio(speech: Speech, start_s: float, end_s: float) -> np.ndarray:
    return speech.waveform[round(start_s * SAMPLE_RATE_HZ) : round(end_s * SAMPLE_RATE_HZ)].astype(float)


def share_above_3500_hz(samples: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(samples)) ** 2
    return float(power[len(samples) * 3500 // SAMPLE_RATE_HZ :].sum() / power.sum())


def rms_level(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples**2)))


@pytest.mark.parametrize("voice", VOICES)
def test_words_have_increasing_timestamps(voice: Voice) -> None:
    words = ["place", "red", "in", "h", "nine", "please"]
    speech = synthesize(words, voice)
    assert [word.text for word in speech.words] == words
    for word, following in zip(speech.words, speech.words[1:], strict=False):
        assert 0 <= word.start_s < word.end_s <= following.start_s
    assert speech.words[-1].end_s <= speech.duration_s == len(speech.waveform) / 16_000


@pytest.mark.parametrize("voice", VOICES)
def test_every_phoneme_is_within_a_word(voice: Voice) -> None:
    speech = synthesize("set white with p four soon", voice)
    for phoneme in speech.phonemes:
        assert any(w.start_s <= phoneme.start_s and phoneme.end_s <= w.end_s for w in speech.words), phoneme


@pytest.mark.parametrize("voice", VOICES)
def test_fricatives_have_high_frequencies_and_vowels_do_not(voice: Voice) -> None:
    speech = synthesize("set six soon", voice)
    fricatives = [p for p in speech.phonemes if p.symbol == "s"]
    assert len(fricatives) == 4
    assert (
        min(share_above_3500_hz(slice_audio(speech, p.start_s + 0.01, p.end_s - 0.01)) for p in fricatives)
        > 0.8
    )
    vowels = [p for p in speech.phonemes if is_vowel(p)]
    assert max(share_above_3500_hz(slice_audio(speech, p.start_s, p.end_s)) for p in vowels) < 0.4


def test_a_fricative_starts_within_25_ms_of_its_timestamp() -> None:
    speech = join_speech([synthesize("set", Voice(rate_wpm=100))], (0.2, 0.1))
    start_s = speech.phonemes[0].start_s
    windows = np.arange(start_s - 0.1, start_s + 0.1, 0.005)
    loud = [rms_level(slice_audio(speech, at_s, at_s + 0.005)) > 100 for at_s in windows]
    assert abs(windows[loud.index(True)] - start_s) < 0.025


@pytest.mark.parametrize("voice", VOICES)
def test_vowels_are_loud_and_padding_is_silent(voice: Voice) -> None:
    speech = join_speech([synthesize("bin blue at f two now", voice)], (0.3, 0.4))
    overall_level = rms_level(speech.waveform.astype(float))
    assert rms_level(slice_audio(speech, 0.0, speech.words[0].start_s)) == 0
    assert (
        rms_level(slice_audio(speech, speech.words[-1].end_s + 0.03, speech.duration_s))
        < 0.02 * overall_level
    )
    vowels = [p for p in speech.phonemes if is_vowel(p) and p.end_s - p.start_s > 0.06]
    assert (
        min(rms_level(slice_audio(speech, p.start_s + 0.02, p.end_s - 0.02)) for p in vowels)
        > 0.4 * overall_level
    )


def test_joining_speech_inserts_pauses_and_shifts_all_timestamps() -> None:
    speech = synthesize("bin blue", Voice())
    padded = join_speech([speech], (0.25, 0.5))
    assert padded.words[1].start_s == pytest.approx(speech.words[1].start_s + 0.25)
    assert padded.phonemes[-1].end_s == pytest.approx(speech.phonemes[-1].end_s + 0.25)
    assert padded.duration_s == pytest.approx(padded.words[-1].end_s + 0.5, abs=1e-4)
    joined = join_speech([speech, speech], (0.25, 0.5, 0.0))
    assert joined.words[2].start_s == pytest.approx(padded.duration_s + speech.words[0].start_s)


@pytest.mark.parametrize(
    ("text", "spoken"), [("bin blue at a two now", "eɪ"), ("put A down", "eɪ"), ("put a book down", "ɐ")]
)
def test_the_letter_a_is_distinguished_from_the_article(text: str, spoken: str) -> None:
    speech = synthesize(text, Voice())
    letter = next(word for word in speech.words if word.text.lower() == "a")
    symbols = [p.symbol.strip("ˈˌ") for p in speech.phonemes if letter.start_s <= p.start_s < letter.end_s]
    assert symbols == [spoken]


def test_word_groups_of_espeak_are_timed_separately() -> None:
    speech = synthesize("the end of the box in the room", Voice())
    assert [word.text for word in speech.words] == ["the", "end", "of", "the", "box", "in", "the", "room"]
    assert all(word.end_s - word.start_s > 0.03 for word in speech.words)


def test_a_faster_voice_produces_shorter_audio() -> None:
    assert (
        synthesize("lay green", Voice(rate_wpm=160)).duration_s
        < 0.8 * synthesize("lay green", Voice(rate_wpm=95)).duration_s
    )


def test_every_voice_produces_audio() -> None:
    for language in LANGUAGES:
        for variant in VARIANTS:
            speech = synthesize("place", Voice(language, variant))
            assert np.abs(speech.waveform.astype(int)).max() > 1500, (language, variant)


def test_a_random_voice_depends_on_its_seed() -> None:
    first, repeated, other = (Voice.random(np.random.default_rng(seed)) for seed in (4, 4, 5))
    assert first == repeated != other


def _synthesize_in_subprocess(text: str) -> bytes:
    return synthesize(text, Voice()).waveform.tobytes()


def test_separate_processes_produce_identical_audio() -> None:
    with multiprocessing.get_context("spawn").Pool(2, maxtasksperchild=1) as pool:
        first, second = pool.map(_synthesize_in_subprocess, ["bin blue at f two now"] * 2, chunksize=1)
    assert first == second


@pytest.mark.parametrize("text", ["", "  ", "bin ?!"])
def test_empty_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="say"):
        synthesize(text, Voice())


def test_an_unknown_voice_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="tlh"):
        synthesize("bin", Voice(language="tlh"))
