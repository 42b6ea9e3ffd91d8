"""Pronunciation lexicon, and visemes of phonemes.

The visemes are the fourteen of MPEG-4 (ISO/IEC 14496-2, facial animation). Phonemes that the standard omits are assigned
to the viseme with the most similar lip shape: /h ŋ/ to /k ɡ/, /ʒ/ to /ʃ/, /w/ and /ɔ/ to the rounded vowels, /j/ to
/ɪ/, /æ ə ɜ/ to /e/, /ʌ/ to /ɑ/. A diphthong has the viseme of its first part.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gorggle_evaluation.text_normalization import normalize_words

# Name of each viseme, and its phonemes in IPA.
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
NO_PHONEME = "–"  # an inserted or deleted phoneme's counterpart

_PHONEME_TO_VISEME = {phoneme: name for name, phonemes in VISEMES.items() for phoneme in phonemes.split()}
# British əʊ has the viseme of oʊ.
_PHONEME_TO_VISEME |= {"əʊ": "ɒ ɔ əʊ", "əu": "ɒ ɔ əʊ"}
_ARPABET_TO_IPA: Mapping[str, str] = {
    "AA": "ɑ", "AE": "æ", "AH": "ʌ", "AO": "ɔ", "AW": "aʊ", "AX": "ə", "AXR": "ɚ", "AY": "aɪ", "B": "b",
    "CH": "tʃ", "D": "d", "DH": "ð", "DX": "ɾ", "EH": "ɛ", "ER": "ɜ", "EY": "eɪ", "F": "f", "G": "ɡ",
    "HH": "h", "IH": "ɪ", "IX": "ɪ", "IY": "i", "JH": "dʒ", "K": "k", "L": "l", "M": "m", "N": "n",
    "NG": "ŋ", "OW": "oʊ", "OY": "ɔɪ", "P": "p", "R": "ɹ", "S": "s", "SH": "ʃ", "T": "t", "TH": "θ",
    "UH": "ʊ", "UW": "u", "V": "v", "W": "w", "Y": "j", "Z": "z", "ZH": "ʒ",
}  # fmt: skip
# Stress, length, syllabicity, ties: not visible on the lips.
_MARKS = re.compile(r"[ˈˌːˑ:.'ʰ]|[\u0300-\u036f]")
_SAME_VISEME_COST, _SAME_CLASS_COST, _SUBSTITUTION_COST, _GAP_COST = 0.5, 1.0, 1.5, 1.0


class LexiconError(Exception):
    """The lexicon is invalid; the message names file and line."""


@dataclass(frozen=True)
class Phoneme:
    """A phoneme as written in the lexicon, without marks, and its viseme."""

    symbol: str
    viseme: str


Lexicon = Mapping[str, tuple[Phoneme, ...]]
"""Pronunciations by normalized word."""


def read_lexicon(path: Path) -> Lexicon:
    """Read a pronunciation lexicon: a word, a tab or space, and phonemes separated by spaces (IPA or ARPAbet) per line.

    The CMU Pronouncing Dictionary has this format. The first of several pronunciations is used; lines that begin with
    ``;;;`` or ``#`` are comments.

    Raises:
        LexiconError: the file cannot be read, or a line has no phonemes or an unknown one.
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
        word, _, pronunciation = line.partition("\t") if "\t" in line else line.strip().partition(" ")
        words = normalize_words(re.sub(r"\(\d+\)$", "", word.strip()))
        if len(words) != 1:
            # Dictionaries contain symbols and compounds, which are never compared as one word.
            continue
        try:
            phonemes = tuple(parse_phoneme(symbol) for symbol in pronunciation.split())
        except ValueError as error:
            raise LexiconError(f"{path}:{number}: {error}") from None
        if not phonemes:
            raise LexiconError(
                f"{path}:{number}: found {line.strip()!r}, expected a word, a tab, and its phonemes separated by spaces"
            )
        lexicon.setdefault(words[0], phonemes)
    return lexicon


def parse_phoneme(symbol: str) -> Phoneme:
    """Parse a phoneme symbol in ARPAbet (upper case, with or without stress) or IPA.

    Raises:
        ValueError: the symbol is unknown.
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
    """Align the phonemes of two words at minimal cost; return pairs with None for gaps.

    Phonemes of one viseme cost less than others, and vowels are not aligned to consonants: "bin" and "pin" differ in their
    first phoneme.
    """

    @functools.cache
    def align(row: int, column: int) -> tuple[float, tuple[tuple[Phoneme | None, Phoneme | None], ...]]:
        """Return cost and pairs of the phonemes before two positions."""
        if not row and not column:
            return 0.0, ()
        steps: list[tuple[int, int, float]] = []  # the first of equal cost is taken
        if row and column:
            steps.append((1, 1, _substitution_cost(reference[row - 1], hypothesis[column - 1])))
        steps += [(1, 0, _GAP_COST)] * (row > 0) + [(0, 1, _GAP_COST)] * (column > 0)
        found = []
        for down, right, step_cost in steps:
            cost, pairs = align(row - down, column - right)
            pair = (reference[row - 1] if down else None, hypothesis[column - 1] if right else None)
            found.append((cost + step_cost, (*pairs, pair)))
        return min(found, key=lambda option: option[0])

    return list(align(len(reference), len(hypothesis))[1])


def _find_viseme(ipa: str) -> str:
    """Return the viseme of a phoneme; for diphthongs and long phonemes that of the first part.

    Raises:
        KeyError: the phoneme is unknown.
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
    is_same_class = (reference.viseme in VOWELS) == (hypothesis.viseme in VOWELS)
    return _SAME_CLASS_COST if is_same_class else _SUBSTITUTION_COST
