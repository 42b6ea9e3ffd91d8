"""Sentences for training and test, and their split: GRID commands and phrases.

Source: Cooke, Barker, Cunningham, Shao, "An audio-visual corpus for speech perception and automatic speech
recognition" (JASA 2006). Six words: command, colour, preposition, letter, digit, adverb; 51 words, 64,000 sentences.
"""

from __future__ import annotations

import zlib
from enum import StrEnum
from typing import TYPE_CHECKING

from gorggle_training import phrases
from gorggle_training.phrases import Sentence

if TYPE_CHECKING:
    import numpy as np

# The corpus omits "w", whose name has three syllables. "A" marks the letter (not the article) for the synthesizer; texts
# are lower case.
GRAMMAR: tuple[tuple[str, ...], ...] = (
    ("bin", "lay", "place", "set"),
    ("blue", "green", "red", "white"),
    ("at", "by", "in", "with"),
    tuple("Abcdefghijklmnopqrstuvxyz"),
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("again", "now", "please", "soon"),
)
GRID_VOCABULARY: tuple[str, ...] = tuple(sorted({word.lower() for words in GRAMMAR for word in words}))
VOCABULARY: tuple[str, ...] = tuple(sorted({*GRID_VOCABULARY, *phrases.VOCABULARY}))


class Corpus(StrEnum):
    """A kind of sentence."""

    GRID = "grid"
    PHRASES = "phrases"


# Sentences of the demo clips and the documentation: never in training.
DEMO_SENTENCES: tuple[str, ...] = (
    "bin blue at f two now",
    "place red in h nine please",
    "set white with p four soon",
    "lay green by y seven again",
    "bin white in k eight please",
)

HELD_OUT_PERCENT = 5  # of the sentences, for validation and test each


class Split(StrEnum):
    """Partition of sentences and speakers."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


# Seeds of speakers, voices and faces: splits have disjoint speakers.
FIRST_SPEAKER_SEED = {Split.TRAIN: 0, Split.VALIDATION: 900_000, Split.TEST: 1_000_000}
DEMO_SPEAKER_SEED = 2_000_000


def assign_split(sentence: Sentence) -> Split:
    """Return the split of a sentence, the same on every machine."""
    text = " ".join(sentence).lower()
    if text in DEMO_SENTENCES:
        return Split.TEST
    percentile = zlib.crc32(text.encode()) % 100
    if percentile < HELD_OUT_PERCENT:
        return Split.TEST
    return Split.VALIDATION if percentile < 2 * HELD_OUT_PERCENT else Split.TRAIN


def random_sentence(split: Split, rng: np.random.Generator, corpus: Corpus = Corpus.GRID) -> Sentence:
    """Draw a sentence of a corpus that belongs to a split; those of the grammar are uniformly distributed."""
    while True:
        if corpus is Corpus.PHRASES:
            sentence = phrases.random_phrase(rng)
        else:
            sentence = tuple(str(rng.choice(words)) for words in GRAMMAR)
        if assign_split(sentence) is split:
            return sentence


def random_span(sentence: Sentence, rng: np.random.Generator) -> Sentence:
    """Draw a contiguous part of a sentence, as in a clip that starts late or ends early."""
    length = int(rng.integers(1, len(sentence)))
    first = int(rng.integers(0, len(sentence) - length + 1))
    return sentence[first : first + length]
