"""Speech cut into captions, and the time that each is shown.

Cuts: for each segment the cheapest way through all places where it could be cut (dynamic programming). A caption never
holds two people's words. Times: one caption at a time, since players show overlapping ones badly.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gorggle_lambdas.fusion.captions.line_breaking import LineBreaker, Token
from gorggle_lambdas.fusion.captions.rules import CaptionRules, Cue
from gorggle_lambdas.fusion.captions.text_width import clean_text, display_width, split_word
from gorggle_lambdas.fusion.result import FusedSegment
from gorggle_lambdas.fusion.text_normalization import find_separator

# What a caption costs in itself: fewer, fuller ones read better.
CAPTION_COST = 6.0
# A caption's end weighs more than the end of a line.
END_WEIGHT = 2.0
# What a sentence costs that ends within a caption: one sentence a caption is best, short ones may share.
INNER_SENTENCE_END_COST = 4.0
# What a caption costs that the next one follows before it could be read at all.
TOO_SHORT_COST = 15.0
# Longer names are cut in labels.
MAX_LABEL_CHARS = 20
# A caption never holds more tokens: bounds the work for tokens without width.
MAX_TOKENS = 200


@dataclass(frozen=True, slots=True)
class _Draft:
    """A caption whose text is settled; its times are those of the speech."""

    start_ms: int
    end_ms: int
    speaker: str
    lines: tuple[str, ...]

    @property
    def columns(self) -> int:
        return sum(map(display_width, self.lines))


def build_cues(
    segments: Sequence[FusedSegment],
    rules: CaptionRules | None = None,
    names: Mapping[str, str] | None = None,
    *,
    label_speakers: bool = False,
) -> tuple[Cue, ...]:
    """Make captions of what was said.

    Args:
        segments: by start.
        rules: the measures to keep.
        names: what to call people; "person-1" and so on otherwise.
        label_speakers: whether the text itself names the speaker where the speaker changes, for formats that have no other
            place for it. Not done where one person alone speaks.

    Returns:
        Captions by time. They keep every rule that ``check_captions`` knows.
    """
    rules = rules or CaptionRules()
    called = {s.person: clean_text((names or {}).get(s.person, s.person)) for s in segments}
    several = len(called) > 1
    drafts: list[_Draft] = []
    before = ""
    for at, segment in enumerate(segments):
        labels = "none"
        if label_speakers and several:
            labels = (
                "all" if _is_interrupted(segments, at) else "first" if segment.person != before else "none"
            )
        drafts += _draft_captions(segment, called[segment.person], labels, rules)
        before = segment.person
    drafts.sort(key=lambda draft: draft.start_ms)
    return tuple(_assign_times(drafts, rules))


def _is_interrupted(segments: Sequence[FusedSegment], at: int) -> bool:
    """Whether somebody else speaks during a segment: then its captions may stand between that person's."""
    this = segments[at]
    near = [*segments[max(0, at - 8) : at], *segments[at + 1 : at + 9]]
    return any(s.person != this.person and s.start_s < this.end_s and this.start_s < s.end_s for s in near)


def _draft_captions(segment: FusedSegment, name: str, labels: str, rules: CaptionRules) -> Iterator[_Draft]:
    tokens = _tokenize(segment, rules)
    label = _format_label(name, rules) if labels != "none" else ""
    at = 0
    while at < len(tokens):
        rest = tokens[at:]
        shown = [Token(label, rest[0].start_ms, rest[0].start_ms, is_label=True), *rest] if label else rest
        lines = LineBreaker(shown, rules)
        if label and lines.find_breaks(0, 2) is None:
            # Only with captions of one line: there is no room for a label.
            label = ""
            continue
        cuts = _find_cuts(lines, rules)
        for first, last in itertools.pairwise(cuts):
            spoken = [token for token in shown[first:last] if not token.is_label]
            yield _Draft(spoken[0].start_ms, spoken[-1].end_ms, name, lines.format_lines(first, last))
            at += len(spoken)
            if label:
                # What follows is cut anew: with the label once more, or without.
                label = label if labels == "all" else ""
                break


