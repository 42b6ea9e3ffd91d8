"""Combines all sources of a video into one result: merges windows, resolves speakers, selects words."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace

from gorggle_fusion.confidence import NoiseCurve
from gorggle_fusion.errors import FusionInputError
from gorggle_fusion.intervals import merge_spans
from gorggle_fusion.result import FusedSegment, Result, SourceReport, Status
from gorggle_fusion.speaker_identity import SpeakerMap, resolve_speakers
from gorggle_fusion.types import Inputs, SourceName, Window
from gorggle_fusion.window_merging import (
    MergedTranscript,
    merge_audio_windows,
    merge_hypotheses,
    merge_lip_windows,
)
from gorggle_fusion.word_hypotheses import WordHypothesis, sort_hypotheses
from gorggle_fusion.word_voting import (
    AlignmentSlot,
    Evidence,
    FusedWord,
    FusionRules,
    RejectedWord,
    align_words,
    reassign_shared_words,
    select_words,
)

# A segment ends at a pause of this length, and after a sentence once it is this long.
PAUSE_S = 0.7
LONG_SEGMENT_S = 10.0
SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？", "؟", "।")


def fuse(inputs: Inputs, rules: FusionRules | None = None) -> Result:
    """Fuse all sources of one video.

    The result does not depend on the order of windows, segments and tracks in the inputs.

    Raises:
        FusionInputError: neither lips nor audio were transcribed, so there is nothing to fuse.
    """
    _check_inputs(inputs)
    lips, audio = _merge_sources(inputs)
    speakers = resolve_speakers(audio, lips.hypotheses, lips.faces, inputs.faces or ())
    evidence = Evidence(
        NoiseCurve(inputs.noise),
        _build_coverage(inputs, "lips", inputs.lips),
        _build_coverage(inputs, "audio", inputs.audio),
        rules or FusionRules(),
        has_closed_lips=_has_open_audio_only(inputs),
    )
    by_person = _align_by_person(speakers, lips.hypotheses, audio)
    segments: list[FusedSegment] = []
    omissions: list[RejectedWord] = []
    words: list[list[FusedWord]] = []
    for person, slots in zip(speakers.persons, by_person, strict=True):
        selected, omitted = select_words(slots, evidence, person.name)
        words.append(selected)
        omissions += omitted
    starts = sorted(word.start_s for selected in words for word in selected)
    for person, selected in zip(speakers.persons, words, strict=True):
        segments += _split_segments(person.name, selected, starts)
    segments.sort(key=lambda segment: (segment.start_s, segment.end_s, segment.person))
    omissions.sort(key=lambda omission: (omission.word.start_s, omission.person, omission.word.text))
    return Result(
        media=inputs.media,
        language=inputs.language,
        model=inputs.model,
        sources=_build_reports(inputs),
        noise=inputs.noise,
        people=speakers.persons,
        segments=tuple(segments),
        omissions=tuple(omissions),
    )


def _check_inputs(inputs: Inputs) -> None:
    if inputs.lips is None and inputs.audio is None:
        reasons = "; ".join(f"{failure.source}: {failure.reason}" for failure in inputs.failures)
        raise FusionInputError(
            f"neither lips nor audio were transcribed ({reasons or 'no reason given'}): nothing to fuse"
        )


def _has_open_audio_only(inputs: Inputs) -> bool:
    """Return whether the audio was transcribed with an open vocabulary, and the lips were read without one."""
    has_closed_lips = inputs.model is not None and not inputs.model.has_open_vocabulary
    return has_closed_lips and inputs.audio is not None and inputs.audio_has_open_vocabulary


def _merge_sources(inputs: Inputs) -> tuple[MergedTranscript, list[WordHypothesis]]:
    """Return the merged lip reading and the merged audio hypotheses.

    Where the server detects no face, it transcribes the audio alone even in a lip reading mode: such words are merged with
    those of the audio transcript.
    """
    lips = merge_lip_windows(inputs.lips or ())
    audio_only = [hypothesis for hypothesis in lips.hypotheses if hypothesis.origin == "audio"]
    visual = tuple(hypothesis for hypothesis in lips.hypotheses if hypothesis.origin != "audio")
    audio = list(merge_audio_windows(inputs.audio or ()).hypotheses)
    if _has_open_audio_only(inputs):
        audio_only = [replace(hypothesis, yields_to_audio=True) for hypothesis in audio_only]
    if audio_only:
        audio = merge_hypotheses(audio, audio_only)
    return MergedTranscript(visual, lips.faces), audio


def _align_by_person(
    speakers: SpeakerMap, lips: Sequence[WordHypothesis], audio: Sequence[WordHypothesis]
) -> list[list[AlignmentSlot]]:
    """Return each person's aligned hypotheses, in the order of people."""
    names = [person.name for person in speakers.persons]
    visual: dict[str, list[WordHypothesis]] = {name: [] for name in names}
    audible: dict[str, list[WordHypothesis]] = {name: [] for name in names}
    for hypothesis in sort_hypotheses(lips):
        visual[speakers.find_speaker(hypothesis, is_audio=False).name].append(hypothesis)
    for hypothesis in sort_hypotheses(audio):
        audible[speakers.find_speaker(hypothesis, is_audio=True).name].append(hypothesis)
    by_person = [align_words(visual[name], audible[name]) for name in names]
    reassign_shared_words(by_person)
    return by_person


