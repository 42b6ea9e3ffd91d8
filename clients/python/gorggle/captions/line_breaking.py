"""Line breaks: the cost of a break between two words, and the best lines of a caption.

Punctuation and pauses are used in every language; conjunctions, prepositions, articles and auxiliaries are known for
English only. Source: the Netflix and BBC guides (see ``rules``): break after punctuation and before conjunctions and
prepositions; do not separate article and noun, auxiliary and verb, subject pronoun and verb.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gorggle.captions.rules import CaptionRules
from gorggle.captions.text import display_width

SENTENCE_END = 0.0
CLAUSE_END = 1.0
PAUSE = 1.5
BEFORE_CONJUNCTION = 2.0
BEFORE_PREPOSITION = 3.0
ANYWHERE = 6.0
AFTER_BOUND_WORD = 12.0
INSIDE_WORD = 20.0
AFTER_LABEL = 50.0
NUMBER_AND_NOUN = 200.0
# Cost of an empty line next to a full one.
IMBALANCE = 4.0
# Silence of this length counts as a pause.
PAUSE_MS = 300


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SENTENCE_ENDS = tuple(".!?…。！？؟।")
_CLAUSE_ENDS = tuple(",;:—–、，；：،؛")
_CLOSERS = "\"'”’»)]』」）"
_CONJUNCTIONS = _word_set(
    "and but or nor so yet because although though while if unless until since when whereas that which who"
)
_PREPOSITIONS = _word_set(
    "about above across after against along among around as at before behind below beneath beside between "
    "beyond by despite down during except for from in inside into like near of off on onto out over past "
    "through to toward towards under up upon with within without"
)
# Their full stop does not end a sentence.
_TITLES = frozenset({"mr", "mrs", "ms", "dr", "prof", "st"})
_BOUND_WORDS = _TITLES | _word_set(
    "a an the this these those my your his her its our their some any no every each i you he she it we "
    "they am is are was were be been being do does did have has had will would shall should can could may "
    "might must not very don't doesn't didn't can't won't isn't aren't wasn't"
)
_NUMBER_WORDS = _word_set(
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand "
    "million billion"
)
_DIGITS = re.compile(r"[^\w\s]?\d(?:[\d.,:/]*\d)?(?:st|nd|rd|th|%)?\Z")


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text without spaces that fits on one line.

    Attributes:
        gap: separates it from the previous token: a space or nothing.
        is_label: it is the speaker's name.
        is_inside: it continues the word of the previous token.
    """

    text: str
    start_ms: int
    end_ms: int
    gap: str = " "
    is_label: bool = False
    is_inside: bool = False


def compute_break_cost(before: Token, after: Token) -> float:
    """Return the cost of a break between two tokens, from 0 (end of a sentence) to 200 (between number and noun)."""
    if before.is_label:
        return AFTER_LABEL
    if after.is_inside:
        return INSIDE_WORD
    if _ends_sentence(before.text):
        return SENTENCE_END
    if before.text.rstrip(_CLOSERS).endswith(_CLAUSE_ENDS):
        return CLAUSE_END
    if splits_number(before.text, after.text):
        return NUMBER_AND_NOUN
    cost = _compute_word_cost(_normalize(before.text), _normalize(after.text))
    return min(cost, PAUSE) if after.start_ms - before.end_ms >= PAUSE_MS else cost


def _ends_sentence(text: str) -> bool:
    return text.rstrip(_CLOSERS).endswith(_SENTENCE_ENDS) and _normalize(text) not in _TITLES


def splits_number(before: str, after: str) -> bool:
    """Whether a break between two words would separate a number from its noun."""
    word = _normalize(after)
    is_number = _DIGITS.match(before) is not None or before.lower() in _NUMBER_WORDS
    return is_number and after[:1].isalpha() and word not in _CONJUNCTIONS and word not in _PREPOSITIONS


def _compute_word_cost(before: str, after: str) -> float:
    if before in _BOUND_WORDS:
        return AFTER_BOUND_WORD
    if after in _CONJUNCTIONS:
        # "along and": the preposition was an adverb.
        return BEFORE_CONJUNCTION
    if before in _PREPOSITIONS or before in _CONJUNCTIONS:
        return AFTER_BOUND_WORD
    return BEFORE_PREPOSITION if after in _PREPOSITIONS else ANYWHERE


def _normalize(text: str) -> str:
    return text.lower().replace("’", "'").strip("\"'“”«»()[].,;:!?…")


def join_tokens(tokens: Sequence[Token]) -> str:
    """Return tokens as one line of text."""
    return "".join(token.text if index == 0 else token.gap + token.text for index, token in enumerate(tokens))


class LineBreaker:
    """Breaks any span of a token sequence into lines; widths and costs are computed once for all spans.

    Attributes:
        costs: cost of a break before each token.
        sentence_ends: number of sentences that end before each token.
    """

    def __init__(self, tokens: Sequence[Token], rules: CaptionRules) -> None:
        self.tokens = tokens
        self._rules = rules
        widths = (len(token.gap) + display_width(token.text) for token in tokens)
        self._ends = list(itertools.accumulate(widths, initial=0))
        self.costs = [0.0] + [compute_break_cost(one, other) for one, other in itertools.pairwise(tokens)]
        ends = [_ends_sentence(token.text) for token in tokens]
        self.sentence_ends = list(itertools.accumulate(ends, initial=0))

    def columns(self, first: int, last: int) -> int:
        """Return the width of tokens ``first`` to ``last`` (exclusive) on one line."""
        return self._ends[last] - self._ends[first] - len(self.tokens[first].gap)

    def find_breaks(
        self, first: int, last: int, max_lines: int | None = None
    ) -> tuple[float, tuple[int, ...]] | None:
        """Return the lowest cost and the index of each line's first token; None if the span does not fit.

        A span that fits on one line is not broken, nor are two lines that do.
        """
        max_lines = self._rules.max_lines if max_lines is None else max_lines
        max_columns = self._rules.max_line_chars
        if self.columns(first, last) <= max_columns:
            return 0.0, (first,)
        if max_lines == 1:
            return None
        best: tuple[float, tuple[int, ...]] | None = None
        for cut in range(last - 1, first, -1):
            if max_lines == 2 and self.columns(cut, last) > max_columns:
                break
            if self.columns(first, cut) > max_columns:
                continue
            rest = self.find_breaks(cut, last, max_lines - 1)
            if rest is None:
                continue
            next_cut = rest[1][1] if len(rest[1]) > 1 else last
            if self.columns(first, next_cut) <= max_columns:
                continue  # the first two lines fit on one
            imbalance = abs(self.columns(first, cut) - self.columns(cut, last) / len(rest[1]))
            cost = self.costs[cut] + rest[0] + IMBALANCE * imbalance / max_columns
            if best is None or cost < best[0]:
                best = cost, (first, *rest[1])
        return best

    def format_lines(self, first: int, last: int) -> tuple[str, ...]:
        """Return the lines of a span that fits."""
        best = self.find_breaks(first, last)
        assert best is not None, "only spans that fit become captions"
        return tuple(join_tokens(self.tokens[a:b]) for a, b in itertools.pairwise([*best[1], last]))
