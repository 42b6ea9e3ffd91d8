"""Visemes of phonemes, and the mouth motion computed from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gorggle_training import visemes
from gorggle_training.sentences import VOCABULARY
from gorggle_training.speech_synthesis import LANGUAGES, TimedPhoneme, Voice, join_speech, synthesize
from gorggle_training.visemes import (
    JAW,
    PARAMETERS,
    PRESS,
    ROUND,
    TUCK,
    VISEMES,
    ArticulationStyle,
    mouth_motion,
    phoneme_to_visemes,
)

LETTERS = "a b c d e f g h i j k l m n o p q r s t u v w x y z"


def middle_frame(phoneme: TimedPhoneme, lead_s: float = 0.02) -> int:
    return int(((phoneme.start_s + phoneme.end_s) / 2 - lead_s) * 25)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_phoneme_of_the_letters_and_digits_has_a_viseme(language: str) -> None:
    digits = "zero one two three four five six seven eight nine"
    speech = synthesize(f"{LETTERS.upper()} {digits} pleasure church judge thing", Voice(language=language))
    assert all(phoneme_to_visemes(phoneme.symbol) for phoneme in speech.phonemes)


def test_diphthongs_and_affricates_have_two_visemes() -> None:
    assert [viseme.name for viseme in phoneme_to_visemes("ˈaɪ")] == ["open_front", "near_close_front"]
    assert [viseme.name for viseme in phoneme_to_visemes("tʃ")] == ["alveolar", "postalveolar"]


def test_every_word_can_be_synthesized_in_every_language() -> None:
    for language in LANGUAGES:
        for first in range(0, len(VOCABULARY), 20):
            words = VOCABULARY[first : first + 20]
            speech = synthesize(words, Voice(language=language))
            assert tuple(word.text for word in speech.words) == words
            for phoneme in speech.phonemes:
                phoneme_to_visemes(phoneme.symbol)  # raises an error for an unknown phoneme


def test_an_unknown_phoneme_is_named_in_the_error() -> None:
    with pytest.raises(ValueError, match="ǂ"):
        phoneme_to_visemes("ǂ")


@pytest.mark.parametrize(("duration_s", "frames"), [(0.0, 1), (0.04, 1), (0.041, 2), (1.0, 25), (1.01, 26)])
def test_the_frame_count_is_the_duration_rounded_up(duration_s: float, frames: int) -> None:
    assert mouth_motion([], duration_s).shape == (frames, len(PARAMETERS))


@pytest.mark.parametrize("seed", range(6))
def test_lips_close_on_bilabials_and_open_on_vowels_in_every_style(seed: int) -> None:
    rng = np.random.default_rng(seed)
    style, voice = ArticulationStyle.random(rng), replace(Voice.random(rng), rate_wpm=110)
    speech = join_speech([synthesize("bob bin pop map again", voice)], (0.3, 0.3))
    motion = mouth_motion(speech.phonemes, speech.duration_s, rng, style)
    open_vowels = 0
    for phoneme in speech.phonemes:
        frames = motion[max(0, middle_frame(phoneme) - 1) : middle_frame(phoneme) + 2]
        if phoneme.symbol in {"b", "p", "m"}:
            assert frames[:, PRESS].max() > 0.75, phoneme
        elif phoneme.symbol.strip("ˈˌː") in {"a", "æ", "ɒ", "ɑ"} and phoneme.end_s - phoneme.start_s > 0.13:
            assert frames[:, JAW].max() > 0.45, phoneme
            assert frames[:, PRESS].min() < 0.5, phoneme
            open_vowels += 1
    assert open_vowels


def test_lips_round_for_two_and_tuck_for_five() -> None:
    speech = synthesize("two five", Voice())
    motion = mouth_motion(speech.phonemes, speech.duration_s)
    two, five = speech.words
    assert motion[int(two.start_s * 25) : int(two.end_s * 25), ROUND].max() > 0.8
    assert motion[int(five.start_s * 25) : int(five.end_s * 25), TUCK].max() > 0.8


def test_the_mouth_is_at_rest_during_silence() -> None:
    speech = join_speech([synthesize("now", Voice())], (1.0, 1.0))
    motion = mouth_motion(speech.phonemes, speech.duration_s)
    assert np.abs(motion[:20] - visemes.REST.target).max() < 0.02
    assert np.abs(motion[-20:] - visemes.REST.target).max() < 0.02


def test_lips_round_before_a_rounded_vowel() -> None:
    phonemes = [TimedPhoneme("s", 0.2, 0.32), TimedPhoneme("uː", 0.32, 0.5)]
    rounded = mouth_motion(phonemes, 0.7)[6, ROUND]
    spread = mouth_motion([phonemes[0], TimedPhoneme("iː", 0.32, 0.5)], 0.7)[6, ROUND]
    assert rounded > spread + 0.15


def test_motion_is_smooth() -> None:
    speech = synthesize("lay green by y seven again", Voice())
    motion = mouth_motion(speech.phonemes, speech.duration_s)
    assert np.abs(np.diff(motion[:, JAW])).max() < 0.5


def test_visemes_have_distinct_targets() -> None:
    targets = {name: viseme.target for name, viseme in VISEMES.items()}
    names = sorted(targets)
    closest = min((float(np.abs(targets[a] - targets[b]).max()), a, b) for a in names for b in names if a < b)
    assert len(names) >= 20
    assert closest[0] >= 0.04, closest


def test_motion_depends_on_the_seed() -> None:
    phonemes = [TimedPhoneme("b", 0.1, 0.2), TimedPhoneme("ɑː", 0.2, 0.5)]
    first, repeated, other = (mouth_motion(phonemes, 0.8, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, repeated)
    assert not np.array_equal(first, other)
