"""A user's corrections of a result: texts, speakers, names of people, deleted segments.

A correction replaces a segment's text. Unchanged words keep their times and sources; new words share the time of the
words they replace.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

MAX_TEXT_CHARS = 5000
MAX_NAME_CHARS = 100
# Source of a corrected word.
CORRECTION_SOURCE = "correction"
# Duration of a word inserted where no time is free.
MIN_WORD_S = 0.04


class CorrectionError(ValueError):
    """A correction is invalid; the message says which and why."""


@dataclass(frozen=True)
class SegmentCorrection:
    """Changes of one segment; None leaves the field unchanged."""

    id: str
    text: str | None = None
    person: str | None = None
    is_deleted: bool = False


@dataclass(frozen=True)
class Corrections:
    """Changes of a result.

    Attributes:
        segments: changes of segments.
        names: names to assign to people, by their names in the result ("person-1").
    """

    segments: tuple[SegmentCorrection, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)


def parse_corrections(document: Mapping[str, Any]) -> Corrections:
    """Parse ``{"segments": [{"id", "text", "person", "delete"}], "names": {"person-1": "Anna"}}``.

    Raises:
        CorrectionError: the document is invalid.
    """
    unknown = sorted(set(document) - {"segments", "names", "base_version"})
    if unknown:
        raise CorrectionError(
            f"the corrections have {', '.join(unknown)}: known are segments, names, base_version"
        )
    segments = document.get("segments", [])
    if not isinstance(segments, list):
        raise CorrectionError("segments is not an array")
    corrections = tuple(_parse_segment(item, index) for index, item in enumerate(segments))
    if len({correction.id for correction in corrections}) < len(corrections):
        raise CorrectionError("a segment is corrected twice: send one correction per segment")
    return Corrections(corrections, _parse_names(document.get("names", {})))


def apply_corrections(document: Mapping[str, Any], corrections: Corrections) -> dict[str, Any]:
    """Return a corrected copy of a result.

    Raises:
        CorrectionError: a segment or person does not exist, or a text would be empty.
    """
    result = copy.deepcopy(dict(document))
    people = {person["name"] for person in result["people"]}
    for name in [
        *corrections.names,
        *(correction.person for correction in corrections.segments if correction.person),
    ]:
        if name not in people:
            raise CorrectionError(f"there is no person {name!r}; the result has {', '.join(sorted(people))}")
    by_id = {segment["id"]: segment for segment in result["segments"]}
    for correction in corrections.segments:
        if correction.id not in by_id:
            raise CorrectionError(f"there is no segment {correction.id!r}")
        if correction.is_deleted:
            result["segments"].remove(by_id[correction.id])
            continue
        if correction.person is not None:
            by_id[correction.id]["person"] = correction.person
        if correction.text is not None:
            _replace_text(by_id[correction.id], correction.text)
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
    """Return the time of the replaced words; for an insertion, the pause between its neighbours."""
    if last > first:
        return old[first]["start_s"], old[last - 1]["end_s"]
    start_s = old[first - 1]["end_s"] if first else segment["start_s"]
    end_s = old[first]["start_s"] if first < len(old) else segment["end_s"]
    return start_s, max(start_s, end_s)


def _distribute_words(texts: Sequence[str], start_s: float, end_s: float) -> list[dict[str, Any]]:
    """Return consecutive words with durations proportional to their lengths."""
    letters = sum(map(len, texts))
    words, time_s = [], start_s
    for text in texts:
        word_end_s = time_s + (end_s - start_s) * len(text) / letters
        words.append(
            {
                "text": text,
                "start_s": round(time_s, 3),
                "end_s": round(word_end_s, 3),
                "confidence": 1.0,
                "source": CORRECTION_SOURCE,
                "alternatives": [],
            }
        )
        time_s = word_end_s
    return words


def _enforce_min_durations(words: list[dict[str, Any]]) -> None:
    """Extend words that are too short at the expense of their neighbours, without overlaps."""
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
    location = f"segments[{index}]"
    if not isinstance(item, dict):
        raise CorrectionError(f"{location} is not an object")
    unknown = sorted(set(item) - {"id", "text", "person", "delete"})
    if unknown or not isinstance(item.get("id"), str):
        raise CorrectionError(
            f"{location}: expected id, and text, person or delete; found {', '.join(sorted(item))}"
        )
    text = item.get("text")
    if text is not None and not (isinstance(text, str) and 0 < len(text.strip()) <= MAX_TEXT_CHARS):
        raise CorrectionError(
            f"{location}.text: expected 1 to {MAX_TEXT_CHARS} characters; delete it with delete: true"
        )
    person = item.get("person")
    if person is not None and not isinstance(person, str):
        raise CorrectionError(f"{location}.person: expected the name of a person in the result")
    return SegmentCorrection(item["id"], text, person, item.get("delete") is True)


def _parse_names(names: Any) -> dict[str, str]:
    if not isinstance(names, dict):
        raise CorrectionError("names is not an object")
    for person, name in names.items():
        if not (isinstance(name, str) and 0 < len(name.strip()) <= MAX_NAME_CHARS):
            raise CorrectionError(f"names.{person}: expected 1 to {MAX_NAME_CHARS} characters")
    return {person: " ".join(name.split()) for person, name in names.items()}
