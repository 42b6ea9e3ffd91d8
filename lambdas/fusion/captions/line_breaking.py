"""Where text breaks: what it costs to break between two words, and the best lines for one caption.

Punctuation and pauses are good places in every language; conjunctions, prepositions, articles and auxiliaries are
known for English only. Source: the Netflix and BBC guides (see ``rules``): break after punctuation, before conjunctions
and prepositions; not between article and noun, auxiliary and verb, subject pronoun and verb.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gorggle_lambdas.fusion.captions.rules import CaptionRules
from gorggle_lambdas.fusion.captions.text_width import display_width

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
# What a line that is empty beside a full one costs.
IMBALANCE = 4.0
# A rest of so long is heard as a pause.
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
# Their full stop ends no sentence.
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
        gap: what stands between it and the token before: a space or nothing.
        is_label: whether it names the speaker.
        is_inside: whether it goes on with the word of the token before.
    """

    text: str
    start_ms: int
    end_ms: int
    gap: str = " "
    is_label: bool = False
    is_inside: bool = False


def compute_break_cost(before: Token, after: Token) -> float:
    """What it costs to break between two tokens: 0 at the end of a sentence, most between a number and its noun."""
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
    """Whether a break between two words would part a number from what it counts."""
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
    """Tokens as one line."""
    return "".join(token.text if at == 0 else token.gap + token.text for at, token in enumerate(tokens))


class LineBreaker:
    """Lines of any stretch of some tokens. Widths and costs are counted once for all stretches."""

    def __init__(self, tokens: Sequence[Token], rules: CaptionRules) -> None:
        self.tokens = tokens
        self._rules = rules
        self._ends = [0]
        for token in tokens:
            self._ends.append(self._ends[-1] + len(token.gap) + display_width(token.text))
        # Cost of a break before each token, and how many sentences ended before each.
        self.costs = [0.0] + [compute_break_cost(one, other) for one, other in itertools.pairwise(tokens)]
        ends = [_ends_sentence(token.text) for token in tokens]
        self.sentence_ends = list(itertools.accumulate(ends, initial=0))

    def columns(self, first: int, last: int) -> int:
        """Width of tokens ``first`` to before ``last`` on one line."""
        return self._ends[last] - self._ends[first] - len(self.tokens[first].gap)

    def find_breaks(
        self, first: int, last: int, lines: int | None = None
    ) -> tuple[float, tuple[int, ...]] | None:
        """The cheapest breaks for a stretch, as cost and the index of each line's first token; None if it has no room.

        One line is taken wherever it suffices.
        """
        lines = self._rules.max_lines if lines is None else lines
        if self.columns(first, last) <= self._rules.max_line_chars:
            return 0.0, (first,)
        if lines == 1:
            return None
        found: tuple[float, tuple[int, ...]] | None = None
        for cut in range(last - 1, first, -1):
            if lines == 2 and self.columns(cut, last) > self._rules.max_line_chars:
                break
            if self.columns(first, cut) > self._rules.max_line_chars:
                continue
            rest = self.find_breaks(cut, last, lines - 1)
            if rest is None:
                continue
            apart = abs(self.columns(first, cut) - self.columns(cut, last) / len(rest[1]))
            cost = self.costs[cut] + rest[0] + IMBALANCE * apart / self._rules.max_line_chars
            if found is None or cost < found[0]:
                found = cost, (first, *rest[1])
        return found

    def format_lines(self, first: int, last: int) -> tuple[str, ...]:
        """The lines of a stretch that has room."""
        found = self.find_breaks(first, last)
        assert found is not None, "only stretches with room become captions"
        starts = [*found[1], last]
        return tuple(join_tokens(self.tokens[a:b]) for a, b in itertools.pairwise(starts))