def _split_segments(person: str, words: Sequence[FusedWord], starts: Sequence[float]) -> list[FusedSegment]:
    runs: list[list[FusedWord]] = []
    for word in words:
        if runs and not _ends_before(runs[-1], word, starts):
            runs[-1].append(word)
        else:
            runs.append([word])
    return [FusedSegment(person, tuple(run)) for run in runs]


def _ends_before(run: Sequence[FusedWord], word: FusedWord, starts: Sequence[float]) -> bool:
    """Return whether a segment ends before this word: at a pause, after a long sentence, or if another person speaks between."""
    last = run[-1]
    if word.start_s - last.end_s >= PAUSE_S:
        return True
    if last.text.endswith(SENTENCE_ENDS) and last.end_s - run[0].start_s >= LONG_SEGMENT_S:
        return True
    return bisect_left(starts, last.end_s) < bisect_left(starts, word.start_s)


def _build_coverage(
    inputs: Inputs, source: SourceName, windows: Sequence[Window] | None
) -> Callable[[float], bool]:
    """Return a predicate that tests whether a source covers a time: a window contains it and no failure does."""
    spans = merge_spans((window.start_s, window.end_s) for window in windows or ())
    failed = [
        (failure.start_s, failure.end_s)
        for failure in inputs.failures
        if failure.source == source and failure.start_s is not None and failure.end_s is not None
    ]

    def is_covered(time_s: float) -> bool:
        is_in_window = any(start_s <= time_s <= end_s for start_s, end_s in spans)
        return is_in_window and not any(start_s <= time_s <= end_s for start_s, end_s in failed)

    return is_covered


def _build_reports(inputs: Inputs) -> tuple[SourceReport, ...]:
    lips_engine = inputs.model.name if inputs.model else ""
    return (
        _build_report(inputs, "lips", inputs.lips is not None, lips_engine),
        _build_report(inputs, "audio", inputs.audio is not None, inputs.audio_engine),
        _build_report(inputs, "faces", inputs.faces is not None, inputs.face_engine),
    )


def _build_report(inputs: Inputs, source: SourceName, is_available: bool, engine: str) -> SourceReport:
    failed = tuple(failure for failure in inputs.failures if failure.source == source)
    ordered = tuple(sorted(failed, key=lambda f: (f.start_s is not None, f.start_s or 0.0, f.reason)))
    status: Status = ("partial" if failed else "used") if is_available else ("failed" if failed else "absent")
    return SourceReport(source, status, engine, ordered)
