"""Word decision between a model that reads lips and one for open speech, and the future of both."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gorggle_server.errors import ModelFormatError
from gorggle_server.events import Hypothesis, Word, WordSource
from gorggle_server.inference.combined_recognition import CANDIDATES, CombinedSubmit, decide_words
from gorggle_server.inference.interface import DecodingOptions, InferenceInput
from gorggle_server.recognition_options import Modality
from tests.server.test_hypothesis_ranking import Scorer

CLEAN_DB, NOISY_DB = 30.0, 5.0
OPTIONS = DecodingOptions(beam_size=5, length_penalty=1.0, max_alternatives=2, word_timestamps=False)
CROPS = np.zeros((25, 96, 96), np.uint8)
FEATURES = np.zeros((25, 104), np.float32)
WAVEFORM = np.zeros(16_000, np.int16)


def hypothesis(text: str, confidence: float = 0.9) -> Hypothesis:
    """Return a hypothesis whose words have 0.4 s each."""
    words = tuple(
        Word(word, 0.4 * number, 0.4 * (number + 1), confidence) for number, word in enumerate(text.split())
    )
    return Hypothesis(text, confidence, words)


def decide(
    lips: str | Hypothesis,
    audio: str | Hypothesis,
    likelihoods: Mapping[str, float] | None = None,
    fit: float = 0.0,
    **options: Any,
) -> list[Hypothesis]:
    """Decide between two hypotheses of 2 s; ``likelihoods``: of the audio, for each text in lower case without punctuation."""
    first, second = (hypothesis(each) if isinstance(each, str) else each for each in (lips, audio))
    if likelihoods is not None:
        second = replace(second, text_scorer=Scorer(likelihoods, fit))
    arguments = {
        "modality": Modality.AUDIO_VISUAL,
        "duration_s": 2.0,
        "snr_db": CLEAN_DB,
        "has_closed_lips": True,
        **options,
    }
    return decide_words([first], [second], **arguments)


def test_agreed_words_take_their_text_from_the_audio_and_are_of_both() -> None:
    (best,) = decide("bin blue at f two now", "Bin blue at F two now.")
    assert best.text == "Bin blue at F two now."
    assert {word.source for word in best.words} == {WordSource.BOTH}


def test_the_audio_as_an_alternative_has_its_source() -> None:
    lips, audio = hypothesis("my mother was at home", 0.9), hypothesis("my brother was at home", 0.5)
    _, alternative = decide(lips, audio, has_closed_lips=False, max_alternatives=1)
    assert alternative.text == "my brother was at home"
    assert {word.source for word in alternative.words} == {WordSource.AUDIO}


def test_numbers_and_joined_letters_agree_with_their_spelling() -> None:
    lips = Hypothesis(
        "at f two", 0.9, (Word("at", 0, 0.3, 0.9), Word("f", 0.3, 0.5, 0.9), Word("two", 0.5, 0.9, 0.9))
    )
    audio = Hypothesis("At F2", 0.9, (Word("At", 0, 0.3, 0.9), Word("F2", 0.3, 0.9, 0.9)))
    best = decide(lips, audio)[0]
    assert [(word.text, word.source) for word in best.words] == [
        ("At", WordSource.BOTH),
        ("F2", WordSource.BOTH),
    ]


def test_open_speech_is_not_overwritten_by_a_closed_vocabulary() -> None:
    decided = decide("please set white with nine again", "I was at home with my mother.", max_alternatives=2)
    assert decided[0].text == "I was at home with my mother."
    assert decided[1].text == "please set white with nine again", "the other hypothesis is an alternative"
    assert {word.source for word in decided[0].words} <= {WordSource.AUDIO, WordSource.BOTH}


def test_an_utterance_of_the_vocabulary_is_decided_by_confidence() -> None:
    lips, audio = hypothesis("bin blue at f two now", 0.95), hypothesis("bin blue at f do now", 0.6)
    best = decide(lips, audio)[0]
    assert best.text == "bin blue at f two now"
    assert [word.source for word in best.words][4] is WordSource.BOTH, "the first model used lips and audio"


def test_an_open_vocabulary_of_lips_is_decided_by_confidence() -> None:
    lips, audio = hypothesis("my mother was at home", 0.9), hypothesis("my brother was at home", 0.5)
    best = decide(lips, audio, modality=Modality.VIDEO_ONLY, has_closed_lips=False)[0]
    assert best.text == "my mother was at home"
    assert best.words[1].source is WordSource.LIPS
    assert decide(lips, audio, modality=Modality.VIDEO_ONLY)[0].text == "my mother was at home"


def test_noise_leaves_the_decision_to_the_closed_vocabulary_which_is_then_doubtful() -> None:
    lips, audio = hypothesis("bin blue at f two now", 0.7), hypothesis("a dog and the fence", 0.4)
    clean, noisy = (decide(lips, audio, snr_db=snr_db)[0] for snr_db in (CLEAN_DB, NOISY_DB))
    assert (clean.text, clean.is_doubtful) == ("a dog and the fence", False)
    assert (noisy.text, noisy.is_doubtful) == ("bin blue at f two now", True)


def test_words_without_a_face_are_of_the_audio() -> None:
    (best,) = decide("bin blue at f two now", "bin blue at f two now", modality=Modality.AUDIO_ONLY)
    assert {word.source for word in best.words} == {WordSource.AUDIO}


@pytest.mark.parametrize(("lips", "audio"), [("", "hello there"), ("bin blue", "")])
def test_one_model_may_find_no_words(lips: str, audio: str) -> None:
    decided = decide(lips, audio)
    assert decided[0].text == (audio or "")
    assert decide("", "")[0] == Hypothesis("", 0.0)


COMMAND, OPEN = "bin red with n zero now", "bing bird of enzyme now"


def test_an_utterance_that_fits_the_closed_vocabulary_keeps_its_words() -> None:
    audio = hypothesis("Bing bird of enzyme now.", 0.9)
    best = decide(hypothesis(COMMAND, 0.4), audio, {COMMAND: -40.0, OPEN: -45.0})[0]
    assert best.text == "Bin red with n zero now.", "written as a sentence, like the other model's"
    assert not best.is_doubtful
    assert [word.confidence for word in best.words] == pytest.approx([1.0] * 6, abs=1e-3), (
        "the only candidate"
    )


def test_an_utterance_that_fits_the_open_text_better_is_open_speech() -> None:
    lips, audio = hypothesis(COMMAND, 0.99), hypothesis("Bing bird of enzyme now.", 0.3)
    best = decide(lips, audio, {COMMAND: -140.0, OPEN: -45.0})[0]
    assert best.text == "Bing bird of enzyme now."
    # Similar texts are no measure if the audio can be asked.
    similar = decide("my brother", "my bother", {"my brother": -140.0, "my bother": -45.0})[0]
    assert similar.text == "my bother"


def test_an_open_text_that_does_not_fit_the_letters_is_an_invention() -> None:
    best = decide(COMMAND, OPEN, {COMMAND: -140.0, OPEN: -45.0}, fit=-1.6)[0]
    assert (best.text, best.is_doubtful) == (COMMAND, True)


def test_without_a_face_one_text_stands_too() -> None:
    invented = Hypothesis(
        "And then he said that.",
        0.6,
        tuple(
            Word(text, 0.1 + 0.3 * index, 0.3 + 0.3 * index, 0.6)
            for index, text in enumerate(["And", "then", "he", "said", "that."])
        ),
    )
    likelihoods = {"bin blue": -140.0, "and then he said that": -45.0}
    best = decide("bin blue", invented, likelihoods, fit=-1.6, modality=Modality.AUDIO_ONLY)[0]
    assert [word.text.lower() for word in best.words] == ["bin", "blue."]


def test_words_of_the_closed_vocabulary_are_doubtful_in_noise() -> None:
    best = decide(COMMAND, OPEN, {COMMAND: -40.0, OPEN: -45.0}, snr_db=NOISY_DB)[0]
    assert (best.text, best.is_doubtful) == (COMMAND, True)


def test_words_without_an_open_text_are_kept_if_they_fit_the_audio() -> None:
    best = decide(COMMAND, Hypothesis("", 0.0), {COMMAND: -40.0, "": -90.0})[0]
    assert best.text == COMMAND
    assert decide("", Hypothesis("", 0.0), {"": -90.0})[0] == Hypothesis("", 0.0)


# ------------------------------------------------------------------------------------------------------------ futures


class Parts:
    """A combined submission, and the requests that its models received."""

    def __init__(self, window: InferenceInput, options: DecodingOptions = OPTIONS) -> None:
        self.lips, self.audio, self.heard = (Future[list[Hypothesis]]() for _ in range(3))
        self.requests: dict[str, tuple[InferenceInput, DecodingOptions, bool]] = {}

        def submit_lips(window: InferenceInput, options: DecodingOptions, *, interim: bool = False) -> Any:
            name = "lips" if window.crops is not None else "heard"
            self.requests[name] = window, options, interim
            return getattr(self, name)

        def submit_audio(window: InferenceInput, options: DecodingOptions, *, interim: bool = False) -> Any:
            self.requests["audio"] = window, options, interim
            return self.audio

        combined = CombinedSubmit(submit_lips, submit_audio, has_closed_lips=True)
        self.result = combined(window, options, interim=True)

    def finish_others(self, name: str) -> None:
        """Set the results of the parts that are neither ``name`` nor cancelled."""
        for other in {"lips", "audio", "heard"} - {name}:
            if not getattr(self, other).cancelled():
                getattr(self, other).set_result([])


@pytest.fixture
def parts() -> Parts:
    return Parts(InferenceInput(CROPS, FEATURES, WAVEFORM))


def test_each_model_receives_its_part_of_the_input(parts: Parts) -> None:
    windows = {
        name: (window.crops, window.features, window.waveform)
        for name, (window, *_) in parts.requests.items()
    }
    assert windows == {
        "lips": (CROPS, FEATURES, None),
        "audio": (None, None, WAVEFORM),
        "heard": (None, FEATURES, None),
    }
    assert all(options.word_timestamps and interim for _, options, interim in parts.requests.values())


def test_the_first_model_searches_for_candidates_unless_the_search_is_greedy(parts: Parts) -> None:
    for name in ("lips", "heard"):
        options = parts.requests[name][1]
        assert (options.beam_size, options.max_alternatives) == (CANDIDATES, CANDIDATES - 1)
    greedy = Parts(InferenceInput(CROPS, FEATURES, WAVEFORM), replace(OPTIONS, beam_size=1))
    assert set(greedy.requests) == {"lips", "audio"}
    assert greedy.requests["lips"][1].beam_size == 1


def test_a_window_without_a_voice_goes_to_one_model() -> None:
    parts = Parts(InferenceInput(CROPS, FEATURES))
    assert list(parts.requests) == ["lips"]
    assert parts.result is parts.lips


@pytest.mark.parametrize("order", list(itertools.permutations(("lips", "audio", "heard"))))
def test_the_result_waits_for_every_part(parts: Parts, order: tuple[str, ...]) -> None:
    for name in order:
        assert not parts.result.done()
        getattr(parts, name).set_result([hypothesis("bin blue")])
    assert parts.result.result(0)[0].text == "bin blue"


@pytest.mark.parametrize("name", ["lips", "audio", "heard"])
def test_the_failure_of_one_part_is_raised(parts: Parts, name: str) -> None:
    getattr(parts, name).set_exception(ModelFormatError("damaged"))
    parts.finish_others(name)
    with pytest.raises(ModelFormatError, match="damaged"):
        parts.result.result(0)


def test_an_error_of_the_decision_is_raised(parts: Parts) -> None:
    parts.lips.set_result([hypothesis("bin", confidence=float("nan"))])
    parts.audio.set_result([Hypothesis("bin", 0.9, (Word("bin", "zero", 1, 0.9),))])  # type: ignore[arg-type]
    parts.heard.set_result([])
    with pytest.raises(TypeError):
        parts.result.result(0)


def test_cancelling_the_result_cancels_every_part(parts: Parts) -> None:
    assert parts.result.cancel()
    assert all(part.cancelled() for part in (parts.lips, parts.audio, parts.heard))


@pytest.mark.parametrize("name", ["lips", "audio", "heard"])
def test_a_cancelled_part_cancels_the_result(parts: Parts, name: str) -> None:
    getattr(parts, name).cancel()
    parts.finish_others(name)
    assert parts.result.cancelled()
    with pytest.raises(CancelledError):
        parts.result.result(0)
