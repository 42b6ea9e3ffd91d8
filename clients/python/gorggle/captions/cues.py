"""Splits segments into captions and assigns their times.

Splits minimise a cost over all possible positions in a segment (dynamic programming). A caption never holds two
speakers' words. Captions never overlap in time, since players show overlapping ones badly.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from gorggle.captions.line_breaking import LineBreaker, Token
from gorggle.captions.rules import CaptionRules, Cue, SpokenSegment, SpokenWord
from gorggle.captions.text import clean_text, display_width, find_separator, split_word

# The server's label of speakers without a face.
VOICE_LABEL = "voice"
# Precedes words that are probably wrong.
DOUBTFUL_MARK = "(?)"
# Cost of each caption: fewer, fuller captions read better.
CAPTION_COST = 6.0
# The end of a caption weighs more than the end of a line.
END_WEIGHT = 2.0
# Cost of a sentence that ends inside a caption: one sentence per caption is best, short ones may share.
INNER_SENTENCE_END_COST = 4.0
# Cost of a caption whose successor starts before it could be read.
TOO_SHORT_COST = 15.0
# Longer names are cut in labels.
MAX_LABEL_CHARS = 20
# Bounds the work for tokens without width.
MAX_TOKENS_PER_CAPTION = 200
# Neighbouring segments searched for overlapping speech.
MAX_OVERLAPPING_NEIGHBOURS = 8

_NUMBERED_SPEAKER = re.compile(r"(?:face|person)-(\d+)")


def display_name(speaker: str, names: Mapping[str, str] | None = None) -> str:
    """Return the name shown for a speaker label.

    That is the name in ``names``; else "Person 2" for "face-2" (server) and "person-2" (pipeline), "Voice" for "voice",
    and any other label itself.
    """
    if names is not None and speaker in names:
        return clean_text(names[speaker])
    if speaker == VOICE_LABEL:
        return "Voice"
    return _NUMBERED_SPEAKER.sub(r"Person \1", clean_text(speaker))


def build_cues(
    segments: Iterable[SpokenSegment],
    rules: CaptionRules | None = None,
    names: Mapping[str, str] | None = None,
    *,
    label_speakers: bool = False,
) -> tuple[Cue, ...]:
    """Make captions of segments.

    Args:
        segments: in any order; segments without text are ignored.
        rules: limits of the captions.
        names: displayed names by speaker label; see ``display_name``.
        label_speakers: prefix the text with the speaker's name where the speaker changes, for formats without a speaker
            field. Has no effect where only one speaker talks.

    Returns:
        Captions by time. They pass ``check_captions``.
    """
    rules = rules or CaptionRules()
    spoken = sorted((s for s in segments if _get_words(s)), key=lambda s: s.start_s)
    shown = {s.speaker: display_name(s.speaker, names) for s in spoken}
    drafts: list[Cue] = []
    previous = ""
    for index, segment in enumerate(spoken):
        labels = "none"
        if label_speakers and len(shown) > 1:
            if _has_overlap(spoken, index):
                labels = "all"
            elif segment.speaker != previous:
                labels = "first"
        drafts += _draft_captions(segment, shown[segment.speaker], labels, rules)
        previous = segment.speaker
    drafts.sort(key=lambda draft: draft.start_ms)
    return tuple(_assign_times(drafts, rules))


def _get_words(segment: SpokenSegment) -> Sequence[SpokenWord]:
    """Return the words that have visible text; without any, the segment itself as one word."""
    words = [word for word in segment.words if clean_text(word.text)]
    return words or ([segment] if clean_text(segment.text) else [])


def _has_overlap(segments: Sequence[SpokenSegment], index: int) -> bool:
    """Whether another speaker talks during a segment, so that captions of both may alternate."""
    this = segments[index]
    near = segments[max(0, index - MAX_OVERLAPPING_NEIGHBOURS) : index + MAX_OVERLAPPING_NEIGHBOURS + 1]
    return any(s.speaker != this.speaker and s.start_s < this.end_s and this.start_s < s.end_s for s in near)


def _draft_captions(segment: SpokenSegment, name: str, labels: str, rules: CaptionRules) -> Iterator[Cue]:
    """Yield captions with the times of the speech."""
    tokens = _tokenize(segment, rules)
    mark = DOUBTFUL_MARK if segment.is_doubtful else ""
    label = "\u00a0".join(filter(None, (_format_label(name, rules) if labels != "none" else "", mark)))
    start = 0
    while start < len(tokens):
        rest = tokens[start:]
        shown = [Token(label, rest[0].start_ms, rest[0].start_ms, is_label=True), *rest] if label else rest
        lines = LineBreaker(shown, rules)
        if label and lines.find_breaks(0, 2) is None:
            # Happens only for captions of one line: there is no room for a label.
            label = ""
            continue
        for first, last in itertools.pairwise(_find_cuts(lines, rules)):
            spoken = [token for token in shown[first:last] if not token.is_label]
            yield Cue(spoken[0].start_ms, spoken[-1].end_ms, name, lines.format_lines(first, last))
            start += len(spoken)
            if label:
                # The rest is split again, with the label once more or without the name.
                label = label if labels == "all" else mark
                break


def _format_label(name: str, rules: CaptionRules) -> str:
    max_columns = min(MAX_LABEL_CHARS, rules.max_line_chars // 2) - 1
    first = next(split_word(name.replace(" ", "\u00a0"), max_columns), "")
    return f"{first.rstrip()}:" if first else ""


def _find_cuts(lines: LineBreaker, rules: CaptionRules) -> list[int]:
    """Return the index of each caption's first token, and the end, with the lowest total cost."""
    tokens = lines.tokens
    cheapest: list[float] = [0.0] + [float("inf")] * len(tokens)
    came_from = [0] * (len(tokens) + 1)
    for first in range(len(tokens)):
        for last in range(first + 1, min(len(tokens), first + MAX_TOKENS_PER_CAPTION) + 1):
            if all(token.is_label for token in tokens[first:last]):
                continue
            layout = lines.find_breaks(first, last)
            spoken_ms = tokens[last - 1].end_ms - tokens[first].start_ms
            is_single = last - first == 1 + tokens[first].is_label
            if layout is None or (spoken_ms > rules.max_duration_ms and not is_single):
                break
            inner_ends = lines.sentence_ends[last - 1] - lines.sentence_ends[first]
            cost = cheapest[first] + CAPTION_COST + layout[0] + INNER_SENTENCE_END_COST * inner_ends
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


