"""From words to what is seen of them on the lips: a lexicon of pronunciations, and the visemes of their phonemes.

The visemes are the fourteen of MPEG-4 (ISO/IEC 14496-2, facial animation), which name some phonemes of English each.
The ones that the standard leaves out are put where the lips do nearly the same: /h ŋ/ with /k ɡ/, /ʒ/ with /ʃ/,
/w/ and /ɔ/ with the rounded vowels, /j/ with /ɪ/, /æ ə ɜ/ with /e/, /ʌ/ with /ɑ/. A diphthong is seen as its first
part.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gorggle_evaluation.text_normalization import normalize_words

# By the phonemes of each, in IPA: the first ones name the viseme.
VISEMES: Mapping[str, str] = {
    "p b m": "p b m",
    "f v": "f v",
    "θ ð": "θ ð",
    "t d": "t d ɾ ʔ",
    "k ɡ ŋ h": "k ɡ g ŋ h x",
    "tʃ dʒ ʃ ʒ": "tʃ dʒ ʃ ʒ",
    "s z": "s z",
    "n l": "n l ɫ",
    "r": "ɹ r ɻ",
    "ɑ ʌ aɪ": "ɑ a ʌ ɐ",
    "e æ ə ɜ": "e ɛ æ ə ɜ ɚ ɝ ᵻ",
    "iː ɪ j": "i ɪ j",
    "ɒ ɔ əʊ": "ɒ ɔ o",
    "uː ʊ w": "u ʊ w ʍ",
}
VOWELS = ("ɑ ʌ aɪ", "e æ ə ɜ", "iː ɪ j", "ɒ ɔ əʊ", "uː ʊ w")
NO_PHONEME = "–"  # a phoneme of which nothing was read, or for which nothing was said

_PHONEME_TO_VISEME = {phoneme: name for name, phonemes in VISEMES.items() for phoneme in phonemes.split()}
# British əʊ is seen as what it is written for elsewhere, oʊ.
_PHONEME_TO_VISEME |= {"əʊ": "ɒ ɔ əʊ", "əu": "ɒ ɔ əʊ"}
_ARPABET_TO_IPA: Mapping[str, str] = {
    "AA": "ɑ", "AE": "æ", "AH": "ʌ", "AO": "ɔ", "AW": "aʊ", "AX": "ə", "AXR": "ɚ", "AY": "aɪ", "B": "b",
    "CH": "tʃ", "D": "d", "DH": "ð", "DX": "ɾ", "EH": "ɛ", "ER": "ɜ", "EY": "eɪ", "F": "f", "G": "ɡ",
    "HH": "h", "IH": "ɪ", "IX": "ɪ", "IY": "i", "JH": "dʒ", "K": "k", "L": "l", "M": "m", "N": "n",
    "NG": "ŋ", "OW": "oʊ", "OY": "ɔɪ", "P": "p", "R": "ɹ", "S": "s", "SH": "ʃ", "T": "t", "TH": "θ",
    "UH": "ʊ", "UW": "u", "V": "v", "W": "w", "Y": "j", "Z": "z", "ZH": "ʒ",
}  # fmt: skip
# Stress, length, syllabicity, ties: nothing that the lips show.
_MARKS = re.compile(r"[ˈˌːˑ:.'ʰ]|[\u0300-\u036f]")
_SAME_VISEME_COST, _SAME_CLASS_COST, _SUBSTITUTION_COST, _GAP_COST = 0.5, 1.0, 1.5, 1.0


class LexiconError(Exception):
    """The lexicon is wrong; the message names file and line."""


@dataclass(frozen=True)
class Phoneme:
    """A sound as the lexicon writes it, without marks, and its viseme."""

    symbol: str
    viseme: str


Lexicon = Mapping[str, tuple[Phoneme, ...]]
"""Pronunciations by word, as words are compared."""


def read_lexicon(path: Path) -> Lexicon:
    """Read pronunciations: a line a word, a tab or blanks, its phonemes separated by blanks, in IPA or ARPAbet.

    The CMU dictionary's file is such a lexicon. Of several pronunciations the first counts; lines that begin with
    ``;;;`` or ``#`` are comments.

    Raises:
        LexiconError: it cannot be read, or a line has no phonemes or an unknown one.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise LexiconError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise LexiconError(f"{path} is not UTF-8 text") from error
    lexicon: dict[str, tuple[Phoneme, ...]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith((";;;", "#")):
            continue
        word, _, said = line.partition("\t") if "\t" in line else line.strip().partition(" ")
        words = normalize_words(re.sub(r"\(\d+\)$", "", word.strip()))
        if len(words) != 1:
            # Dictionaries hold signs and compounds too, which are never compared as one word.
            continue
        try:
            phonemes = tuple(parse_phoneme(symbol) for symbol in said.split())
        except ValueError as error:
            raise LexiconError(f"{path}:{number}: {error}") from None
        if not phonemes:
            raise LexiconError(
                f"{path}:{number}: found {line.strip()!r}, expected a word, a tab, and its phonemes with blanks between"
            )
        lexicon.setdefault(words[0], phonemes)
    return lexicon


def parse_phoneme(symbol: str) -> Phoneme:
    """A phoneme from its symbol in ARPAbet (upper case, with or without stress) or IPA.

    Raises:
        ValueError: neither knows it.
    """
    bare = re.sub(r"[012]$", "", symbol)
    if bare in _ARPABET_TO_IPA:
        return Phoneme(bare, _find_viseme(_ARPABET_TO_IPA[bare]))
    bare = _MARKS.sub("", unicodedata.normalize("NFD", symbol).replace("\u0361", ""))
    try:
        return Phoneme(bare, _find_viseme(bare))
    except KeyError:
        raise ValueError(
            f"found the phoneme {symbol!r}, expected one of IPA or ARPAbet for English"
        ) from None


def align_phonemes(
    reference: Sequence[Phoneme], hypothesis: Sequence[Phoneme]
) -> list[tuple[Phoneme | None, Phoneme | None]]:
    """Pairs of phonemes of two words, None where one has no partner, with the least differences.

    Phonemes of one viseme are nearer to each other than others, and vowels do not stand for consonants: so "bin" and
    "pin" differ in their first sound.
    """
    costs = [
        [_GAP_COST * (row + column) for column in range(len(hypothesis) + 1)]
        for row in range(len(reference) + 1)
    ]
    for row, ours in enumerate(reference, 1):
        for column, theirs in enumerate(hypothesis, 1):
            costs[row][column] = min(
                costs[row - 1][column - 1] + _substitution_cost(ours, theirs),
                costs[row - 1][column] + _GAP_COST,
                costs[row][column - 1] + _GAP_COST,
            )
    pairs: list[tuple[Phoneme | None, Phoneme | None]] = []
    row, column = len(reference), len(hypothesis)
    while row or column:
        here = costs[row][column]
        if (
            row
            and column
            and here
            == costs[row - 1][column - 1] + _substitution_cost(reference[row - 1], hypothesis[column - 1])
        ):
            row, column = row - 1, column - 1
            pairs.append((reference[row], hypothesis[column]))
        elif row and here == costs[row - 1][column] + _GAP_COST:
            row -= 1
            pairs.append((reference[row], None))
        else:
            column -= 1
            pairs.append((None, hypothesis[column]))
    return pairs[::-1]


def _find_viseme(ipa: str) -> str:
    """The viseme of a phoneme, of a diphthong's or long sound's first part.

    Raises:
        KeyError: there is none.
    """
    if ipa in _PHONEME_TO_VISEME:
        return _PHONEME_TO_VISEME[ipa]
    first, *_ = (_PHONEME_TO_VISEME[part] for part in ipa or " ")
    return first


def _substitution_cost(reference: Phoneme, hypothesis: Phoneme) -> float:
    if reference.symbol == hypothesis.symbol:
        return 0.0
    if reference.viseme == hypothesis.viseme:
        return _SAME_VISEME_COST
    return (
        _SAME_CLASS_COST
        if (reference.viseme in VOWELS) == (hypothesis.viseme in VOWELS)
        else _SUBSTITUTION_COST
    )
