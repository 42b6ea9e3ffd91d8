"""What is taken for what: words, and where their sounds are known, visemes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from gorggle_evaluation.visemes import NO_PHONEME, Lexicon, Phoneme, align_phonemes

MAX_WORD_PAIRS = 50


@dataclass(frozen=True)
class VisemeConfusions:
    """Visemes of words that were read as other words.

    Attributes:
        counts: how often the first, said, was read as the second; NOTHING for a sound without a partner. Sounds that
            substituted words have in common are on the diagonal.
        reference_counts: how often each viseme was said in words of which something was read, rightly or not.
        phoneme_substitutions: phonemes that were read as another phoneme.
        same_viseme: those of them where both have the same viseme: a difference that lips do not show.
        without_pronunciation: substituted words without a pronunciation in the lexicon.
    """

    counts: dict[tuple[str, str], int]
    reference_counts: dict[str, int]
    phoneme_substitutions: int
    same_viseme: int
    without_pronunciation: int


@dataclass(frozen=True)
class Confusions:
    """Pairs of words (said, read) with their counts, the most frequent first; visemes where there is a lexicon."""

    words: tuple[tuple[str, str, int], ...]
    visemes: VisemeConfusions | None


def count_confusions(
    substitutions: Iterable[tuple[str, str]], correct: Iterable[str], lexicon: Lexicon | None
) -> Confusions:
    """Count confusions.

    Args:
        substitutions: words as said and as read.
        correct: words that were read as they were said.
        lexicon: how words sound.
    """
    counted = Counter(substitutions)
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    listed = tuple((said, read, count) for (said, read), count in ordered[:MAX_WORD_PAIRS])
    return Confusions(
        listed, None if lexicon is None else _count_viseme_confusions(counted, Counter(correct), lexicon)
    )


def _count_viseme_confusions(
    substituted: Counter[tuple[str, str]], right: Counter[str], lexicon: Lexicon
) -> VisemeConfusions:
    counts: Counter[tuple[str, str]] = Counter()
    said: Counter[str] = Counter()
    substitutions = alike = unknown = 0
    for word, count in right.items():
        for phoneme in lexicon.get(word, ()):
            said[phoneme.viseme] += count
    for (word, other), count in substituted.items():
        if word not in lexicon or other not in lexicon:
            unknown += count
            continue
        for ours, theirs in align_phonemes(lexicon[word], lexicon[other]):
            counts[_viseme_name(ours), _viseme_name(theirs)] += count
            if ours is not None:
                said[ours.viseme] += count
            if ours is not None and theirs is not None and ours.symbol != theirs.symbol:
                substitutions += count
                alike += count * (ours.viseme == theirs.viseme)
    return VisemeConfusions(dict(counts), dict(said), substitutions, alike, unknown)


def _viseme_name(phoneme: Phoneme | None) -> str:
    return NO_PHONEME if phoneme is None else phoneme.viseme
