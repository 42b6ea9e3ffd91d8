"""Folders of Whisper models: dimensions, and errors of incomplete and damaged ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gorggle_server.errors import ModelFormatError, NotFoundError
from gorggle_server.whisper import Model, check_folder
from tests.whisper.tiny_model import TinyModel, write_model


def test_dimensions_are_read_from_the_weights(folder: Path) -> None:
    checked = check_folder(folder)
    dimensions = checked.dimensions
    assert (dimensions.encoder_layers, dimensions.encoder_width) == (1, 32)
    assert (dimensions.decoder_layers, dimensions.decoder_width) == (1, 32)
    assert dimensions.vocabulary_size == len(checked.vocabulary) == 51_865
    assert dimensions.parameter_count * 4 == pytest.approx((folder / "model.bin").stat().st_size, rel=0.01)


def test_a_vocabulary_may_be_a_text_file(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    tokens = json.loads((copy / "vocabulary.json").read_text())
    (copy / "vocabulary.json").unlink()
    (copy / "vocabulary.txt").write_text("".join(f"{token}\n" for token in tokens))
    assert check_folder(copy).vocabulary == tuple(tokens)
    assert Model(check_folder(copy)).is_multilingual


def test_a_missing_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"the model's folder .*absent does not exist"):
        check_folder(tmp_path / "absent")


def cut(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.bin").unlink(), "it lacks model.bin; download or convert"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "it lacks tokenizer.json"),
        (
            lambda folder: (folder / "vocabulary.json").unlink(),
            "it lacks vocabulary.json or vocabulary.txt",
        ),
        (lambda folder: cut(folder / "model.bin", 2_000_000), r"it has 2000000 bytes and ends within 'de"),
        (lambda folder: cut(folder / "model.bin", 3), r"model.bin is damaged \("),
        (lambda folder: cut(folder / "model.bin", 0), r"model.bin is damaged \("),
        (lambda folder: (folder / "model.bin").write_bytes(b"PK\x03\x04" * 500), r"model.bin is damaged \("),
        (lambda folder: cut(folder / "config.json", 20), r"config.json is damaged \("),
        (lambda folder: cut(folder / "vocabulary.json", 2000), r"vocabulary.json is damaged \("),
        (lambda folder: (folder / "vocabulary.json").write_text("{}"), "it is not a list of tokens"),
        (
            lambda folder: (folder / "vocabulary.json").write_text('["a"]'),
            "a vocabulary of 1 tokens, but weights for 51865",
        ),
    ],
)
def test_an_incomplete_or_damaged_folder_is_refused(
    folder: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    damage(copy)
    with pytest.raises(ModelFormatError, match=message):
        check_folder(copy)


def test_another_kind_of_model_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    content = (copy / "model.bin").read_bytes()
    (copy / "model.bin").write_bytes(content.replace(b"WhisperSpec", b"WaveletSpec", 1))
    with pytest.raises(ModelFormatError, match="it holds 'WaveletSpec', not WhisperSpec"):
        check_folder(copy)


def test_a_damaged_tokenizer_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    cut(copy / "tokenizer.json", 1000)
    with pytest.raises(ModelFormatError, match=r"tokenizer.json is damaged \("):
        Model(check_folder(copy))


def test_the_tokenizer_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    english = write_model(tmp_path / "english", TinyModel(is_multilingual=False))
    shutil.copy(folder / "tokenizer.json", english)
    with pytest.raises(
        ModelFormatError,
        match=r"does not belong to the model's vocabulary: <\|startoftranscript\|> is token 50258",
    ):
        Model(check_folder(english))
