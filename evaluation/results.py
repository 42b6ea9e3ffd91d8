"""From readings to figures, and the figures as JSON."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from gorggle_evaluation.conditions import Condition
from gorggle_evaluation.confusions import Confusions, confusions
from gorggle_evaluation.metrics import (
    Alignment,
    ErrorRate,
    Timed,
    TimeError,
    alignment,
    error_rate,
    time_error,
    time_offsets_s,
)
from gorggle_evaluation.speaker_attribution import Attribution, attribution
from gorggle_evaluation.transcriber import ClipResult
from gorggle_evaluation.visemes import Lexicon


@dataclass(frozen=True, eq=False)
class ConditionResult:
    """All figures of one condition.

    Attributes:
        words: a clip that failed counts with all its words deleted.
        groups: the same by group of clips, for clips that have one.
        times: of rightly read words whose times are known; None where there is none.
        time_offsets_s: (words, 2), how much later start and end of those words were read than they are.
        speakers: over clips with several named speakers, where faces were looked at; None where there is none.
        media_s: length of the clips that were read.
        elapsed_s: that reading them took, added up over clips, however many were read at once.
        failures: ids of clips that could not be read, and why.
        warnings: of the service, with the number of clips.
    """

    condition: Condition
    words: ErrorRate
    groups: dict[str, ErrorRate]
    times: TimeError | None
    time_offsets_s: NDArray[np.float64]
    speakers: Attribution | None
    confusions: Confusions
    media_s: float
    elapsed_s: float
    failures: dict[str, str]
    warnings: dict[str, int]

    @property
    def real_time_factor(self) -> float | None:
        """Time that reading took over the length of what was read; below 1 is faster than real time."""
        return self.elapsed_s / self.media_s if self.media_s else None


def condition_result(readings: Sequence[ClipResult], lexicon: Lexicon | None, seed: int) -> ConditionResult:
    """Compare the readings of one condition with what was said.

    Args:
        readings: of one condition, one a clip; at least one.
        lexicon: how words sound, for confusions of visemes.
        seed: of the resampling for intervals.
    """
    aligned = [alignment(reading.entry.texts, reading.texts) for reading in readings]
    timed = [
        pair for reading, found in zip(readings, aligned, strict=True) for pair in _timed(reading, found)
    ]
    read = [reading for reading in readings if reading.error is None]
    return ConditionResult(
        condition=readings[0].condition,
        words=error_rate(aligned, seed),
        groups=_by_group(readings, aligned, seed),
        times=time_error(timed),
        time_offsets_s=time_offsets_s(timed),
        speakers=Attribution.total(
            _attribution(reading, found)
            for reading, found in zip(readings, aligned, strict=True)
            if len(reading.entry.speakers) > 1 and reading.condition.modality != "audio"
        ),
        confusions=_confusions(readings, aligned, lexicon),
        media_s=sum(reading.duration_s for reading in read),
        elapsed_s=sum(reading.elapsed_s for reading in read),
        failures={r.entry.id: r.error for r in readings if r.error is not None},
        warnings=dict(Counter(warning for reading in readings for warning in set(reading.warnings))),
    )


def condition_json(result: ConditionResult) -> dict[str, Any]:
    """The figures of a condition, for programs."""
    condition, speakers, factor = result.condition, result.speakers, result.real_time_factor
    return {
        "name": condition.name,
        **_condition(condition),
        "words": _rounded(dataclasses.asdict(result.words)),
        "groups": {name: _rounded(dataclasses.asdict(rate)) for name, rate in result.groups.items()},
        "times": None if result.times is None else _rounded(dataclasses.asdict(result.times)),
        "speakers": None
        if speakers is None
        else {
            **dataclasses.asdict(speakers),
            "share_of_read": round(speakers.share_of_read, 6),
            "share_of_said": round(speakers.share_of_said, 6),
        },
        "confusions": _confusions_json(result.confusions),
        "media_s": round(result.media_s, 3),
        "elapsed_s": round(result.elapsed_s, 3),
        "real_time_factor": None if factor is None else round(factor, 4),
        "failures": [{"id": name, "error": error} for name, error in result.failures.items()],
        "warnings": result.warnings,
    }


def reading_json(reading: ClipResult) -> dict[str, Any]:
    """One clip's result under one condition, for programs; a line of clips.jsonl."""
    found = alignment(reading.entry.texts, reading.texts)
    return {
        "id": reading.entry.id,
        "media": str(reading.entry.media),
        "group": reading.entry.group,
        **_condition(reading.condition),
        "reference": " ".join(reading.entry.texts),
        "hypothesis": " ".join(reading.texts),
        "words": found.words,
        "substitutions": len(found.substituted),
        "insertions": len(found.inserted),
        "deletions": len(found.deleted),
        "errors": _errors(reading, found),
        "segments": [
            {
                "start_s": round(segment.start_s, 3),
                "end_s": round(segment.end_s, 3),
                "speaker": segment.speaker,
                "text": segment.text,
            }
            for segment in reading.segments
        ],
        "duration_s": round(reading.duration_s, 3),
        "elapsed_s": round(reading.elapsed_s, 3),
        "warnings": list(reading.warnings),
        "error": reading.error,
    }


