"""Whisper behind the inference interface: languages, alternatives, loops, silence, batches."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gorggle_server.errors import InvalidRequestError, ModelFormatError
from gorggle_server.events import Hypothesis
from gorggle_server.inference.interface import DecodingOptions, InferenceInput, transcribe
from gorggle_server.inference.whisper_recognizer import MAX_BATCH, WhisperRecognizer
from gorggle_server.whisper import Model, check_folder
from tests.clips import read_demo_audio
from tests.whisper.tiny_model import LOOP, TinyModel, write_model

pytest.importorskip("faster_whisper", reason="the extra gorggle[whisper] is not installed")
OPTIONS = DecodingOptions(beam_size=3, length_penalty=1.0, max_alternatives=0, word_timestamps=True)


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> WhisperRecognizer:
    return create_recognizer(tmp_path_factory.mktemp("whisper"))


def create_recognizer(folder: Path, **model: Any) -> WhisperRecognizer:
    return WhisperRecognizer(Model(check_folder(write_model(folder, TinyModel(**model)))))


def make_window(duration_s: float = 2.0, start: int = 24_000) -> InferenceInput:
    return InferenceInput(None, None, read_demo_audio()[start : start + round(duration_s * 16_000)])


def recognize(recognizer: WhisperRecognizer, options: DecodingOptions = OPTIONS) -> list[Hypothesis]:
    (hypotheses,) = transcribe(recognizer, [make_window()], options)
    return hypotheses


@pytest.mark.parametrize(
    ("languages", "text"),
    [
        ((), "Hallo, Mister Smith."),
        (("fr",), "Bonjour, Mister Smith."),
        (("en", "fr"), "Bonjour, Mister Smith."),
        (("en",), "Hello, Mister Smith."),
    ],
)
def test_the_language_is_the_most_probable_one_of_the_request(
    recognizer: WhisperRecognizer, languages: tuple[str, ...], text: str
) -> None:
    options = DecodingOptions(3, 1.0, 0, word_timestamps=True, languages=languages)
    assert [hypothesis.text for hypothesis in recognize(recognizer, options)] == [text]


def test_words_have_times_within_the_window(recognizer: WhisperRecognizer) -> None:
    (best,) = recognize(recognizer)
    assert [word.text for word in best.words] == ["Hallo,", "Mister", "Smith."]
    assert all(0 <= word.start_s < word.end_s <= 2.0 for word in best.words)
    assert all(before.end_s <= after.start_s for before, after in itertools.pairwise(best.words))
    assert all(word.confidence > 0.99 for word in best.words)


def test_alternatives_have_other_words_and_their_own_times(recognizer: WhisperRecognizer) -> None:
    ranked = recognize(recognizer, DecodingOptions(5, 1.0, 3, word_timestamps=True))
    assert 2 <= len(ranked) <= 4
    assert len({hypothesis.text for hypothesis in ranked}) == len(ranked)
    for hypothesis in ranked:
        assert " ".join(word.text for word in hypothesis.words) == hypothesis.text
    assert ranked[0].log_probability > ranked[1].log_probability


def test_a_narrow_beam_has_no_more_alternatives_than_its_width(recognizer: WhisperRecognizer) -> None:
    assert len(recognize(recognizer, DecodingOptions(1, 1.0, 5, word_timestamps=True))) == 1


def test_words_are_left_out_if_they_are_not_requested(recognizer: WhisperRecognizer) -> None:
    (best,) = recognize(recognizer, DecodingOptions(3, 1.0, 0, word_timestamps=False))
    assert (best.text, best.words) == ("Hallo, Mister Smith.", ())
    assert best.confidence > 0.99


def test_more_windows_than_one_batch_are_all_recognized(recognizer: WhisperRecognizer) -> None:
    windows = [make_window(0.4 + 0.2 * number, start=1600 * number) for number in range(MAX_BATCH + 3)]
    together = transcribe(recognizer, windows, OPTIONS)
    for window, (best,) in zip(windows, together, strict=True):
        ((alone,),) = transcribe(recognizer, [window], OPTIONS)
        assert best.text == alone.text
        assert [(word.start_s, word.end_s) for word in best.words] == [
            (word.start_s, word.end_s) for word in alone.words
        ]


def test_a_removed_window_has_no_result(recognizer: WhisperRecognizer) -> None:
    decoding = recognizer.start_decoding(OPTIONS)
    decoding.add(["kept", "removed"], recognizer.encode([make_window(), make_window()]))
    decoding.remove("removed")
    assert list(decoding.step()) == ["kept"]
    assert decoding.step() == {}


def test_a_phrase_in_a_loop_is_kept_once(tmp_path: Path) -> None:
    (best,) = recognize(create_recognizer(tmp_path, script=LOOP))
    assert best.text == "Hallo oh no"
    assert [word.text for word in best.words] == ["Hallo", "oh", "no"]
    assert best.is_loop_removed


def test_a_window_without_speech_has_no_words(tmp_path: Path) -> None:
    ranked = recognize(create_recognizer(tmp_path, is_silent=True))
    assert [(hypothesis.text, hypothesis.words) for hypothesis in ranked] == [("", ())]


def test_punctuation_alone_is_no_text(tmp_path: Path) -> None:
    recognizer = create_recognizer(tmp_path, is_multilingual=False, script=(" ...",), has_greeting=False)
    assert [(hypothesis.text, hypothesis.words) for hypothesis in recognize(recognizer)] == [("", ())]


def test_damaged_weights_fail_the_window(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="output is not finite"):
        recognize(create_recognizer(tmp_path, has_damaged_weights=True))


def test_a_window_of_more_than_30_s_is_refused(recognizer: WhisperRecognizer) -> None:
    with pytest.raises(InvalidRequestError, match="takes at most 30 s"):
        recognizer.encode([InferenceInput(None, None, np.zeros(500_000, np.int16))])


def test_the_cost_of_a_second_is_measured(recognizer: WhisperRecognizer) -> None:
    recognizer.warm_up()
    assert 0 < recognizer.measure_cost() < 10
