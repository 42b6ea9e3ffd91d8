"""A person's corrections to a result: other words, other speakers, names of people, segments that are none.

A correction says what a segment's text should be; the words that stay keep their times and sources, the others share
the time of what they replace.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

MAX_TEXT_CHARS = 5000
MAX_NAME_CHARS = 100
# A word that a person wrote.
CORRECTION_SOURCE = "correction"
# The time of a word that is put where no time is free.
MIN_WORD_S = 0.04


class CorrectionError(ValueError):
    """A correction that cannot be applied; the message says which and why."""


@dataclass(frozen=True)
class SegmentCorrection:
    """What to change in one segment; None leaves it."""

    id: str
    text: str | None = None
    person: str | None = None
    is_deleted: bool = False


@dataclass(frozen=True)
class Corrections:
    """What to change in a result.

    Attributes:
        segments: by segment.
        names: what to call people, by their names in the result ("person-1").
    """

    segments: tuple[SegmentCorrection, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)


def parse_corrections(document: Mapping[str, Any]) -> Corrections:
    """Read ``{"segments": [{"id", "text", "person", "delete"}], "names": {"person-1": "Anna"}}``.

    Raises:
        CorrectionError: it is something else.
    """
    unknown = sorted(set(document) - {"segments", "names", "base_version"})
    if unknown:
        raise CorrectionError(
            f"the corrections have {', '.join(unknown)}: known are segments, names, base_version"
        )
    segments = document.get("segments", [])
    if not isinstance(segments, list):
        raise CorrectionError("segments is no array")
    read = tuple(_parse_segment(item, index) for index, item in enumerate(segments))
    if len({one.id for one in read}) < len(read):
        raise CorrectionError("a segment is corrected twice: send one correction for each")
    return Corrections(read, _parse_names(document.get("names", {})))


def apply_corrections(document: Mapping[str, Any], corrections: Corrections) -> dict[str, Any]:
    """A result with its corrections.

    Raises:
        CorrectionError: there is no such segment or person, or nothing would be left of a text.
    """
    result = copy.deepcopy(dict(document))
    people = {person["name"] for person in result["people"]}
    for name in [*corrections.names, *(one.person for one in corrections.segments if one.person)]:
        if name not in people:
            raise CorrectionError(
                f"there is nobody called {name!r}: the result has {', '.join(sorted(people))}"
            )
    by_id = {segment["id"]: segment for segment in result["segments"]}
    for one in corrections.segments:
        if one.id not in by_id:
            raise CorrectionError(f"there is no segment {one.id!r}")
        if one.is_deleted:
            result["segments"].remove(by_id[one.id])
            continue
        if one.person is not None:
            by_id[one.id]["person"] = one.person
        if one.text is not None:
            _replace_text(by_id[one.id], one.text)
    names = {**result.get("names", {}), **corrections.names}
    if names:
        result["names"] = names
    return result


def _replace_text(segment: dict[str, Any], text: str) -> None:
    texts = text.split()
    old = segment["words"]
    words: list[dict[str, Any]] = []
    matcher = SequenceMatcher(None, [word["text"] for word in old], texts, autojunk=False)
    for kind, first, last, from_new, to_new in matcher.get_opcodes():
        if kind == "equal":
            words += old[first:last]
        elif to_new > from_new:
            start_s, end_s = _find_available_span(old, first, last, segment)
            words += _distribute_words(texts[from_new:to_new], start_s, end_s)
    _enforce_min_durations(words)
    segment["words"] = words
    segment["text"] = " ".join(word["text"] for word in words)
    segment["start_s"], segment["end_s"] = words[0]["start_s"], words[-1]["end_s"]
    segment["confidence"] = round(sum(word["confidence"] for word in words) / len(words), 4)


def _find_available_span(
    old: Sequence[Mapping[str, Any]], first: int, last: int, segment: Mapping[str, Any]
) -> tuple[float, float]:
    """The time of the words that are replaced; between two words, the pause that is there."""
    if last > first:
        return old[first]["start_s"], old[last - 1]["end_s"]
    start_s = old[first - 1]["end_s"] if first else segment["start_s"]
    end_s = old[first]["start_s"] if first < len(old) else segment["end_s"]
    return start_s, max(start_s, end_s)


def _distribute_words(texts: Sequence[str], start_s: float, end_s: float) -> list[dict[str, Any]]:
    """Words one after the other, each with time by its length."""
    letters = sum(map(len, texts))
    words, at_s = [], start_s
    for text in texts:
        until_s = at_s + (end_s - start_s) * len(text) / letters
        words.append(
            {
                "text": text,
                "start_s": round(at_s, 3),
                "end_s": round(until_s, 3),
                "confidence": 1.0,
                "source": CORRECTION_SOURCE,
                "alternatives": [],
            }
        )
        at_s = until_s
    return words


def _enforce_min_durations(words: list[dict[str, Any]]) -> None:
    """Give words that had no time a little of their neighbours', so that none overlaps and none is empty."""
    for index, word in enumerate(words):
        if word["end_s"] - word["start_s"] >= MIN_WORD_S:
            continue
        if index and words[index - 1]["end_s"] - words[index - 1]["start_s"] > 2 * MIN_WORD_S:
            word["start_s"] = round(word["end_s"] - MIN_WORD_S, 3)
            words[index - 1] = {**words[index - 1], "end_s": min(words[index - 1]["end_s"], word["start_s"])}
        else:
            word["end_s"] = round(word["start_s"] + MIN_WORD_S, 3)
            if index + 1 < len(words) and words[index + 1]["start_s"] < word["end_s"]:
                following = words[index + 1]
                words[index + 1] = {
                    **following,
                    "start_s": word["end_s"],
                    "end_s": max(following["end_s"], word["end_s"]),
                }


def _parse_segment(item: Any, index: int) -> SegmentCorrection:
    where = f"segments[{index}]"
    if not isinstance(item, dict):
        raise CorrectionError(f"{where} is no object")
    unknown = sorted(set(item) - {"id", "text", "person", "delete"})
    if unknown or not isinstance(item.get("id"), str):
        raise CorrectionError(
            f"{where}: expected id, and text, person or delete; found {', '.join(sorted(item))}"
        )
    text = item.get("text")
    if text is not None and not (isinstance(text, str) and 0 < len(text.strip()) <= MAX_TEXT_CHARS):
        raise CorrectionError(
            f"{where}.text: expected 1 to {MAX_TEXT_CHARS} characters; delete it with delete: true"
        )
    person = item.get("person")
    if person is not None and not isinstance(person, str):
        raise CorrectionError(f"{where}.person: expected the name of one of the result's people")
    return SegmentCorrection(item["id"], text, person, item.get("delete") is True)


def _parse_names(names: Any) -> dict[str, str]:
    if not isinstance(names, dict):
        raise CorrectionError("names is no object")
    for person, name in names.items():
        if not (isinstance(name, str) and 0 < len(name.strip()) <= MAX_NAME_CHARS):
            raise CorrectionError(f"names.{person}: expected 1 to {MAX_NAME_CHARS} characters")
    return {person: " ".join(name.split()) for person, name in names.items()}
