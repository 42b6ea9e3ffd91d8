"""Confusion counts of words and, given a pronunciation lexicon, of visemes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from gorggle_evaluation.visemes import NO_PHONEME, Lexicon, Phoneme, align_phonemes

MAX_WORD_PAIRS = 50


@dataclass(frozen=True)
class VisemeConfusions:
    """Viseme confusions in substituted words.

    Attributes:
        counts: by pair (reference, hypothesis); NO_PHONEME for insertions and deletions. Phonemes that the two words
            share are on the diagonal.
        reference_counts: occurrences of each viseme in reference words that were recognized, correctly or not.
        phoneme_substitutions: substituted phonemes.
        same_viseme: those of them within one viseme: not distinguishable by lip reading.
        without_pronunciation: substituted words that are not in the lexicon.
    """

    counts: dict[tuple[str, str], int]
    reference_counts: dict[str, int]
    phoneme_substitutions: int
    same_viseme: int
    without_pronunciation: int


@dataclass(frozen=True)
class Confusions:
    """Word pairs (reference, hypothesis, count), most frequent first; visemes if there is a lexicon."""

    words: tuple[tuple[str, str, int], ...]
    visemes: VisemeConfusions | None


def count_confusions(
    substitutions: Iterable[tuple[str, str]], correct: Iterable[str], lexicon: Lexicon | None
) -> Confusions:
    """Count confusions.

    Args:
        substitutions: pairs (reference, hypothesis).
        correct: correctly recognized words.
        lexicon: pronunciations.
    """
    pairs = Counter(substitutions)
    ordered = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    listed = tuple(
        (reference_counts, read, count) for (reference_counts, read), count in ordered[:MAX_WORD_PAIRS]
    )
    return Confusions(
        listed, None if lexicon is None else _count_viseme_confusions(pairs, Counter(correct), lexicon)
    )


def _count_viseme_confusions(
    substituted: Counter[tuple[str, str]], right: Counter[str], lexicon: Lexicon
) -> VisemeConfusions:
    counts: Counter[tuple[str, str]] = Counter()
    reference_counts: Counter[str] = Counter()
    substitutions = same_viseme = without_pronunciation = 0
    for word, count in right.items():
        for phoneme in lexicon.get(word, ()):
            reference_counts[phoneme.viseme] += count
    for (word, other), count in substituted.items():
        if word not in lexicon or other not in lexicon:
            without_pronunciation += count
            continue
        for reference, hypothesis in align_phonemes(lexicon[word], lexicon[other]):
            counts[_viseme_name(reference), _viseme_name(hypothesis)] += count
            if reference is not None:
                reference_counts[reference.viseme] += count
            if reference is not None and hypothesis is not None and reference.symbol != hypothesis.symbol:
                substitutions += count
                same_viseme += count * (reference.viseme == hypothesis.viseme)
    return VisemeConfusions(
        dict(counts), dict(reference_counts), substitutions, same_viseme, without_pronunciation
    )


def _viseme_name(phoneme: Phoneme | None) -> str:
    return NO_PHONEME if phoneme is None else phoneme.viseme
