"""Training of the letter model: labels from word times, realignment, learning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from gorggle_server.moonshine import LetterModel, Model, align_words, find_model_folder
from gorggle_server.moonshine.word_alignment import FRAME_S, LETTERS, frame_start_s, spell
from gorggle_training.letter_model import Trainer, Utterance, realign, share_frames, synthesize_utterances
from gorggle_training.speech_synthesis import TimedWord
from tests.speech_model import needs_speech_model

WIDTH = 288


def make_utterance(spoken: str, *words: str) -> Utterance:
    """Return an utterance whose frames are one-hot vectors of the letters in ``spoken``, a space for silence."""
    classes = [0 if letter == " " else 1 + LETTERS.index(letter) for letter in spoken]
    encoded = np.eye(WIDTH, dtype=np.float16)[classes]
    timed, position = [], 0
    for word, letters in zip(words, spoken.split(), strict=True):
        start = spoken.index(letters, position)
        position = start + len(letters)
        timed.append(TimedWord(word, frame_start_s(start), frame_start_s(position)))
    return Utterance(encoded, tuple(timed))


def to_text(labels: np.ndarray) -> str:
    return "".join(" " if label == 0 else LETTERS[label - 1] for label in labels)


def test_the_letters_of_a_word_share_its_frames() -> None:
    assert to_text(share_frames(make_utterance("  bbbiiiinn bb", "bin", "b"))) == "  bbbiiinnn bb"


def test_letters_move_to_where_they_are_estimated() -> None:
    utterance = make_utterance(" biiiinn  nbb ", "bin", "nb")
    scores = np.log(utterance.encoded[:, : 1 + len(LETTERS)].astype(np.float32) + 1e-3)
    assert to_text(realign(utterance, scores)) == " biiiinn  nbb "


def test_a_trained_model_times_words(tmp_path: Path) -> None:
    spoken = ("  bbiiinn  bllluue ", " rred   biin ", "bbblue  rreeed  ")
    words = (("bin", "blue"), ("red", "bin"), ("blue", "red"))
    utterances = [make_utterance(text, *named) for text, named in zip(spoken, words, strict=True)]
    path = tmp_path / "letters.safetensors"
    save_file(Trainer(utterances * 12).run(), path)
    scores = LetterModel.load(path).compute_scores(utterances[0].encoded.astype(np.float32))
    times = align_words(scores, ["bin", "blue"], 10.0)
    frames = [
        (round((start - frame_start_s(0)) / FRAME_S), round((end - frame_start_s(0)) / FRAME_S))
        for start, end in times
    ]
    assert frames == [(2, 9), (11, 18)]


@needs_speech_model
def test_synthesized_utterances_have_letters_and_times_within_the_audio() -> None:
    utterances = list(synthesize_utterances(Model(find_model_folder()), 2))
    assert utterances
    for utterance in utterances:
        assert utterance.encoded.shape[1] == WIDTH
        assert all(
            0 < word.start_s < word.end_s < frame_start_s(len(utterance.encoded)) + 0.1
            for word in utterance.words
        )
        assert all(min(spell(word.text)) > 0 for word in utterance.words)
