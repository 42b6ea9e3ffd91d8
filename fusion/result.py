"""The result of fusion and its JSON form, described by ``result.schema.json``.

Times are rounded to milliseconds, confidences to four decimals.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from gorggle.captions.text import find_separator
from gorggle_fusion.speaker_identity import Person
from gorggle_fusion.types import FaceBox, Media, Model, NoiseSpan, SourceFailure, SourceName
from gorggle_fusion.word_voting import AlternativeWord, FusedWord, RejectedWord

SCHEMA_VERSION = "1.3"

Status = Literal["used", "partial", "failed", "absent"]
"""``partial``: used, but parts failed. ``absent``: not requested, or the media has no such stream."""


@dataclass(frozen=True, slots=True)
class SourceReport:
    """Status of one source, with its failures."""

    name: SourceName
    status: Status
    engine: str
    failures: tuple[SourceFailure, ...]


@dataclass(frozen=True, slots=True)
class FusedSegment:
    """Consecutive words of one person, sorted by time and without overlaps."""

    person: str
    words: tuple[FusedWord, ...]

    @property
    def start_s(self) -> float:
        """Start of the first word."""
        return self.words[0].start_s

    @property
    def end_s(self) -> float:
        """End of the last word."""
        return self.words[-1].end_s

    @property
    def text(self) -> str:
        """The words joined to one text."""
        return join_words(word.text for word in self.words)

    @property
    def confidence(self) -> float:
        """Mean confidence of the words."""
        return sum(word.confidence for word in self.words) / len(self.words)


@dataclass(frozen=True, slots=True)
class Result:
    """The fused transcript with speakers, sources and omitted words."""

    media: Media
    language: str
    model: Model | None
    sources: tuple[SourceReport, ...]
    noise: tuple[NoiseSpan, ...]
    people: tuple[Person, ...]
    segments: tuple[FusedSegment, ...]
    omissions: tuple[RejectedWord, ...]

    @property
    def is_degraded(self) -> bool:
        """Whether a source failed, completely or partly."""
        return any(report.failures for report in self.sources)

    def to_document(self) -> dict[str, Any]:
        """Return the result as JSON types."""
        return {
            "schema_version": SCHEMA_VERSION,
            "media": _to_media(self.media),
            "language": self.language,
            "model": _to_model(self.model),
            "is_degraded": self.is_degraded,
            "sources": {report.name: _to_source(report) for report in self.sources},
            "noise": [
                {**_to_times(span.start_s, span.end_s), "snr_db": round(span.snr_db, 2)}
                for span in self.noise
            ],
            "people": [_to_person(person) for person in self.people],
            "segments": [_to_segment(number, segment) for number, segment in enumerate(self.segments, 1)],
            "faces": [
                {"person": person.name, "boxes": [_to_box(box) for box in person.boxes]}
                for person in self.people
                if person.boxes
            ],
            "omissions": [
                {**_to_alternative(omission.word), "person": omission.person, "reason": omission.reason}
                for omission in self.omissions
            ],
        }


def load_result_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of ``Result.to_document``."""
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("result.schema.json").read_text("utf-8"))
    return schema


def _to_times(start_s: float, end_s: float) -> dict[str, float]:
    return {"start_s": _round_seconds(start_s), "end_s": _round_seconds(end_s)}


def _round_seconds(time_s: float) -> float:
    return round(float(time_s), 3)


def _round_confidence(confidence: float) -> float:
    return round(float(confidence), 4)


def _to_media(media: Media) -> dict[str, Any]:
    return asdict(media) | {
        "duration_s": _round_seconds(media.duration_s),
        "frame_rate_hz": float(media.frame_rate_hz),
    }


def _to_model(model: Model | None) -> dict[str, Any] | None:
    if model is None:
        return None
    licence = {"name": model.licence, "summary": model.licence_summary, "url": model.licence_url}
    return {"name": model.name, "licence": licence, "has_open_vocabulary": model.has_open_vocabulary}


def _to_source(report: SourceReport) -> dict[str, Any]:
    return {
        "status": report.status,
        "engine": report.engine,
        "failures": [
            {"reason": failure.reason}
            if failure.start_s is None or failure.end_s is None
            else {"reason": failure.reason, **_to_times(failure.start_s, failure.end_s)}
            for failure in report.failures
        ],
    }


def _to_person(person: Person) -> dict[str, Any]:
    return {
        "name": person.name,
        "first_s": _round_seconds(person.first_s),
        "voices": list(person.voices),
        "faces": [*person.lips, *person.tracks],
    }


def _to_segment(number: int, segment: FusedSegment) -> dict[str, Any]:
    return {
        "id": f"segment-{number}",
        "person": segment.person,
        **_to_times(segment.start_s, segment.end_s),
        "text": segment.text,
        "confidence": _round_confidence(segment.confidence),
        "words": [_to_word(word) for word in segment.words],
    }


def _to_word(word: FusedWord) -> dict[str, Any]:
    return {
        **_to_alternative(word),
        "alternatives": [_to_alternative(alternative) for alternative in word.alternatives],
        **({"is_doubtful": True} if word.is_doubtful else {}),
    }


def _to_alternative(alternative: AlternativeWord | FusedWord) -> dict[str, Any]:
    return {
        "text": alternative.text,
        **_to_times(alternative.start_s, alternative.end_s),
        "confidence": _round_confidence(alternative.confidence),
        "source": alternative.source,
    }


def _to_box(box: FaceBox) -> dict[str, float]:
    sides = {name: round(float(getattr(box, name)), 4) for name in ("left", "top", "width", "height")}
    return {"time_s": _round_seconds(box.time_s), **sides}


def join_words(texts: Iterable[str]) -> str:
    """Join words to one text, with spaces except in scripts that have none (Chinese, Japanese, Thai…)."""
    result = ""
    for text in texts:
        result += find_separator(result, text) + text
    return result
