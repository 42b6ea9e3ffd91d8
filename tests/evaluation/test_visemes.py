"""Pronunciation lexicons, and confusions of visemes."""

from __future__ import annotations

from pathlib import Path

import pytest

from gorggle_evaluation.confusions import count_confusions
from gorggle_evaluation.visemes import (
    NO_PHONEME,
    VISEMES,
    LexiconError,
    align_phonemes,
    parse_phoneme,
    read_lexicon,
)

IPA = "bin\tb ˈɪ n\npin\tp ɪ n\nfin\tf ɪ n\nblue\tb l ˈuː\n"
CMU = ";;; a comment\nBIN  B IH1 N\nPIN  P IH1 N\nPIN(2)  P EH1 N\n'N  AH0 N\nFIN  F IH1 N\n"


@pytest.fixture(params=[IPA, CMU], ids=["IPA", "ARPAbet"])
def lexicon_path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "words.tsv"
    path.write_text(request.param)
    return path


def test_a_lexicon_can_be_ipa_or_arpabet(lexicon_path: Path) -> None:
    lexicon = read_lexicon(lexicon_path)
    assert [phoneme.viseme for phoneme in lexicon["pin"]] == ["p b m", "iː ɪ j", "n l"]
    assert lexicon["bin"][1:] == lexicon["pin"][1:]
    assert lexicon["bin"][0] != lexicon["pin"][0]


@pytest.mark.parametrize(
    ("symbols", "viseme"),
    [
        ("AA0 ʌ aɪ AW1 ɑː", "ɑ ʌ aɪ"),
        ("EH ə ER1 ɜː eɪ ɛə", "e æ ə ɜ"),
        ("OW oʊ əʊ ɔɪ ɒ", "ɒ ɔ əʊ"),
        ("t͡ʃ CH dʒ ʒ", "tʃ dʒ ʃ ʒ"),
        ("NG ɡ g HH", "k ɡ ŋ h"),
        ("ɹ R", "r"),
        ("l̩ ɫ N", "n l"),
    ],
)
def test_phonemes_with_the_same_lip_shape_share_a_viseme(symbols: str, viseme: str) -> None:
    assert {parse_phoneme(symbol).viseme for symbol in symbols.split()} == {viseme}
    assert viseme in VISEMES


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cat\tk æ ʘ", "found the phoneme 'ʘ'"),
        ("cat\t", "expected a word, a tab"),
        ("cat\tk7 t", "'k7'"),
    ],
)
def test_a_lexicon_error_names_its_line(tmp_path: Path, line: str, expected: str) -> None:
    path = tmp_path / "words.tsv"
    path.write_text(f"bin\tb ɪ n\n{line}\n")
    with pytest.raises(LexiconError) as caught:
        read_lexicon(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert expected in str(caught.value)


def test_a_missing_lexicon_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LexiconError, match="cannot be read: no such file"):
        read_lexicon(tmp_path / "none.tsv")


def test_phonemes_are_aligned_by_viseme() -> None:
    reference = [parse_phoneme(symbol) for symbol in ["b", "l", "uː"]]
    hypothesis = [parse_phoneme(symbol) for symbol in ["p", "uː"]]
    pairs = [(a and a.symbol, b and b.symbol) for a, b in align_phonemes(reference, hypothesis)]
    assert pairs == [("b", "p"), ("l", None), ("u", "u")]


def test_viseme_confusions_are_counted_from_word_substitutions(lexicon_path: Path) -> None:
    lexicon = read_lexicon(lexicon_path)
    confusions = count_confusions(
        [("bin", "pin"), ("bin", "pin"), ("bin", "fin"), ("bin", "xyzzy")], ["pin"], lexicon
    )
    assert confusions.words[0] == ("bin", "pin", 2)
    visemes = confusions.visemes
    assert visemes is not None
    assert visemes.counts["p b m", "p b m"] == 2
    assert visemes.counts["p b m", "f v"] == 1
    assert visemes.reference_counts["p b m"] == 4
    assert (visemes.phoneme_substitutions, visemes.same_viseme, visemes.without_pronunciation) == (3, 2, 1)


def test_a_deleted_phoneme_is_counted_as_no_phoneme(tmp_path: Path) -> None:
    (tmp_path / "words.tsv").write_text("bin\tb ɪ n\nin\tɪ n\n")
    confusions = count_confusions([("bin", "in")], [], read_lexicon(tmp_path / "words.tsv"))
    assert confusions.visemes is not None
    assert confusions.visemes.counts["p b m", NO_PHONEME] == 1


def test_without_a_lexicon_only_words_are_counted() -> None:
    confusions = count_confusions([("b", "p"), ("a", "i"), ("b", "p")], [], None)
    assert confusions.words == (("b", "p", 2), ("a", "i", 1))
    assert confusions.visemes is None
