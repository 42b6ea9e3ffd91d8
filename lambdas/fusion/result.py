"""The result of fusion and its JSON form, which ``result.schema.json`` describes.

Times are rounded to the millisecond, confidences to four decimals; both stay floats (a database makes of them what it
needs).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gorggle_lambdas.fusion.speaker_identity import Person
from gorggle_lambdas.fusion.text_normalization import joined
from gorggle_lambdas.fusion.types import FaceBox, Media, Model, NoiseStretch, SourceFailure, SourceName
from gorggle_lambdas.fusion.word_voting import FusedWord, OtherReading, RejectedWord

SCHEMA_VERSION = "1.1"

Status = Literal["used", "partial", "failed", "absent"]
"""``partial``: used, but it failed in stretches. ``absent``: it was not asked for, or the media has no such stream."""


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What became of one source."""

    name: SourceName
    status: Status
    engine: str
    failures: tuple[SourceFailure, ...]


@dataclass(frozen=True, slots=True)
class FusedSegment:
    """What one person said in one stretch; its words are in order of time and do not overlap."""

    person: str
    words: tuple[FusedWord, ...]

    @property
    def start_s(self) -> float:
        """When its first word begins."""
        return self.words[0].start_s

    @property
    def end_s(self) -> float:
        """When its last word ends."""
        return self.words[-1].end_s

    @property
    def text(self) -> str:
        """Its words as one text."""
        return joined(word.text for word in self.words)

    @property
    def confidence(self) -> float:
        """The mean of its words'."""
        return sum(word.confidence for word in self.words) / len(self.words)


@dataclass(frozen=True, slots=True)
class Result:
    """Who said what, word by word, from the lips, the sound, or both."""

    media: Media
    language: str
    model: Model | None
    sources: tuple[SourceReport, ...]
    noise: tuple[NoiseStretch, ...]
    people: tuple[Person, ...]
    segments: tuple[FusedSegment, ...]
    omissions: tuple[RejectedWord, ...]

    @property
    def is_degraded(self) -> bool:
        """Whether a source failed, wholly or in part."""
        return any(report.failures for report in self.sources)

    def to_document(self) -> dict[str, Any]:
        """The result as JSON's types."""
        return {
            "schema_version": SCHEMA_VERSION,
            "media": _media(self.media),
            "language": self.language,
            "model": _model(self.model),
            "is_degraded": self.is_degraded,
            "sources": {report.name: _source(report) for report in self.sources},
            "noise": [
                {**_times(stretch.start_s, stretch.end_s), "snr_db": round(stretch.snr_db, 2)}
                for stretch in self.noise
            ],
            "people": [_person(person) for person in self.people],
            "segments": [_segment(number, segment) for number, segment in enumerate(self.segments, 1)],
            "faces": [
                {"person": person.name, "boxes": [_box(box) for box in person.boxes]}
                for person in self.people
                if person.boxes
            ],
            "omissions": [
                {**_reading(omission.reading), "person": omission.person, "reason": omission.reason}
                for omission in self.omissions
            ],
        }

    def to_json(self, indent: int | None = None) -> str:
        """The result as a JSON text."""
        return json.dumps(self.to_document(), ensure_ascii=False, allow_nan=False, indent=indent)


def result_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of ``Result.to_document``."""
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("result.schema.json").read_text("utf-8"))
    return schema


def _times(start_s: float, end_s: float) -> dict[str, float]:
    return {"start_s": _seconds(start_s), "end_s": _seconds(end_s)}


def _seconds(time_s: float) -> float:
    return round(float(time_s), 3)


def _share(confidence: float) -> float:
    return round(float(confidence), 4)


def _media(media: Media) -> dict[str, Any]:
    return {
        "name": media.name,
        "duration_s": _seconds(media.duration_s),
        "width_px": media.width_px,
        "height_px": media.height_px,
        "frame_rate_hz": float(media.frame_rate_hz),
        "video_codec": media.video_codec,
        "audio_codec": media.audio_codec,
    }


def _model(model: Model | None) -> dict[str, Any] | None:
    if model is None:
        return None
    licence = {"name": model.licence, "summary": model.licence_summary, "url": model.licence_url}
    return {"name": model.name, "licence": licence}


def _source(report: SourceReport) -> dict[str, Any]:
    return {
        "status": report.status,
        "engine": report.engine,
        "failures": [
            {"reason": failure.reason}
            if failure.start_s is None or failure.end_s is None
            else {"reason": failure.reason, **_times(failure.start_s, failure.end_s)}
            for failure in report.failures
        ],
    }


def _person(person: Person) -> dict[str, Any]:
    return {
        "name": person.name,
        "first_s": _seconds(person.first_s),
        "voices": list(person.voices),
        "faces": [*person.lips, *person.tracks],
    }


def _segment(number: int, segment: FusedSegment) -> dict[str, Any]:
    return {
        "id": f"segment-{number}",
        "person": segment.person,
        **_times(segment.start_s, segment.end_s),
        "text": segment.text,
        "confidence": _share(segment.confidence),
        "words": [_word(word) for word in segment.words],
    }


def _word(word: FusedWord) -> dict[str, Any]:
    return {
        "text": word.text,
        **_times(word.start_s, word.end_s),
        "confidence": _share(word.confidence),
        "source": word.source,
        "alternatives": _readings(word.alternatives),
    }


def _readings(readings: Sequence[OtherReading]) -> list[dict[str, Any]]:
    return [_reading(reading) for reading in readings]


def _reading(reading: OtherReading) -> dict[str, Any]:
    return {
        "text": reading.text,
        **_times(reading.start_s, reading.end_s),
        "confidence": _share(reading.confidence),
        "source": reading.source,
    }


def _box(box: FaceBox) -> dict[str, float]:
    sides = {name: round(float(getattr(box, name)), 4) for name in ("left", "top", "width", "height")}
    return {"time_s": _seconds(box.time_s), **sides}
