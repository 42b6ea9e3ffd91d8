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
from gorggle_evaluation.confusions import Confusions, count_confusions
from gorggle_evaluation.metrics import (
    Alignment,
    ErrorRate,
    TimeError,
    TimeSpan,
    align_words,
    compute_error_rate,
    compute_time_error,
    compute_time_offsets_s,
)
from gorggle_evaluation.speaker_attribution import Attribution, attribute_words
from gorggle_evaluation.transcriber import ClipResult
from gorggle_evaluation.visemes import Lexicon


@dataclass(frozen=True, eq=False)
class ConditionResult:
    """All figures of one condition.

    Attributes:
        error_rate: a clip that failed counts with all its words deleted.
        groups: the same by group of clips, for clips that have one.
        time_error: of rightly read words whose times are known; None where there is none.
        time_offsets_s: (words, 2), how much later start and end of those words were read than they are.
        attribution: over clips with several named speakers, where faces were looked at; None where there is none.
        media_s: length of the clips that were read.
        elapsed_s: that reading them took, added up over clips, however many were read at once.
        failures: ids of clips that could not be read, and why.
        warnings: of the service, with the number of clips.
    """

    condition: Condition
    error_rate: ErrorRate
    groups: dict[str, ErrorRate]
    time_error: TimeError | None
    time_offsets_s: NDArray[np.float64]
    attribution: Attribution | None
    confusions: Confusions
    media_s: float
    elapsed_s: float
    failures: dict[str, str]
    warnings: dict[str, int]

    @property
    def real_time_factor(self) -> float | None:
        """Time that reading took over the length of what was read; below 1 is faster than real time."""
        return self.elapsed_s / self.media_s if self.media_s else None


def summarize_condition(clips: Sequence[ClipResult], lexicon: Lexicon | None, seed: int) -> ConditionResult:
    """Compare the readings of one condition with what was said.

    Args:
        clips: of one condition, one a clip; at least one.
        lexicon: how words sound, for confusions of visemes.
        seed: of the resampling for intervals.
    """
    aligned = [align_words(reading.entry.texts, reading.texts) for reading in clips]
    timed = [
        pair
        for reading, found in zip(clips, aligned, strict=True)
        for pair in _pair_timed_words(reading, found)
    ]
    read = [reading for reading in clips if reading.error is None]
    return ConditionResult(
        condition=clips[0].condition,
        error_rate=compute_error_rate(aligned, seed),
        groups=_error_rates_by_group(clips, aligned, seed),
        time_error=compute_time_error(timed),
        time_offsets_s=compute_time_offsets_s(timed),
        attribution=Attribution.combine(
            _attribute_clip(reading, found)
            for reading, found in zip(clips, aligned, strict=True)
            if len(reading.entry.speakers) > 1 and reading.condition.modality != "audio"
        ),
        confusions=_count_confusions(clips, aligned, lexicon),
        media_s=sum(reading.duration_s for reading in read),
        elapsed_s=sum(reading.elapsed_s for reading in read),
        failures={r.entry.id: r.error for r in clips if r.error is not None},
        warnings=dict(Counter(warning for reading in clips for warning in set(reading.warnings))),
    )


def condition_to_json(result: ConditionResult) -> dict[str, Any]:
    """The figures of a condition, for programs."""
    condition, speakers, factor = result.condition, result.attribution, result.real_time_factor
    return {
        "name": condition.name,
        **_condition_fields(condition),
        "words": _round_floats(dataclasses.asdict(result.error_rate)),
        "groups": {name: _round_floats(dataclasses.asdict(rate)) for name, rate in result.groups.items()},
        "times": None if result.time_error is None else _round_floats(dataclasses.asdict(result.time_error)),
        "speakers": None
        if speakers is None
        else {
            **dataclasses.asdict(speakers),
            "share_of_read": round(speakers.share_of_recognized, 6),
            "share_of_said": round(speakers.share_of_reference, 6),
        },
        "confusions": _confusions_to_json(result.confusions),
        "media_s": round(result.media_s, 3),
        "elapsed_s": round(result.elapsed_s, 3),
        "real_time_factor": None if factor is None else round(factor, 4),
        "failures": [{"id": name, "error": error} for name, error in result.failures.items()],
        "warnings": result.warnings,
    }