def _tokenize(segment: SpokenSegment, rules: CaptionRules) -> list[Token]:
    """Return a segment's words as tokens whose times never decrease.

    Words that are too long for a line are split; time is divided by display width.
    """
    tokens: list[Token] = []
    previous_end_ms = 0
    for word in _get_words(segment):
        start_ms = max(previous_end_ms, round(word.start_s * 1000))
        end_ms = previous_end_ms = max(start_ms, round(word.end_s * 1000))
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


def _assign_times(drafts: Sequence[Cue], rules: CaptionRules) -> Iterator[Cue]:
    """Give every caption its time: from the start of the speech until it can be read, where there is room.

    A caption keeps its minimum duration even where the next one is due earlier; that one then starts late. Where two
    speakers overlap, the first caption stays until it can be read, at most ``max_delay_ms`` into the other's speech.
    """
    free_ms = 0
    for draft, following in itertools.zip_longest(drafts, drafts[1:]):
        start_ms = max(draft.start_ms, free_ms)
        min_end_ms = start_ms + rules.min_duration_ms
        read_ms = start_ms + rules.min_reading_ms(draft.columns)
        end_ms = min(max(draft.end_ms, min_end_ms, read_ms), start_ms + rules.max_duration_ms)
        if following is not None:
            due_ms = following.start_ms - rules.min_gap_ms
            if draft.end_ms > following.start_ms:
                due_ms = max(due_ms, min(read_ms, due_ms + rules.max_delay_ms))
            end_ms = min(end_ms, max(due_ms, min_end_ms))
        yield Cue(start_ms, end_ms, draft.speaker, draft.lines)
        free_ms = end_ms + rules.min_gap_ms
