"""Word decision between a model that reads lips and one for open speech, and the future of both."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from typing import Any

import numpy as np
import pytest

from gorggle_server.errors import ModelFormatError
from gorggle_server.events import Hypothesis, Word, WordSource
from gorggle_server.inference.combined_recognition import CombinedSubmit, decide_words
from gorggle_server.inference.interface import DecodingOptions, InferenceInput
from gorggle_server.recognition_options import Modality

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


def decide(lips: str, audio: str, **options: Any) -> list[Hypothesis]:
    arguments = {"modality": Modality.AUDIO_VISUAL, "snr_db": CLEAN_DB, "has_closed_lips": True, **options}
    return decide_words([hypothesis(lips)], [hypothesis(audio)], **arguments)


def test_agreed_words_take_their_text_from_the_audio_and_are_of_both() -> None:
    (best,) = decide("bin blue at f two now", "Bin blue at F two now.")
    assert best.text == "Bin blue at F two now."
    assert {word.source for word in best.words} == {WordSource.BOTH}


def test_the_audio_as_an_alternative_has_its_source() -> None:
    lips, audio = [hypothesis("my mother was at home", 0.9)], [hypothesis("my brother was at home", 0.5)]
    _, alternative = decide_words(
        lips, audio, Modality.AUDIO_VISUAL, snr_db=CLEAN_DB, has_closed_lips=False, max_alternatives=1
    )
    assert alternative.text == "my brother was at home"
    assert {word.source for word in alternative.words} == {WordSource.AUDIO}


def test_numbers_and_joined_letters_agree_with_their_spelling() -> None:
    lips = Hypothesis(
        "at f two", 0.9, (Word("at", 0, 0.3, 0.9), Word("f", 0.3, 0.5, 0.9), Word("two", 0.5, 0.9, 0.9))
    )
    audio = Hypothesis("At F2", 0.9, (Word("At", 0, 0.3, 0.9), Word("F2", 0.3, 0.9, 0.9)))
    best = decide_words([lips], [audio], Modality.AUDIO_VISUAL, snr_db=CLEAN_DB, has_closed_lips=True)[0]
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
    best = decide_words([lips], [audio], Modality.AUDIO_VISUAL, snr_db=CLEAN_DB, has_closed_lips=True)[0]
    assert best.text == "bin blue at f two now"
    assert [word.source for word in best.words][4] is WordSource.BOTH, "the first model used lips and audio"


def test_an_open_vocabulary_of_lips_is_decided_by_confidence() -> None:
    lips, audio = [hypothesis("my mother was at home", 0.9)], [hypothesis("my brother was at home", 0.5)]
    best = decide_words(lips, audio, Modality.VIDEO_ONLY, snr_db=CLEAN_DB, has_closed_lips=False)[0]
    assert best.text == "my mother was at home"
    assert best.words[1].source is WordSource.LIPS
    assert (
        decide_words(lips, audio, Modality.VIDEO_ONLY, snr_db=CLEAN_DB, has_closed_lips=True)[0].text
        == "my mother was at home"
    )


def test_noise_leaves_the_decision_to_the_closed_vocabulary_which_is_then_doubtful() -> None:
    lips, audio = [hypothesis("bin blue at f two now", 0.7)], [hypothesis("a dog and the fence", 0.4)]
    clean, noisy = (
        decide_words(lips, audio, Modality.AUDIO_VISUAL, snr_db=snr_db, has_closed_lips=True)[0]
        for snr_db in (CLEAN_DB, NOISY_DB)
    )
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


# ------------------------------------------------------------------------------------------------------------ futures


class Parts:
    """A combined submission, and the requests that its models received."""

    def __init__(self, window: InferenceInput) -> None:
        self.lips: Future[list[Hypothesis]] = Future()
        self.audio: Future[list[Hypothesis]] = Future()
        self.requests: dict[str, tuple[InferenceInput, DecodingOptions, bool]] = {}

        def submit(name: str) -> Any:
            def record(window: InferenceInput, options: DecodingOptions, *, interim: bool = False) -> Any:
                self.requests[name] = window, options, interim
                return getattr(self, name)

            return record

        combined = CombinedSubmit(submit("lips"), submit("audio"), has_closed_lips=True)
        self.result = combined(window, OPTIONS, interim=True)


@pytest.fixture
def parts() -> Parts:
    return Parts(InferenceInput(CROPS, FEATURES, WAVEFORM))


def test_each_model_receives_its_part_of_the_input(parts: Parts) -> None:
    lips, audio = parts.requests["lips"], parts.requests["audio"]
    assert (lips[0].crops, lips[0].features, lips[0].waveform) == (CROPS, FEATURES, None)
    assert (audio[0].crops, audio[0].features, audio[0].waveform) == (None, None, WAVEFORM)
    assert all(options.word_timestamps and interim for _, options, interim in (lips, audio))


def test_a_window_without_a_voice_goes_to_one_model() -> None:
    parts = Parts(InferenceInput(CROPS, FEATURES))
    assert list(parts.requests) == ["lips"]
    assert parts.result is parts.lips


@pytest.mark.parametrize("order", [("lips", "audio"), ("audio", "lips")])
def test_the_result_waits_for_both_models(parts: Parts, order: tuple[str, str]) -> None:
    for name in order:
        assert not parts.result.done()
        getattr(parts, name).set_result([hypothesis("bin blue")])
    assert parts.result.result(0)[0].text == "bin blue"


@pytest.mark.parametrize("name", ["lips", "audio"])
def test_the_failure_of_one_model_is_raised(parts: Parts, name: str) -> None:
    getattr(parts, name).set_exception(ModelFormatError("damaged"))
    other = parts.audio if name == "lips" else parts.lips
    if not other.cancelled():
        other.set_result([])
    with pytest.raises(ModelFormatError, match="damaged"):
        parts.result.result(0)


def test_an_error_of_the_decision_is_raised(parts: Parts) -> None:
    parts.lips.set_result([hypothesis("bin", confidence=float("nan"))])
    parts.audio.set_result([Hypothesis("bin", 0.9, (Word("bin", "zero", 1, 0.9),))])  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        parts.result.result(0)


def test_cancelling_the_result_cancels_both_models(parts: Parts) -> None:
    assert parts.result.cancel()
    assert parts.lips.cancelled()
    assert parts.audio.cancelled()


@pytest.mark.parametrize("name", ["lips", "audio"])
def test_a_cancelled_model_cancels_the_result(parts: Parts, name: str) -> None:
    getattr(parts, name).cancel()
    other = parts.audio if name == "lips" else parts.lips
    if not other.cancelled():
        other.set_result([])
    assert parts.result.cancelled()
    with pytest.raises(CancelledError):
        parts.result.result(0)
