"""Amazon Transcribe's result, as the service writes it to S3.

Source: the service's guide, "Data input and output" and "Partitioning speakers (diarization)". Numbers come as
strings; punctuation comes as items without times; a word's speaker stands in the item or, in older results, only in
``speaker_labels``, by the item's time. Fields that are not used here are ignored: Amazon adds new ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from gorggle_lambdas.fusion.errors import FusionInputError
from gorggle_lambdas.fusion.json_fields import JsonReader
from gorggle_lambdas.fusion.types import UNKNOWN_SPEAKER, Alternative, Segment, Window, Word

WHERE = "Amazon Transcribe's result"
# Marks that stand before the word they belong to; all others follow theirs.
OPENING_MARKS = frozenset("¿¡([{“‘«「『（")


@dataclass(frozen=True, slots=True)
class _Spoken:
    word: Word
    speaker: str


def transcribe_window(document: object, duration_s: float) -> Window:
    """Read a finished transcription.

    Args:
        document: the JSON at ``TranscriptFileUri``.
        duration_s: of the media: the result itself does not say how far it listened.

    Raises:
        FusionInputError: the job is not finished, or the document is not Transcribe's.
    """
    fields = JsonReader.of(document, WHERE)
    if fields.has("status") and fields.text("status") != "COMPLETED":
        raise fields.wrong("status", "COMPLETED")
    results = fields.inner("results")
    speakers = _speakers_by_time(results)
    spoken: list[_Spoken] = []
    opening = ""
    for item in results.objects("items"):
        kind = item.choice("type", "pronunciation", "punctuation")
        content = _content(item)
        if kind == "pronunciation":
            spoken.append(_spoken(item, opening, speakers))
            opening = ""
        elif content in OPENING_MARKS:
            opening += content
        elif spoken:
            spoken[-1] = _with_mark(spoken[-1], content)
    segments = _segments(sorted(spoken, key=lambda s: (s.word.start_s, s.word.end_s)))
    last_s = max((segment.end_s for segment in segments), default=0.0)
    return Window(0.0, max(duration_s, last_s), segments)


def transcribe_language(document: object) -> str:
    """The language that Transcribe was told or found, as BCP 47; empty where it does not say."""
    return JsonReader.of(document, WHERE).inner("results").text("language_code", "")


def _content(item: JsonReader) -> str:
    alternatives = item.objects("alternatives")
    if not alternatives:
        raise item.wrong("alternatives", "at least one")
    return " ".join(alternatives[0].text("content").split())


def _spoken(item: JsonReader, opening: str, speakers: dict[str, str]) -> _Spoken:
    start_s = item.number("start_time", least=0, written=True)
    end_s = item.number("end_time", least=start_s, written=True)
    readings = [
        Alternative(" ".join(reading.text("content").split()), _confidence(reading))
        for reading in item.objects("alternatives")
    ]
    if not readings or not readings[0].text:
        raise item.wrong("alternatives", "a word")
    first, *others = readings
    speaker = item.text("speaker_label", "") or speakers.get(_key(start_s), "")
    word = Word(opening + first.text, start_s, end_s, first.confidence, tuple(o for o in others if o.text))
    return _Spoken(word, speaker or item.text("channel_label", UNKNOWN_SPEAKER))


def _confidence(reading: JsonReader) -> float:
    if reading.has("confidence"):
        return reading.number("confidence", least=0, most=1, written=True)
    # A word that was taken out for privacy ("[PII]") states its confidence there instead.
    redactions = reading.objects("redactions", required=False)
    if not redactions:
        raise FusionInputError(f"{reading.where}: confidence is missing")
    return redactions[0].number("confidence", least=0, most=1, written=True)


def _speakers_by_time(results: JsonReader) -> dict[str, str]:
    if not results.has("speaker_labels"):
        return {}
    return {
        _key(item.number("start_time", least=0, written=True)): item.text("speaker_label")
        for segment in results.inner("speaker_labels").objects("segments", required=False)
        for item in segment.objects("items", required=False)
    }


def _key(time_s: float) -> str:
    return f"{time_s:.3f}"


def _with_mark(spoken: _Spoken, mark: str) -> _Spoken:
    word = spoken.word
    marked = Word(word.text + mark, word.start_s, word.end_s, word.confidence, word.alternatives)
    return _Spoken(marked, spoken.speaker)


def _segments(spoken: list[_Spoken]) -> tuple[Segment, ...]:
    """One segment for each run of words by one speaker."""
    runs: list[list[_Spoken]] = []
    for one in spoken:
        if runs and runs[-1][-1].speaker == one.speaker:
            runs[-1].append(one)
        else:
            runs.append([one])
    return tuple(
        Segment(
            run[0].word.start_s,
            max(one.word.end_s for one in run),
            run[0].speaker,
            "sound",
            tuple(one.word for one in run),
        )
        for run in runs
    )
