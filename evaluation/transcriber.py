"""What the service reads in a clip, and what became of clips that it could not read."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gorggle import Client, GorggleError, OverloadedError, Segment
from gorggle.results import sort_segments
from gorggle_evaluation.conditions import Clip, Condition
from gorggle_evaluation.manifest import Entry
from gorggle_evaluation.media import MediaError
from gorggle_evaluation.text_normalization import normalize_words

# A busy server is asked again for so long.
TIMEOUT_S = 600.0
RETRY_DELAY_S = 1.0


@dataclass(frozen=True)
class HypothesisWord:
    """A word as it is compared; None for times of a word that the model wrote together with another one."""

    text: str
    speaker: str
    start_s: float | None
    end_s: float | None


@dataclass(frozen=True)
class ClipResult:
    """What came of one clip under one condition.

    Attributes:
        words: all that was read, segment by segment in order of their start.
        duration_s: length of the media as the service saw it.
        elapsed_s: from sending its first byte to its last word.
        warnings: of the service: no face, no sound, damaged media.
        error: why it could not be read; None where it was.
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
        """The words alone."""
        return tuple(word.text for word in self.words)


@dataclass(frozen=True)
class Transcriber:
    """Has the service read clips.

    Attributes:
        model: its name; None for the server's default.
        beam_size: 0 for the model's own choice.
    """

    client: Client
    model: str | None = None
    beam_size: int = 0

    def transcribe(self, entry: Entry, condition: Condition, clip: Callable[[], Clip]) -> ClipResult:
        """Read a clip under a condition; a failure is a result too.

        Args:
            entry: what is said.
            condition: gives the modality.
            clip: gives the file to send, with the noise already in it.
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
        begun = time.monotonic()
        stream = self.client.transcribe(
            clip.source, modality=condition.modality, model=self.model, beam_size=self.beam_size
        )
        with stream:
            segments = tuple(_shift_segment(segment, clip.offset_s) for segment in sort_segments(stream))
        return ClipResult(
            entry,
            condition,
            words=extract_words(segments),
            segments=segments,
            duration_s=stream.duration_s,
            elapsed_s=time.monotonic() - begun,
            warnings=tuple(warning.message for warning in stream.warnings),
        )


def _shift_segment(segment: Segment, offset_s: float) -> Segment:
    """The segment with its times counted from where the manifest counts them."""
    words = (
        replace(word, start_s=word.start_s - offset_s, end_s=word.end_s - offset_s) for word in segment.words
    )
    return replace(
        segment, start_s=segment.start_s - offset_s, end_s=segment.end_s - offset_s, words=tuple(words)
    )


def extract_words(segments: Sequence[Segment]) -> tuple[HypothesisWord, ...]:
    """The words of segments as they are compared.

    What the model wrote as one word and is compared as several ("twenty-one") has a start for the first and an end for
    the last of them; so has a segment that came without words.
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
                )
                for index, text in enumerate(texts)
            ]
    return tuple(words)