def clip_to_json(clip: ClipResult) -> dict[str, Any]:
    """One clip's result under one condition, for programs; a line of clips.jsonl."""
    found = align_words(clip.entry.texts, clip.texts)
    return {
        "id": clip.entry.id,
        "media": str(clip.entry.media),
        "group": clip.entry.group,
        **_condition_fields(clip.condition),
        "reference": " ".join(clip.entry.texts),
        "hypothesis": " ".join(clip.texts),
        "words": found.words,
        "substitutions": len(found.substitutions),
        "insertions": len(found.insertions),
        "deletions": len(found.deletions),
        "errors": _list_errors(clip, found),
        "segments": [
            {
                "start_s": round(segment.start_s, 3),
                "end_s": round(segment.end_s, 3),
                "speaker": segment.speaker,
                "text": segment.text,
            }
            for segment in clip.segments
        ],
        "duration_s": round(clip.duration_s, 3),
        "elapsed_s": round(clip.elapsed_s, 3),
        "warnings": list(clip.warnings),
        "error": clip.error,
    }


def _condition_fields(condition: Condition) -> dict[str, Any]:
    around = condition.noise
    return {
        "modality": condition.modality,
        "noise": None if around.kind is None else around.kind.value,
        "snr_db": around.snr_db,
    }


def _list_errors(clip: ClipResult, alignment: Alignment) -> list[dict[str, Any]]:
    """Every error: what was said and what was read, null where there is nothing."""
    said, read = clip.entry.texts, clip.texts
    return [
        *({"said": said[ours], "read": read[theirs]} for ours, theirs in alignment.substitutions),
        *({"said": said[place], "read": None} for place in alignment.deletions),
        *({"said": None, "read": read[place]} for place in alignment.insertions),
    ]


def _pair_timed_words(clip: ClipResult, alignment: Alignment) -> list[tuple[TimeSpan, TimeSpan]]:
    """Rightly read words (said, read) whose times are all known."""
    pairs = ((clip.entry.words[ours], clip.words[theirs]) for ours, theirs in alignment.correct)
    return [
        (cast(TimeSpan, said), cast(TimeSpan, read))
        for said, read in pairs
        if None not in (said.start_s, said.end_s, read.start_s, read.end_s)
    ]


def _error_rates_by_group(
    clips: Sequence[ClipResult], alignments: Sequence[Alignment], seed: int
) -> dict[str, ErrorRate]:
    groups: dict[str, list[Alignment]] = {}
    for reading, found in zip(clips, alignments, strict=True):
        if reading.entry.group is not None:
            groups.setdefault(reading.entry.group, []).append(found)
    return {name: compute_error_rate(members, seed) for name, members in sorted(groups.items())}


def _attribute_clip(clip: ClipResult, alignment: Alignment) -> Attribution:
    said_by = [word.speaker or "" for word in clip.entry.words]
    read_on = [
        (ours, clip.words[theirs].speaker) for ours, theirs in (*alignment.correct, *alignment.substitutions)
    ]
    return attribute_words(said_by, read_on)


def _count_confusions(
    clips: Sequence[ClipResult], alignments: Sequence[Alignment], lexicon: Lexicon | None
) -> Confusions:
    pairs = list(zip(clips, alignments, strict=True))
    return count_confusions(
        [
            (reading.entry.texts[ours], reading.texts[theirs])
            for reading, found in pairs
            for ours, theirs in found.substitutions
        ],
        [reading.entry.texts[ours] for reading, found in pairs for ours, _ in found.correct],
        lexicon,
    )


def _confusions_to_json(confusions: Confusions) -> dict[str, Any]:
    visemes = confusions.visemes
    return {
        "words": [{"said": said, "read": read, "count": count} for said, read, count in confusions.words],
        "visemes": None
        if visemes is None
        else {
            "counts": [
                {"said": said, "read": read, "count": count}
                for (said, read), count in sorted(visemes.counts.items(), key=lambda item: -item[1])
            ],
            "said": visemes.reference_counts,
            "phoneme_substitutions": visemes.phoneme_substitutions,
            "alike_on_the_lips": visemes.same_viseme,
            "substitutions_without_pronunciation": visemes.without_pronunciation,
        },
    }


def _round_floats(values: dict[str, Any]) -> dict[str, Any]:
    def rounded(value: Any) -> Any:
        if isinstance(value, tuple):
            return [rounded(inner) for inner in value]
        return round(value, 6) if isinstance(value, float) else value

    return {name: rounded(value) for name, value in values.items()}
