"""Transcribes clips through the service and records failures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gorggle import Client, GorggleError, OverloadedError, Segment
from gorggle.results import sort_segments
from gorggle_evaluation.conditions import Condition
from gorggle_evaluation.manifest import Entry
from gorggle_evaluation.media import Clip, MediaError
from gorggle_evaluation.text_normalization import normalize_words

# How long an overloaded server is retried.
TIMEOUT_S = 600.0
RETRY_DELAY_S = 1.0


@dataclass(frozen=True)
class HypothesisWord:
    """A normalized word, with the confidence of the word that it is part of; a timestamp is None inside a word that was split."""

    text: str
    speaker: str
    start_s: float | None
    end_s: float | None
    confidence: float


@dataclass(frozen=True)
class ClipResult:
    """The result of one clip under one condition.

    Attributes:
        words: all recognized words, segment by segment in order of start.
        duration_s: media duration reported by the service.
        elapsed_s: from the first byte sent to the last word received.
        warnings: of the service, such as no face, no audio, damaged media.
        error: reason of a failure, or None.
    """

    entry: Entry
    condition: Condition
    words: tuple[HypothesisWord, ...] = ()
    segments: tuple[Segment, ...] = ()
    duration_s: float = 0.0
    elapsed_s: float = 0.0
    warnings: tuple[str, ...] = ()
    error: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the words' texts."""
        return tuple(word.text for word in self.words)


@dataclass(frozen=True)
class Transcriber:
    """Transcribes clips with the service.

    Attributes:
        model: name; None for the server's default.
        audio_model: name of the second model for clips with audio; None for the server's default.
        beam_size: 0 for the model's default.
    """

    client: Client
    model: str | None = None
    audio_model: str | None = None
    beam_size: int = 0

    def transcribe(self, entry: Entry, condition: Condition, clip: Callable[[], Clip]) -> ClipResult:
        """Transcribe a clip; failures are returned as results.

        Args:
            entry: reference.
            condition: its modality is used.
            clip: returns the file to send, with noise already mixed in.
        """
        try:
            return self._transcribe_with_retries(entry, condition, clip())
        except (GorggleError, MediaError) as error:
            return ClipResult(
                entry, condition, error=f"{type(error).__name__}: {' '.join(str(error).split())}"
            )

    def _transcribe_with_retries(self, entry: Entry, condition: Condition, clip: Clip) -> ClipResult:
        end = time.monotonic() + TIMEOUT_S
        while True:
            try:
                return self._transcribe(entry, condition, clip)
            except OverloadedError as error:
                if time.monotonic() > end:
                    raise
                time.sleep(error.retry_after_s or RETRY_DELAY_S)

    def _transcribe(self, entry: Entry, condition: Condition, clip: Clip) -> ClipResult:
        start = time.monotonic()
        stream = self.client.transcribe(
            clip.source,
            modality=condition.modality,
            model=self.model,
            audio_model=self.audio_model if condition.modality != "video" else None,
            beam_size=self.beam_size,
        )
        with stream:
            segments = tuple(_shift_segment(segment, clip.offset_s) for segment in sort_segments(stream))
        return ClipResult(
            entry,
            condition,
            words=extract_words(segments),
            segments=segments,
            duration_s=stream.duration_s,
            elapsed_s=time.monotonic() - start,
            warnings=tuple(warning.message for warning in stream.warnings),
        )


def _shift_segment(segment: Segment, offset_s: float) -> Segment:
    """Shift a segment's timestamps to the manifest's time line."""
    words = (
        replace(word, start_s=word.start_s - offset_s, end_s=word.end_s - offset_s) for word in segment.words
    )
    return replace(
        segment, start_s=segment.start_s - offset_s, end_s=segment.end_s - offset_s, words=tuple(words)
    )


def extract_words(segments: Sequence[Segment]) -> tuple[HypothesisWord, ...]:
    """Return the normalized words of segments.

    A word that normalization splits ("twenty-one") has a start on its first part and an end on its last; so has a segment
    without word timestamps.
    """
    words: list[HypothesisWord] = []
    for segment in segments:
        spans = segment.words or (segment,)
        for span in spans:
            texts = normalize_words(span.text)
            words += [
                HypothesisWord(
                    text,
                    segment.speaker,
                    span.start_s if index == 0 else None,
                    span.end_s if index == len(texts) - 1 else None,
                    span.confidence,
                )
                for index, text in enumerate(texts)
            ]
    return tuple(words)