def _format_label(name: str, rules: CaptionRules) -> str:
    most = min(MAX_LABEL_CHARS, rules.max_line_chars // 2) - 1
    first = next(split_word(name.replace(" ", "\u00a0"), most), "")
    return f"{first.rstrip()}:" if first else ""


def _find_cuts(lines: LineBreaker, rules: CaptionRules) -> list[int]:
    """Where captions begin, and the end: the cheapest way to cut all tokens."""
    tokens = lines.tokens
    cheapest: list[float] = [0.0] + [float("inf")] * len(tokens)
    came_from = [0] * (len(tokens) + 1)
    for first in range(len(tokens)):
        for last in range(first + 1, min(len(tokens), first + MAX_TOKENS) + 1):
            if all(token.is_label for token in tokens[first:last]):
                continue
            layout = lines.find_breaks(first, last)
            spoken_ms = tokens[last - 1].end_ms - tokens[first].start_ms
            alone = last - first == 1 + tokens[first].is_label
            if layout is None or (spoken_ms > rules.max_duration_ms and not alone):
                break
            within = INNER_SENTENCE_END_COST * (lines.sentence_ends[last - 1] - lines.sentence_ends[first])
            cost = cheapest[first] + CAPTION_COST + layout[0] + within
            if last < len(tokens):
                shown_ms = tokens[last].start_ms - tokens[first].start_ms - rules.min_gap_ms
                cost += END_WEIGHT * lines.costs[last]
                cost += TOO_SHORT_COST if shown_ms < rules.min_duration_ms else 0.0
            if cost < cheapest[last]:
                cheapest[last], came_from[last] = cost, first
    cuts = [len(tokens)]
    while cuts[-1]:
        cuts.append(came_from[cuts[-1]])
    return cuts[::-1]


def _tokenize(segment: FusedSegment, rules: CaptionRules) -> list[Token]:
    """A segment's words as tokens; words that fit on no line are cut, and time goes by width."""
    tokens: list[Token] = []
    for word in segment.words:
        start_ms, end_ms = round(word.start_s * 1000), round(word.end_s * 1000)
        parts = [
            (piece, " " if number == 0 else "")
            for text in clean_text(word.text).split()
            for number, piece in enumerate(split_word(text, rules.max_line_chars))
        ]
        total, done = max(1, sum(display_width(piece) for piece, _ in parts)), 0
        for number, (piece, gap) in enumerate(parts):
            from_ms = start_ms + (end_ms - start_ms) * done // total
            done += display_width(piece)
            if number == 0 and tokens:
                gap = find_separator(tokens[-1].text, piece)
            to_ms = start_ms + (end_ms - start_ms) * done // total
            tokens.append(Token(piece, from_ms, to_ms, gap, is_inside=number > 0 and not gap))
    return tokens


def _assign_times(drafts: Sequence[_Draft], rules: CaptionRules) -> Iterator[Cue]:
    """Give every caption its time: it comes with the speech, stays until it is read where there is room, then goes.

    Where the next one is due too soon, a caption stays its least time all the same, and the next one comes late. Where
    two people talk at once, the first one's caption stays until it is read, at most ``max_delay_ms`` into the other's.
    """
    free_ms = 0
    for draft, following in itertools.zip_longest(drafts, drafts[1:]):
        start_ms = max(draft.start_ms, free_ms)
        least_ms, read_ms = start_ms + rules.min_duration_ms, start_ms + rules.min_reading_ms(draft.columns)
        end_ms = min(max(draft.end_ms, least_ms, read_ms), start_ms + rules.max_duration_ms)
        if following is not None:
            due_ms = following.start_ms - rules.min_gap_ms
            if draft.end_ms > following.start_ms:
                due_ms = max(due_ms, min(read_ms, due_ms + rules.max_delay_ms))
            end_ms = min(end_ms, max(due_ms, least_ms))
        yield Cue(start_ms, end_ms, draft.speaker, draft.lines)
        free_ms = end_ms + rules.min_gap_ms
