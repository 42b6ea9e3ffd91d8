"""Sentences of the corpora, their training, validation and test splits, and the tokenizer."""

import numpy as np
import pytest

from gorggle_server.avhubert.tokenizer import RESERVED_TOKENS
from gorggle_training import phrases
from gorggle_training.phrases import random_phrase
from gorggle_training.sentences import (
    DEMO_SENTENCES,
    GRAMMAR,
    GRID_VOCABULARY,
    Corpus,
    Split,
    assign_split,
    random_sentence,
    random_span,
)
from gorggle_training.tokenizer import train_tokenizer


def test_the_grammar_has_51_words_and_64000_sentences() -> None:
    assert len(GRID_VOCABULARY) == 51
    assert np.prod([len(words) for words in GRAMMAR]) == 64_000


@pytest.mark.parametrize("corpus", Corpus)
def test_sentences_belong_to_their_split(corpus: Corpus) -> None:
    rng = np.random.default_rng(0)
    for split in Split:
        assert all(assign_split(random_sentence(split, rng, corpus)) is split for _ in range(50))


def test_phrases_are_diverse_and_use_the_whole_vocabulary() -> None:
    rng = np.random.default_rng(3)
    sampled = [random_phrase(rng) for _ in range(20_000)]
    assert {word for phrase in sampled for word in phrase} == set(phrases.VOCABULARY)
    assert 300 <= len(phrases.VOCABULARY) <= 600
    assert len(set(sampled)) > 15_000
    assert {len(phrase) for phrase in sampled} <= set(range(3, 11))


def test_phrases_have_few_tokens_per_word() -> None:
    rng = np.random.default_rng(4)
    tokenizer = train_tokenizer()
    texts = [" ".join(random_phrase(rng)) for _ in range(200)]
    assert sum(len(tokenizer.encode(text)) for text in texts) < 2 * sum(len(text.split()) for text in texts)
    assert all(tokenizer.decode(tokenizer.encode(text)) == text for text in texts)


def test_about_ten_percent_of_the_sentences_are_held_out() -> None:
    rng = np.random.default_rng(1)
    sampled = [tuple(str(rng.choice(words)) for words in GRAMMAR) for _ in range(2000)]
    held_out = sum(assign_split(sentence) is not Split.TRAIN for sentence in sampled)
    assert 140 < held_out < 260


def test_the_demo_sentences_belong_to_the_grammar_but_not_to_training() -> None:
    for text in DEMO_SENTENCES:
        words = tuple(text.split())
        assert all(word in slot_words for word, slot_words in zip(words, GRAMMAR, strict=True))
        assert assign_split(words) is Split.TEST


def test_a_span_is_a_shorter_contiguous_part_of_the_sentence() -> None:
    rng = np.random.default_rng(2)
    sentence = ("bin", "blue", "at", "f", "two", "now")
    for _ in range(50):
        span = random_span(sentence, rng)
        assert 1 <= len(span) < len(sentence)
        assert " ".join(span) in " ".join(sentence)


def test_every_word_of_the_grammar_is_one_token() -> None:
    tokenizer = train_tokenizer()
    assert tuple(tokenizer.tokens[:4]) == RESERVED_TOKENS
    assert all(len(tokenizer.encode(word)) == 1 for word in GRID_VOCABULARY)


def test_decoding_inverts_encoding() -> None:
    tokenizer = train_tokenizer()
    for text in (*DEMO_SENTENCES, "hello you"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_tokenizer_training_is_deterministic() -> None:
    assert train_tokenizer().tokens == train_tokenizer().tokens
