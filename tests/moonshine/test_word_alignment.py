"""Word times from the letters in the audio."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from gorggle_server.errors import ModelFormatError
from gorggle_server.moonshine import LetterModel, Model, align_words, find_model_folder
from gorggle_server.moonshine.word_alignment import FRAME_S, LETTERS, frame_start_s, spell
from tests.clips import DEMO, read_demo_audio
from tests.speech_model import needs_speech_model


def make_scores(text: str) -> np.ndarray:
    """Return scores of a spoken letter, or of silence (a space), in each frame."""
    scores = np.full((len(text), 1 + len(LETTERS)), -5.0, np.float32)
    for frame, letter in enumerate(text):
        scores[frame, 1 + LETTERS.index(letter) if letter.strip() else 0] = -0.1
    return scores


def align(text: str, *words: str) -> list[tuple[int, int]]:
    """Return the first frame of each word, and one past its last."""
    times = align_words(make_scores(text), words, 100.0)
    return [
        (round((start_s - frame_start_s(0)) / FRAME_S), round((end_s - frame_start_s(0)) / FRAME_S))
        for start_s, end_s in times
    ]


def test_words_are_where_their_letters_are() -> None:
    assert align("   bbbiinn   bbllluuee ", "bin", "blue") == [(3, 10), (13, 22)]
    assert align("bbiinnbllue", "Bin", "blue!") == [(0, 6), (6, 11)]


def test_digits_are_spelled_out_and_other_signs_are_any_speech() -> None:
    assert spell("7") == spell("seven")
    assert align("  ssevvenn  aann   ", "7", "&") == [(2, 10), (12, 16)]


def test_words_share_frames_that_are_too_few() -> None:
    times = align_words(make_scores("abc"), ["alpha", "beta", "gamma"], 0.1)
    assert all(0 <= start_s < end_s <= 0.1 for start_s, end_s in times)
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(times))


def test_no_words_have_no_times() -> None:
    assert align_words(make_scores("abc"), [], 0.1) == []


@needs_speech_model
def test_words_of_the_demo_clip_are_timed_precisely() -> None:
    audio = read_demo_audio()
    sentences = json.loads(DEMO.with_suffix(".json").read_text())["sentences"][:3]
    model, letters, errors_s = Model(find_model_folder()), LetterModel.load(), []
    for sentence in sentences:
        start_s, end_s = sentence["start_s"] - 0.3, sentence["end_s"] + 0.3
        scores = letters.compute_scores(model.encode(audio[int(start_s * 16_000) : int(end_s * 16_000)]))
        words = sentence["words"]
        times = align_words(scores, [word["text"] for word in words], end_s - start_s)
        for word, found in zip(words, times, strict=True):
            errors_s += [abs(found[0] + start_s - word["start_s"]), abs(found[1] + start_s - word["end_s"])]
    assert np.median(errors_s) < 0.05
    assert np.mean(np.array(errors_s) < 0.15) > 0.9


def test_damaged_weights_are_a_model_format_error(tmp_path: Path) -> None:
    path = tmp_path / "letters.safetensors"
    path.write_bytes(b"damaged")
    with pytest.raises(ModelFormatError, match=r"letters\.safetensors cannot be loaded"):
        LetterModel.load(path)