def _condition(condition: Condition) -> dict[str, Any]:
    around = condition.circumstances
    return {
        "modality": condition.modality,
        "noise": None if around.noise is None else around.noise.value,
        "snr_db": around.snr_db,
    }


def _errors(reading: ClipResult, found: Alignment) -> list[dict[str, Any]]:
    """Every error: what was said and what was read, null where there is nothing."""
    said, read = reading.entry.texts, reading.texts
    return [
        *({"said": said[ours], "read": read[theirs]} for ours, theirs in found.substituted),
        *({"said": said[place], "read": None} for place in found.deleted),
        *({"said": None, "read": read[place]} for place in found.inserted),
    ]


def _timed(reading: ClipResult, found: Alignment) -> list[tuple[Timed, Timed]]:
    """Rightly read words (said, read) whose times are all known."""
    pairs = ((reading.entry.words[ours], reading.words[theirs]) for ours, theirs in found.right)
    return [
        (cast(Timed, said), cast(Timed, read))
        for said, read in pairs
        if None not in (said.start_s, said.end_s, read.start_s, read.end_s)
    ]


def _by_group(
    readings: Sequence[ClipResult], aligned: Sequence[Alignment], seed: int
) -> dict[str, ErrorRate]:
    groups: dict[str, list[Alignment]] = {}
    for reading, found in zip(readings, aligned, strict=True):
        if reading.entry.group is not None:
            groups.setdefault(reading.entry.group, []).append(found)
    return {name: error_rate(members, seed) for name, members in sorted(groups.items())}


def _attribution(reading: ClipResult, found: Alignment) -> Attribution:
    said_by = [word.speaker or "" for word in reading.entry.words]
    read_on = [(ours, reading.words[theirs].speaker) for ours, theirs in (*found.right, *found.substituted)]
    return attribution(said_by, read_on)


def _confusions(
    readings: Sequence[ClipResult], aligned: Sequence[Alignment], lexicon: Lexicon | None
) -> Confusions:
    pairs = list(zip(readings, aligned, strict=True))
    return confusions(
        [
            (reading.entry.texts[ours], reading.texts[theirs])
            for reading, found in pairs
            for ours, theirs in found.substituted
        ],
        [reading.entry.texts[ours] for reading, found in pairs for ours, _ in found.right],
        lexicon,
    )


def _confusions_json(found: Confusions) -> dict[str, Any]:
    visemes = found.visemes
    return {
        "words": [{"said": said, "read": read, "count": count} for said, read, count in found.words],
        "visemes": None
        if visemes is None
        else {
            "counts": [
                {"said": said, "read": read, "count": count}
                for (said, read), count in sorted(visemes.counts.items(), key=lambda item: -item[1])
            ],
            "said": visemes.said,
            "phoneme_substitutions": visemes.substitutions,
            "alike_on_the_lips": visemes.alike,
            "substitutions_without_pronunciation": visemes.unknown,
        },
    }


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    def rounded(value: Any) -> Any:
        if isinstance(value, tuple):
            return [rounded(inner) for inner in value]
        return round(value, 6) if isinstance(value, float) else value

    return {name: rounded(value) for name, value in values.items()}
