"""What was read: segments of speech with their words and times, and a whole transcript.

Times are seconds from the start of the media, plus the start offset that the request asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gorggle import captions
from gorggle.events import StreamWarning

Modality = Literal["av", "video", "audio"]
"""What words are read from: lips and sound together, the lips alone, or the sound alone."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word, with the model's confidence from 0 to 1."""

    text: str
    start_s: float
    end_s: float
    confidence: float = 0.0


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another reading of the same segment."""

    text: str
    confidence: float = 0.0
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class FaceBox:
    """Where the speaker's face was at one moment, as shares (0 to 1) of the upright picture's width and height."""

    time_s: float
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Segment:
    """What one person said in one stretch.

    Attributes:
        confidence: the model's, from 0 to 1.
        stability: share of the words that will not change any more, from 0 to 1; 1 when final.
        is_final: whether this is the segment's last result. Others only come where interim results were asked for.
        segment_id: names the segment within its stream; the interim and final results of one share it.
        revision: counts the results of one segment from 1; a higher one replaces the lower ones.
        speaker: who speaks: "face-1", "face-2"… for one face through a stream, "voice" where no face was seen.
        words: with their times; empty where they were not asked for.
        alternatives: other readings, best first; empty where they were not asked for.
        face_boxes: where the speaker's face was; empty where they were not asked for.
        modality: what the words were read from.
        stable_words: so many words, from the beginning of ``text``, begin every later result of the segment.
    """

    start_s: float
    end_s: float
    text: str
    confidence: float = 0.0
    stability: float = 1.0
    is_final: bool = True
    segment_id: str = ""
    revision: int = 1
    speaker: str = ""
    words: tuple[Word, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    face_boxes: tuple[FaceBox, ...] = ()
    modality: Modality = "av"
    stable_words: int = 0

    @property
    def stable_text(self) -> str:
        """The words that will not change any more; all of them when final."""
        return self.text if self.is_final else " ".join(self.text.split()[: self.stable_words])


@dataclass(frozen=True)
class Transcript:
    """Everything that was said in one file.

    Attributes:
        file: name of the file; empty where the source has none.
        duration_s: length of the media.
        model: the model that read.
        segments: the final segments, in order of time.
        warnings: what the server wants known: no sound found, damaged media…
        request_id: the call's name in the server's log.
    """

    file: str
    duration_s: float
    model: str
    segments: tuple[Segment, ...] = ()
    warnings: tuple[StreamWarning, ...] = ()
    request_id: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        """All words, one segment a line, without times and speakers."""
        return "\n".join(segment.text for segment in self.segments)

    def to_text(self) -> str:
        """Write one line a segment: ``[00:00.52 - 00:02.10] face-1: bin blue at f two now``."""
        return to_text(self.segments)

    def to_json(self, indent: int | None = 2) -> str:
        """Write file, duration, model and segments with their words as JSON; times in seconds."""
        return to_json(
            self.segments, file=self.file, duration_s=self.duration_s, model=self.model, indent=indent
        )

    def to_srt(self) -> str:
        """Write SubRip captions."""
        return captions.to_srt(self.segments)

    def to_vtt(self) -> str:
        """Write WebVTT captions."""
        return captions.to_vtt(self.segments)


def sort_segments(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """The final segments by start, then end: speakers who talk at once are interleaved.

    A final segment without text takes back what interim results seemed to say: it is left out.
    """
    return tuple(sorted((s for s in segments if s.is_final and s.text), key=lambda s: (s.start_s, s.end_s)))


def to_text(segments: Iterable[Segment]) -> str:
    """Write one line for each final segment, in the given order; see ``to_text_line``."""
    return "".join(f"{to_text_line(segment)}\n" for segment in segments if segment.is_final and segment.text)


def to_text_line(segment: Segment) -> str:
    """A segment for people: ``[00:00.52 - 00:02.10] face-1: bin blue at f two now``."""
    speaker = f"{segment.speaker}: " if segment.speaker else ""
    return f"[{format_time(segment.start_s)} - {format_time(segment.end_s)}] {speaker}{' '.join(segment.text.split())}"


def format_time(time_s: float) -> str:
    """A time for people, to the hundredth of a second: ``01:05.30``, from an hour on ``1:01:05.30``."""
    minutes, hundredths = divmod(round(max(0.0, time_s) * 100), 6000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{minutes:02d}:{hundredths // 100:02d}.{hundredths % 100:02d}"
    return f"{hours}:{seconds}" if hours else seconds


def to_json(
    segments: Iterable[Segment],
    *,
    file: str = "",
    duration_s: float = 0.0,
    model: str = "",
    indent: int | None = 2,
) -> str:
    """Write the final segments as JSON, for programs.

    Times are seconds, rounded to the millisecond; confidences are rounded to four decimals.
    """
    document = {
        "file": file,
        "duration": round(duration_s, 3),
        "model": model,
        "segments": [_segment_to_dict(segment) for segment in segments if segment.is_final and segment.text],
    }
    return json.dumps(document, ensure_ascii=False, indent=indent)


def to_srt(segments: Sequence[Segment]) -> str:
    """Write the final segments as SubRip captions; see ``gorggle.captions``."""
    return captions.to_srt(segments)


def to_vtt(segments: Sequence[Segment]) -> str:
    """Write the final segments as WebVTT captions; see ``gorggle.captions``."""
    return captions.to_vtt(segments)


def _segment_to_dict(segment: Segment) -> dict[str, Any]:
    return {
        "start": round(segment.start_s, 3),
        "end": round(segment.end_s, 3),
        "text": segment.text,
        "speaker": segment.speaker,
        "confidence": round(segment.confidence, 4),
        "words": [
            {
                "start": round(word.start_s, 3),
                "end": round(word.end_s, 3),
                "text": word.text,
                "confidence": round(word.confidence, 4),
            }
            for word in segment.words
        ],
    }
