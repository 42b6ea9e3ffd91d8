"""Moonshine's tokenizer: its file format, and words from tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from gorggle_server.errors import ModelFormatError
from gorggle_server.moonshine import Vocabulary, find_model_folder
from tests.speech_model import needs_speech_model

TOKENS = [
    b"<unk>",
    b"<s>",
    b"</s>",
    "é".encode()[:1],
    "é".encode()[1:],
    *(each.encode() for each in ("▁go", "ne", "▁now", "▁", "!")),
]
GO, NE, NOW, SPACE, MARK = range(5, 10)


def split(*ids: int) -> list[tuple[str, int, int]]:
    return [(word.text, word.first, word.end) for word in Vocabulary(TOKENS).split_words(ids)]


def test_tokens_join_to_words_with_their_positions() -> None:
    assert split(GO, NE, NOW, MARK) == [("gone", 0, 2), ("now!", 2, 4)]


def test_tokens_without_text_belong_to_the_following_word() -> None:
    assert split(1, SPACE, GO, NE, SPACE, 2) == [("gone", 0, 4)]
    assert split() == split(1, 2) == split(SPACE) == []


def test_a_character_may_consist_of_several_tokens() -> None:
    assert split(GO, 3, 4) == [("goé", 0, 3)]
    assert split(GO, 3) == [("go\N{REPLACEMENT CHARACTER}", 0, 2)]


def test_a_token_may_hold_several_words() -> None:
    vocabulary = Vocabulary(["▁a▁b".encode()])
    assert [(word.text, word.first, word.end) for word in vocabulary.split_words([0])] == [
        ("a", 0, 1),
        ("b", 0, 1),
    ]


def test_the_file_holds_the_length_of_each_token_as_a_varint(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(b"\x01a" + b"\x82\x01" + b"b" * 130 + b"\x01c")
    assert Vocabulary.load(path).tokens == [b"a", b"b" * 130, b"c"]
    path.write_bytes(b"\x01a\x05bc")
    with pytest.raises(ModelFormatError, match="ends within token 1"):
        Vocabulary.load(path)


@needs_speech_model
def test_the_packages_file_has_32768_tokens() -> None:
    vocabulary = Vocabulary.load(find_model_folder() / "tokenizer.bin")
    assert len(vocabulary) == 32_768
    assert not any(vocabulary.tokens[:3])
