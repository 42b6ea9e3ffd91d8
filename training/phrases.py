"""Short sentences of a few hundred common words, a second corpus besides the GRID commands.

A sentence is drawn from patterns of words and, in capitals, word classes. Sentences are grammatical and improbable
("the baker found my yellow boat"): context does not help to guess words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np

Sentence: TypeAlias = tuple[str, ...]

WORD_CLASSES: dict[str, tuple[str, ...]] = {
    name: tuple(words.split())
    for name, words in {
        "THE": "the the the my your our his her this that",
        "SOME": "some many few several",
        "MANY": "two three four five six seven eight nine ten",
        "PERSON": (
            "mother father sister brother friend doctor teacher driver farmer baker student neighbour child woman man "
            "girl boy captain nurse painter singer writer king queen guest uncle aunt cousin baby police judge soldier"
        ),
        "THEY": "we they you i people children friends neighbours parents students",
        "DOES": (
            "finds keeps brings takes makes sees likes wants needs buys sells opens cleans carries paints moves holds "
            "loses fixes follows hears knows watches washes breaks builds"
        ),
        "DO": (
            "find keep bring take make see like want need buy sell open clean carry paint move hold lose fix follow "
            "hear know watch wash break build"
        ),
        "DID": (
            "found kept brought took made saw liked wanted needed bought sold opened cleaned carried painted moved held "
            "lost fixed followed heard knew watched washed broke built"
        ),
        "WILL": "will can must should could would may might",
        "THING": (
            "book house table window door chair car boat train bread apple coffee water milk butter paper letter picture "
            "mirror garden flower tree horse dog cat bird fish shirt coat hat shoe bag box key clock lamp phone camera "
            "computer radio piano guitar ball knife spoon plate cup bottle basket bicycle wheel stone wall roof floor "
            "bed pillow blanket candle ticket map newspaper medicine umbrella ring button bridge road river mountain"
        ),
        "THINGS": (
            "books houses tables windows doors chairs cars boats apples letters pictures flowers trees horses dogs cats "
            "birds shirts coats shoes bags boxes keys lamps cups bottles tickets maps rings buttons stones plates"
        ),
        "HOW": (
            "old new big small red blue green white black yellow brown heavy light warm cold clean dirty beautiful cheap "
            "expensive broken empty full quiet loud soft hard round long short strange simple famous favourite"
        ),
        "FEELING": "happy sad tired hungry angry ready busy late early sick alone afraid sure lucky thirsty quiet",
        "WHERE": "in on under near behind beside",
        "PLACE": (
            "kitchen school office hospital station market church museum library park street village city forest beach "
            "island harbour airport hotel restaurant shop bank factory theatre field valley bathroom corner"
        ),
        "WHEN": "today tomorrow yesterday tonight sometimes always never often again later soon now",
        "DAY": "monday tuesday wednesday thursday friday saturday sunday morning evening afternoon summer winter",
        "ASK": "where when why how",
        "GO": "go walk run drive come return travel wait sleep work play dance sing swim stay meet",
        "WEATHER": "rain snow thunder wind sun fog",
        "FALL": "rain snow",
    }.items()
}

PATTERNS: tuple[str, ...] = (
    "THE PERSON DID THE HOW THING",
    "THE PERSON DOES THE THING WHERE THE PLACE",
    "THEY DO THE THING WHERE THE PLACE",
    "THEY WILL DO THE HOW THING WHEN",
    "THE PERSON WILL GO WHERE THE PLACE",
    "ASK did THE PERSON DO THE THING",
    "ASK is THE HOW THING",
    "there are MANY HOW THINGS WHERE THE PLACE",
    "there is a THING WHERE THE PLACE",
    "i am very FEELING WHEN",
    "THE PERSON was FEELING on DAY",
    "can you DO THE THING for me please",
    "they DID SOME THINGS and a THING",
    "THE THING is HOW and HOW",
    "this is not THE HOW THING",
    "do you like HOW THINGS",
    "THEY GO WHERE THE PLACE WHEN",
    "please DO THE THING WHERE THE PLACE",
    "the WEATHER was HOW on DAY",
    "THE PERSON and THE PERSON GO WHEN",
    "they want to GO WHERE THE PLACE",
    "it WILL FALL on DAY",
    "thank you for THE HOW THING",
    "she said that THE THING was HOW",
    "he does not DO THE THING",
    "MANY THINGS and MANY THINGS",
)

VOCABULARY: tuple[str, ...] = tuple(
    sorted(
        {
            word
            for pattern in PATTERNS
            for token in pattern.split()
            for word in WORD_CLASSES.get(token, (token,))
        }
    )
)


def random_phrase(rng: np.random.Generator) -> Sentence:
    """Draw a pattern, and a word for each word class in it."""
    pattern = PATTERNS[int(rng.integers(len(PATTERNS)))].split()
    choices = (WORD_CLASSES.get(token, (token,)) for token in pattern)
    return tuple(words[int(rng.integers(len(words)))] for words in choices)
