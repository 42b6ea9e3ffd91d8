"""Parser of Amazon Transcribe's result, as the service writes it to S3.

Source: the service's guide, "Data input and output" and "Partitioning speakers (diarization)". Numbers are strings;
punctuation marks are items without times; a word's speaker is in the item or, in older results, only in
``speaker_labels``, keyed by the item's time. Unused fields are ignored because Amazon adds new ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby

from gorggle_fusion.errors import FusionInputError
from gorggle_fusion.json_fields import JsonReader
from gorggle_fusion.types import UNKNOWN_SPEAKER, Alternative, Segment, Window, Word

DOCUMENT_NAME = "Amazon Transcribe's result"
# Marks that precede the word they belong to; all others follow it.
OPENING_MARKS = frozenset("¿¡([{“‘«「『（")


@dataclass(frozen=True, slots=True)
class _SpokenWord:
    word: Word
    speaker: str


def parse_transcribe_result(document: object, duration_s: float) -> Window:
    """Parse a completed transcription.

    Args:
        document: the JSON at ``TranscriptFileUri``.
        duration_s: duration of the media, which the result does not contain.

    Raises:
        FusionInputError: the job is not complete, or the document is not a result of Transcribe.
    """
    fields = JsonReader.parse(document, DOCUMENT_NAME)
    if fields.has("status") and fields.get_text("status") != "COMPLETED":
        raise fields.make_error("status", "COMPLETED")
    results = fields.get_object("results")
    speakers = _map_speakers_by_time(results)
    spoken: list[_SpokenWord] = []
    opening = ""
    for item in results.get_objects("items"):
        kind = item.get_choice("type", "pronunciation", "punctuation")
        content = _parse_content(item)
        if kind == "pronunciation":
            spoken.append(_parse_word(item, opening, speakers))
            opening = ""
        elif content in OPENING_MARKS:
            opening += content
        elif spoken:
            word = spoken[-1].word
            spoken[-1] = replace(spoken[-1], word=replace(word, text=word.text + content))
    segments = _group_by_speaker(sorted(spoken, key=lambda s: (s.word.start_s, s.word.end_s)))
    last_s = max((segment.end_s for segment in segments), default=0.0)
    return Window(0.0, max(duration_s, last_s), segments)


def parse_transcribe_language(document: object) -> str:
    """Return the specified or identified language as BCP 47; empty if the result has none."""
    return JsonReader.parse(document, DOCUMENT_NAME).get_object("results").get_text("language_code", "")


def _parse_content(item: JsonReader) -> str:
    alternatives = item.get_objects("alternatives")
    if not alternatives:
        raise item.make_error("alternatives", "at least one")
    return " ".join(alternatives[0].get_text("content").split())


def _parse_word(item: JsonReader, opening: str, speakers: dict[str, str]) -> _SpokenWord:
    start_s = item.get_number("start_time", minimum=0, allow_string=True)
    end_s = item.get_number("end_time", minimum=start_s, allow_string=True)
    alternatives = [
        Alternative(" ".join(alternative.get_text("content").split()), _parse_confidence(alternative))
        for alternative in item.get_objects("alternatives")
    ]
    if not alternatives or not alternatives[0].text:
        raise item.make_error("alternatives", "a word")
    first, *others = alternatives
    speaker = item.get_text("speaker_label", "") or speakers.get(_make_time_key(start_s), "")
    word = Word(opening + first.text, start_s, end_s, first.confidence, tuple(o for o in others if o.text))
    return _SpokenWord(word, speaker or item.get_text("channel_label", UNKNOWN_SPEAKER))


def _parse_confidence(alternative: JsonReader) -> float:
    if alternative.has("confidence"):
        return alternative.get_number("confidence", minimum=0, maximum=1, allow_string=True)
    # Redacted words ("[PII]") have their confidence here.
    redactions = alternative.get_objects("redactions", required=False)
    if not redactions:
        raise FusionInputError(f"{alternative.location}: confidence is missing")
    return redactions[0].get_number("confidence", minimum=0, maximum=1, allow_string=True)


def _map_speakers_by_time(results: JsonReader) -> dict[str, str]:
    if not results.has("speaker_labels"):
        return {}
    return {
        _make_time_key(item.get_number("start_time", minimum=0, allow_string=True)): item.get_text(
            "speaker_label"
        )
        for segment in results.get_object("speaker_labels").get_objects("segments", required=False)
        for item in segment.get_objects("items", required=False)
    }


def _make_time_key(time_s: float) -> str:
    return f"{time_s:.3f}"


def _group_by_speaker(spoken: list[_SpokenWord]) -> tuple[Segment, ...]:
    """Return one segment per run of words by one speaker."""
    segments = []
    for speaker, run in groupby(spoken, key=lambda one: one.speaker):
        words = tuple(one.word for one in run)
        end_s = max(word.end_s for word in words)
        segments.append(Segment(words[0].start_s, end_s, speaker, "audio", words))
    return tuple(segments)
