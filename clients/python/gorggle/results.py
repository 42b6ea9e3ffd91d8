"""Results: segments of speech with words and timestamps, and whole transcripts.

Timestamps are seconds from the start of the media, plus the request's start offset.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gorggle import captions
from gorggle.events import StreamWarning

Modality = Literal["av", "video", "audio"]
"""Input of recognition: video and audio together, video only, or audio only."""


WordSource = Literal["lips", "audio", "both", ""]
"""What a word was recognized from; empty: unknown."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word, with the model's confidence from 0 to 1.

    ``source`` is "both" if one model used lips and audio together, or if two models agree on the word.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float = 0.0
    source: WordSource = ""


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another hypothesis for a segment."""

    text: str
    confidence: float = 0.0
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class FaceBox:
    """The speaker's face at one time, as fractions (0 to 1) of the upright frame's width and height."""

    time_s: float
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Segment:
    """Continuous speech of one speaker.

    Attributes:
        confidence: the model's, from 0 to 1.
        stability: fraction of the words that will not change, from 0 to 1; 1 if final.
        is_final: this is the segment's last result; interim results are only sent on request.
        segment_id: identifies the segment in its stream; its interim and final results share it.
        revision: number of the result, from 1; a higher one replaces lower ones.
        speaker: label of the speaker: "face-1", "face-2"… for one face throughout a stream, "voice" without a face.
        words: with timestamps; empty if not requested.
        alternatives: other hypotheses, best first; empty if not requested.
        face_boxes: the speaker's face over time; empty if not requested.
        modality: input that the words were recognized from.
        stable_words: number of words at the start of ``text`` that later results of the segment keep.
        is_doubtful: a model that knows only the words of its vocabulary read them from the lips alone, or noise hid the audio
            from the second model; they are probably wrong unless the speaker used only those words.
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
    is_doubtful: bool = False

    @property
    def stable_text(self) -> str:
        """The words that will not change; all of them if final."""
        return self.text if self.is_final else " ".join(self.text.split()[: self.stable_words])


@dataclass(frozen=True)
class Transcript:
    """The final segments of one source.

    Attributes:
        file: name of the file; empty if the source has none.
        duration_s: duration of the media.
        model: name of the model.
        segments: the final segments by time.
        warnings: such as missing audio or damaged media.
        request_id: identifies the call in the server's log.
        audio_model: name of the second model, which recognized the audio; empty: none.
    """

    file: str
    duration_s: float
    model: str
    segments: tuple[Segment, ...] = ()
    warnings: tuple[StreamWarning, ...] = ()
    request_id: str = field(default="", compare=False)
    audio_model: str = ""

    @property
    def text(self) -> str:
        """The text, one line per segment, without timestamps and speakers."""
        return "\n".join(segment.text for segment in self.segments)

    def to_text(self) -> str:
        """Return one line per segment; see ``to_text_line``."""
        return to_text(self.segments)

    def to_json(self, indent: int | None = 2) -> str:
        """Return JSON; see ``to_json``."""
        return to_json(
            self.segments,
            file=self.file,
            duration_s=self.duration_s,
            model=self.model,
            audio_model=self.audio_model,
            indent=indent,
        )

    def to_srt(self, names: Mapping[str, str] | None = None) -> str:
        """Return SubRip captions; see ``to_srt``."""
        return to_srt(self.segments, names)

    def to_vtt(self, names: Mapping[str, str] | None = None) -> str:
        """Return WebVTT captions; see ``to_vtt``."""
        return to_vtt(self.segments, names)


def sort_segments(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """Return the final segments that have text, by start, then end.

    A final segment without text retracts its interim results.
    """
    return tuple(sorted((s for s in segments if s.is_final and s.text), key=lambda s: (s.start_s, s.end_s)))


def to_text(segments: Iterable[Segment]) -> str:
    """Return one line per final segment, in the given order; see ``to_text_line``."""
    return "".join(f"{to_text_line(segment)}\n" for segment in segments if segment.is_final and segment.text)


def to_text_line(segment: Segment) -> str:
    """Return a segment as ``[00:00.52 - 00:02.10] Person 1: bin blue at f two now``; doubtful words follow a ``(?)``."""
    speaker = f"{captions.display_name(segment.speaker)}: " if segment.speaker else ""
    mark = f"{captions.DOUBTFUL_MARK} " if segment.is_doubtful else ""
    times = f"[{format_time(segment.start_s)} - {format_time(segment.end_s)}]"
    return f"{times} {speaker}{mark}{' '.join(segment.text.split())}"


def format_time(time_s: float) -> str:
    """Return a time as ``01:05.30``, or ``1:01:05.30`` from one hour."""
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
    audio_model: str = "",
    indent: int | None = 2,
) -> str:
    """Return the final segments as JSON, with the file, duration and models.

    Timestamps are seconds, rounded to milliseconds; confidences are rounded to four decimals.
    """
    document = {
        "file": file,
        "duration": round(duration_s, 3),
        "model": model,
        "audio_model": audio_model,
        "segments": [_segment_to_dict(segment) for segment in segments if segment.is_final and segment.text],
    }
    return json.dumps(document, ensure_ascii=False, indent=indent)


def to_srt(segments: Iterable[Segment], names: Mapping[str, str] | None = None) -> str:
    """Return the final segments as SubRip captions.

    ``names`` maps speaker labels to displayed names; without it, "face-2" is shown as "Person 2" and "voice" as "Voice".
    """
    return captions.to_srt((segment for segment in segments if segment.is_final), names)


def to_vtt(segments: Iterable[Segment], names: Mapping[str, str] | None = None) -> str:
    """Return the final segments as WebVTT captions; ``names`` as in ``to_srt``."""
    return captions.to_vtt((segment for segment in segments if segment.is_final), names)


def _segment_to_dict(segment: Segment) -> dict[str, Any]:
    return {
        "start": round(segment.start_s, 3),
        "end": round(segment.end_s, 3),
        "text": segment.text,
        "speaker": segment.speaker,
        "confidence": round(segment.confidence, 4),
        "doubtful": segment.is_doubtful,
        "words": [
            {
                "start": round(word.start_s, 3),
                "end": round(word.end_s, 3),
                "text": word.text,
                "confidence": round(word.confidence, 4),
                "source": word.source,
            }
            for word in segment.words
        ],
    }
