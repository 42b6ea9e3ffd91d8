from __future__ import annotations

import pytest

from gorggle_server.avhubert.tokenizer import RESERVED_TOKENS, Vocabulary, detokenize
from gorggle_server.errors import ModelFormatError
from tests.avhubert import golden


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([], ""),
        (["▁go", "ne", "▁now"], "gone now"),
        (["go", "▁now"], "go now"),
        (["▁", "b", "▁"], "b"),
        (["▁it", "'", "s"], "it's"),
    ],
)
def test_detokenize_joins_pieces_and_replaces_word_markers(pieces: list[str], text: str) -> None:
    assert detokenize(pieces) == text


def test_token_ids_come_from_the_dictionary() -> None:
    vocabulary = golden.vocabulary()
    # In the golden SentencePiece model "▁" has id 4 or less; the dictionary's first line has id 4.
    assert vocabulary.tokens[:5] == [*RESERVED_TOKENS, "▁"]
    assert vocabulary.to_pieces(vocabulary.encode("soon")) == ["▁soon"]
    assert vocabulary.encode("soon") == [vocabulary.tokens.index("▁soon")]


@pytest.mark.parametrize("text", ["place blue now", "bin white at l soon", "again"])
def test_text_round_trips_through_tokens(text: str) -> None:
    vocabulary = golden.vocabulary()
    tokens = vocabulary.encode(text)
    assert 3 not in tokens
    assert vocabulary.decode([0, *tokens, 2, 1, 1]) == text


def test_characters_outside_the_dictionary_are_unknown_tokens() -> None:
    vocabulary = golden.vocabulary()
    assert vocabulary.encode("ж")[-1] == 3
    assert vocabulary.decode([3]) == "<unk>"


def test_a_dictionary_without_the_reserved_tokens_is_rejected() -> None:
    with pytest.raises(ModelFormatError, match=r"expected \['<s>', '<pad>', '</s>', '<unk>'\]"):
        Vocabulary(["<pad>", "<s>", "</s>", "<unk>", "a"])


def test_encoding_requires_a_valid_sentencepiece_model() -> None:
    tokens = golden.vocabulary().tokens
    with pytest.raises(ModelFormatError, match="no SentencePiece model"):
        Vocabulary(tokens).encode("go")
    with pytest.raises(ModelFormatError, match="damaged"):
        Vocabulary(tokens, b"garbage").encode("go")
