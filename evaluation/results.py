"""Figures computed from clip results, and their JSON form."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gorggle_evaluation.conditions import Condition
from gorggle_evaluation.confusions import Confusions, count_confusions
from gorggle_evaluation.manifest import ReferenceWord
from gorggle_evaluation.metrics import (
    Alignment,
    ErrorRate,
    TimeError,
    align_words,
    compute_error_rate,
    compute_time_error,
    compute_time_offsets_s,
)
from gorggle_evaluation.speaker_attribution import Attribution, attribute_words
from gorggle_evaluation.transcriber import ClipResult, HypothesisWord
from gorggle_evaluation.visemes import Lexicon
from gorggle_evaluation.word_confidence import ConfidenceError, compute_confidence_error


@dataclass(frozen=True, eq=False)
class ConditionResult:
    """All figures of one condition.

    Attributes:
        error_rate: the words of failed clips count as deletions.
        groups: error rate by group of clips, for clips with a group.
        time_error: of correct words with known timestamps; None if there are none.
        time_offsets_s: (words, 2), offsets of starts and ends of those words.
        confidence_error: of all recognized words; None if there are none.
        attribution: over clips with several named speakers, in modalities with video; None if there are none.
        media_s: duration of the transcribed clips.
        elapsed_s: transcription time, summed over clips regardless of parallelism.
        failures: error message by clip id.
        warnings: number of clips by warning of the service.
    """

    condition: Condition
    error_rate: ErrorRate
    groups: dict[str, ErrorRate]
    time_error: TimeError | None
    time_offsets_s: NDArray[np.float64]
    confidence_error: ConfidenceError | None
    attribution: Attribution | None
    confusions: Confusions
    media_s: float
    elapsed_s: float
    failures: dict[str, str]
    warnings: dict[str, int]

    @property
    def real_time_factor(self) -> float | None:
        """Return transcription time over media duration; below 1 is faster than real time."""
        return self.elapsed_s / self.media_s if self.media_s else None


def summarize_condition(clips: Sequence[ClipResult], lexicon: Lexicon | None, seed: int) -> ConditionResult:
    """Compare the results of one condition with the reference.

    Args:
        clips: results of one condition, one per clip, at least one.
        lexicon: pronunciations for viseme confusions.
        seed: of the bootstrap.
    """
    alignments = [align_words(clip.entry.texts, clip.texts) for clip in clips]
    aligned = list(zip(clips, alignments, strict=True))
    offsets_s = compute_time_offsets_s(pair for one in aligned for pair in _pair_timed_words(*one))
    transcribed = [clip for clip in clips if clip.error is None]
    return ConditionResult(
        condition=clips[0].condition,
        error_rate=compute_error_rate(alignments, seed),
        groups=_error_rates_by_group(aligned, seed),
        time_error=compute_time_error(offsets_s),
        time_offsets_s=offsets_s,
        confidence_error=compute_confidence_error([word for one in aligned for word in _judge_words(*one)]),
        attribution=Attribution.combine(
            _attribute_clip(clip, alignment)
            for clip, alignment in aligned
            if len(clip.entry.speakers) > 1 and clip.condition.modality != "audio"
        ),
        confusions=count_confusions(
            [(clip.entry.texts[i], clip.texts[j]) for clip, found in aligned for i, j in found.substitutions],
            [clip.entry.texts[i] for clip, found in aligned for i, _ in found.correct],
            lexicon,
        ),
        media_s=sum(clip.duration_s for clip in transcribed),
        elapsed_s=sum(clip.elapsed_s for clip in transcribed),
        failures={r.entry.id: r.error for r in clips if r.error is not None},
        warnings=dict(Counter(warning for clip in clips for warning in set(clip.warnings))),
    )


def condition_to_json(result: ConditionResult) -> dict[str, Any]:
    """Return the figures of a condition as JSON values."""
    condition, speakers, factor = result.condition, result.attribution, result.real_time_factor
    figures = {
        "name": condition.name,
        **_condition_fields(condition),
        "words": dataclasses.asdict(result.error_rate),
        "groups": {name: dataclasses.asdict(rate) for name, rate in result.groups.items()},
        "times": None if result.time_error is None else dataclasses.asdict(result.time_error),
        "confidence": None
        if result.confidence_error is None
        else dataclasses.asdict(result.confidence_error),
        "speakers": None
        if speakers is None
        else {
            **dataclasses.asdict(speakers),
            "share_of_recognized": speakers.share_of_recognized,
            "share_of_reference": speakers.share_of_reference,
        },
        "confusions": _confusions_to_json(result.confusions),
        "media_s": round(result.media_s, 3),
        "elapsed_s": round(result.elapsed_s, 3),
        "real_time_factor": None if factor is None else round(factor, 4),
        "failures": [{"id": name, "error": error} for name, error in result.failures.items()],
        "warnings": result.warnings,
    }
    rounded: dict[str, Any] = json.loads(json.dumps(figures), parse_float=lambda text: round(float(text), 6))
    return rounded


def clip_to_json(clip: ClipResult) -> dict[str, Any]:
    """Return one clip's result as JSON values: a line of clips.jsonl."""
    alignment = align_words(clip.entry.texts, clip.texts)
    return {
        "id": clip.entry.id,
        "media": str(clip.entry.media),
        "group": clip.entry.group,
        **_condition_fields(clip.condition),
        "reference": " ".join(clip.entry.texts),
        "hypothesis": " ".join(clip.texts),
        "words": alignment.words,
        "substitutions": len(alignment.substitutions),
        "insertions": len(alignment.insertions),
        "deletions": len(alignment.deletions),
        "errors": _list_errors(clip, alignment),
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
    noise = condition.noise
    return {
        "modality": condition.modality,
        "noise": None if noise.kind is None else noise.kind.value,
        "snr_db": noise.snr_db,
    }


def _list_errors(clip: ClipResult, alignment: Alignment) -> list[dict[str, Any]]:
    """Return every error as a pair of reference and hypothesis word, null where there is none."""
    reference, hypothesis = clip.entry.texts, clip.texts
    return [
        *({"reference": reference[i], "hypothesis": hypothesis[j]} for i, j in alignment.substitutions),
        *({"reference": reference[i], "hypothesis": None} for i in alignment.deletions),
        *({"reference": None, "hypothesis": hypothesis[i]} for i in alignment.insertions),
    ]


def _pair_timed_words(clip: ClipResult, alignment: Alignment) -> list[tuple[ReferenceWord, HypothesisWord]]:
    """Return pairs (reference, hypothesis) of correct words with timestamps."""
    pairs = ((clip.entry.words[i], clip.words[j]) for i, j in alignment.correct)
    return [
        (reference, hypothesis)
        for reference, hypothesis in pairs
        if None not in (reference.start_s, reference.end_s, hypothesis.start_s, hypothesis.end_s)
    ]


def _judge_words(clip: ClipResult, alignment: Alignment) -> list[tuple[float, bool]]:
    """Return the confidence of each recognized word, and whether it is correct."""
    correct = {index for _, index in alignment.correct}
    return [(word.confidence, index in correct) for index, word in enumerate(clip.words)]


def _error_rates_by_group(aligned: Sequence[tuple[ClipResult, Alignment]], seed: int) -> dict[str, ErrorRate]:
    groups: dict[str, list[Alignment]] = {}
    for clip, alignment in aligned:
        if clip.entry.group is not None:
            groups.setdefault(clip.entry.group, []).append(alignment)
    return {name: compute_error_rate(members, seed) for name, members in sorted(groups.items())}


def _attribute_clip(clip: ClipResult, alignment: Alignment) -> Attribution:
    said_by = [word.speaker or "" for word in clip.entry.words]
    read_on = [(i, clip.words[j].speaker) for i, j in (*alignment.correct, *alignment.substitutions)]
    return attribute_words(said_by, read_on)


def _confusions_to_json(confusions: Confusions) -> dict[str, Any]:
    visemes = confusions.visemes
    return {
        "words": [
            {"reference": reference, "hypothesis": hypothesis, "count": count}
            for reference, hypothesis, count in confusions.words
        ],
        "visemes": None
        if visemes is None
        else {
            "counts": [
                {"reference": reference, "hypothesis": hypothesis, "count": count}
                for (reference, hypothesis), count in Counter(visemes.counts).most_common()
            ],
            "reference_counts": visemes.reference_counts,
            "phoneme_substitutions": visemes.phoneme_substitutions,
            "same_viseme": visemes.same_viseme,
            "substitutions_without_pronunciation": visemes.without_pronunciation,
        },
    }
