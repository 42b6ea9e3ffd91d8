"""The manifest: clips and their reference transcripts. Every line is validated before the run starts."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gorggle_evaluation.text_normalization import normalize_words

FIELDS = ("media", "text", "words", "sentences", "id", "group", "notes")
SENTENCE_FIELDS = ("text", "speaker", "start_s", "end_s", "words")
WORD_FIELDS = ("text", "start_s", "end_s")
CSV_FIELDS = ("media", "text", "id", "group")
# Limits the exhaustive search for the mapping of speakers to faces.
MAX_SPEAKERS = 10


class ManifestError(Exception):
    """The manifest is invalid; the message names file and line, the value found and the value expected."""


@dataclass(frozen=True)
class ReferenceWord:
    """A normalized word, with timestamps and speaker if the manifest has them."""

    text: str
    start_s: float | None = None
    end_s: float | None = None
    speaker: str | None = None


@dataclass(frozen=True)
class Entry:
    """A clip and its reference words in order of time.

    Attributes:
        id: identifies the clip in the results; by default the media path as written.
        speakers: in order of appearance; empty if any sentence has no speaker.
    """

    id: str
    media: Path
    words: tuple[ReferenceWord, ...]
    group: str | None = None
    speakers: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the words' texts."""
        return tuple(word.text for word in self.words)


@dataclass(frozen=True)
class Manifest:
    """All entries of a file, and the file's checksum."""

    path: Path
    entries: tuple[Entry, ...]
    sha256: str


def read_manifest(path: Path) -> Manifest:
    """Read and validate a manifest: CSV if the file name ends in .csv, otherwise JSON Lines.

    Raises:
        ManifestError: the file cannot be read, is empty, or a line is invalid.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is not UTF-8 text: expected JSON Lines or CSV") from error
    lines = _parse_csv_lines(path, text) if path.suffix.lower() == ".csv" else _parse_json_lines(path, text)
    entries: list[Entry] = []
    lines_by_id: dict[str, int] = {}
    for number, values in lines:
        try:
            entry = _parse_entry(values, path.parent)
            if entry.id in lines_by_id:
                raise ManifestError(
                    f"the id {entry.id!r} is already used in line {lines_by_id[entry.id]}: ids must be unique"
                )
        except ManifestError as error:
            raise ManifestError(f"{path}:{number}: {error}") from None
        lines_by_id[entry.id] = number
        entries.append(entry)
    if not entries:
        raise ManifestError(f"{path} has no clips: add at least one line")
    return Manifest(path, tuple(entries), hashlib.sha256(content).hexdigest())


# --------------------------------------------------------------------------------------------------------------- lines


def _parse_json_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            raise ManifestError(
                f"{path}:{number}: found {_format_value(line.strip())}, which is not valid JSON ({error}): "
                'expected an object on one line, such as {"media": "a.mp4", "text": "reference text"}'
            ) from None
        if not isinstance(values, dict):
            raise ManifestError(
                f"{path}:{number}: found {_type_name(values)}, expected an object such as "
                '{"media": "a.mp4", "text": "reference text"}'
            )
        yield number, values


def _parse_csv_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) < len(header) or not {"media", "text"} <= set(header) <= set(CSV_FIELDS):
            raise ManifestError(
                f"{path}:1: found the columns {', '.join(header) or '(none)'}: expected media,text "
                "and optionally id and group"
            )
        number = reader.line_num + 1
        for row in reader:
            if row and len(row) != len(header):
                raise ManifestError(
                    f"{path}:{number}: found {len(row)} columns, expected {len(header)} "
                    f"({','.join(header)}): quote texts that contain commas"
                )
            if row:
                yield number, {name: value for name, value in zip(header, row, strict=True) if value}
            number = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(f"{path}:{reader.line_num}: invalid CSV: {error}") from None


# ------------------------------------------------------------------------------------------------------------- entries


def _parse_entry(values: dict[str, Any], folder: Path) -> Entry:
    _reject_unknown(values, FIELDS, "field")
    written = _get_text(values, "media", "the path of a clip, relative to the manifest")
    media = folder / written
    if not media.is_file():
        raise ManifestError(f"media {written!r} does not exist (expected a file at {media})")
    words, speakers = _parse_words(values)
    return Entry(
        id=_get_text(values, "id", "a name for the clip") if "id" in values else written,
        media=media,
        words=words,
        group=_get_text(values, "group", "the name of a group of clips") if "group" in values else None,
        speakers=speakers,
    )


def _parse_words(values: dict[str, Any]) -> tuple[tuple[ReferenceWord, ...], tuple[str, ...]]:
    if "sentences" not in values:
        return _parse_reference(values, "", None), ()
    if "words" in values:
        raise ManifestError("found both words and sentences: move the words into the sentences")
    sentences = values["sentences"]
    if not isinstance(sentences, list) or not sentences or not all(isinstance(s, dict) for s in sentences):
        raise ManifestError("sentences must be a list of objects with text, speaker, start_s, end_s, words")
    words: list[ReferenceWord] = []
    speakers: list[str | None] = []
    for prefix, sentence in _sort_sentences(sentences):
        _reject_unknown(sentence, SENTENCE_FIELDS, f"field of {prefix.rstrip('.')}")
        speakers.append(_parse_speaker(sentence, prefix))
        words += _parse_reference(sentence, prefix, speakers[-1])
    _check_text(values, words)
    named = tuple(dict.fromkeys(speaker for speaker in speakers if speaker is not None))
    if len(named) > MAX_SPEAKERS:
        raise ManifestError(f"found {len(named)} speakers, expected at most {MAX_SPEAKERS} in one clip")
    return tuple(words), () if None in speakers else named


def _sort_sentences(sentences: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Return sentences with their path in the line, sorted by start if all have timestamps."""
    located = [(f"sentences[{index}].", sentence) for index, sentence in enumerate(sentences)]
    spans = [
        _get_span(sentence, prefix)
        for prefix, sentence in located
        if "start_s" in sentence or "end_s" in sentence
    ]
    if len(spans) < len(located):
        return located
    order = sorted(range(len(located)), key=lambda index: spans[index])
    return [located[index] for index in order]


def _parse_reference(values: dict[str, Any], prefix: str, speaker: str | None) -> tuple[ReferenceWord, ...]:
    """Return the words of a line or sentence, with timestamps if given."""
    words = normalize_words(_get_text(values, f"{prefix}text", "the reference text"))
    if not words:
        raise ManifestError(
            f"{prefix}text is {_format_value(values['text'])}, which has no words: give the reference text or omit it"
        )
    if "words" not in values:
        return tuple(ReferenceWord(word, speaker=speaker) for word in words)
    timed = values["words"]
    if not isinstance(timed, list) or not all(isinstance(word, dict) for word in timed):
        raise ManifestError(f"{prefix}words must be a list of objects with text, start_s, end_s")
    reference = tuple(
        part
        for index, word in enumerate(timed)
        for part in _parse_timed_word(word, f"{prefix}words[{index}].", speaker)
    )
    if tuple(word.text for word in reference) != words:
        raise ManifestError(
            f"{prefix}words say {_format_value(' '.join(word.text for word in reference))}, "
            f"expected what {prefix}text says: {_format_value(' '.join(words))}"
        )
    return reference


def _parse_timed_word(values: dict[str, Any], prefix: str, speaker: str | None) -> tuple[ReferenceWord, ...]:
    """Return a word; of one that normalization splits ("21"), the first part has the start and the last the end."""
    _reject_unknown(values, WORD_FIELDS, f"field of {prefix.rstrip('.')}")
    normalized = normalize_words(_get_text(values, f"{prefix}text", "a word"))
    if not normalized:
        raise ManifestError(f"{prefix}text is {_format_value(values['text'])}, which is not a word")
    start_s, end_s = _get_span(values, prefix)
    last = len(normalized) - 1
    return tuple(
        ReferenceWord(text, start_s if index == 0 else None, end_s if index == last else None, speaker)
        for index, text in enumerate(normalized)
    )


def _parse_speaker(sentence: dict[str, Any], prefix: str) -> str | None:
    speaker = sentence.get("speaker")
    if speaker is None:
        return None
    if isinstance(speaker, bool) or not isinstance(speaker, str | int) or not str(speaker).strip():
        raise ManifestError(f"{prefix}speaker is {_format_value(speaker)}, expected a name or a whole number")
    return str(speaker)


def _check_text(values: dict[str, Any], words: Iterable[ReferenceWord]) -> None:
    """Check that the line's own text, if any, equals the text of its sentences."""
    if "text" not in values:
        return
    expected = tuple(word.text for word in words)
    if normalize_words(_get_text(values, "text", "the reference text")) != expected:
        raise ManifestError(
            f"text is {_format_value(values['text'])}, expected the sentences' text in order of time: "
            f"{_format_value(' '.join(expected))}"
        )


# -------------------------------------------------------------------------------------------------------------- values


def _get_text(values: dict[str, Any], prefix: str, meaning: str) -> str:
    name = prefix.rpartition(".")[2]
    if name not in values:
        raise ManifestError(f"{prefix} is missing: expected {meaning}")
    value = values[name]
    if not isinstance(value, str) or not value.strip():
        raise ManifestError(f"{prefix} is {_format_value(value)}, expected {meaning}")
    return value


def _get_span(values: dict[str, Any], prefix: str) -> tuple[float, float]:
    start_s, end_s = (_get_seconds(values, name, prefix) for name in ("start_s", "end_s"))
    if end_s < start_s:
        raise ManifestError(f"{prefix}end_s is {end_s:g}, expected {prefix}start_s ({start_s:g}) or later")
    return start_s, end_s


def _get_seconds(values: dict[str, Any], name: str, prefix: str) -> float:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ManifestError(
            f"{prefix}{name} is {_format_value(value)}, expected seconds from the clip's start"
        )
    return float(value)


def _reject_unknown(values: dict[str, Any], allowed: tuple[str, ...], what: str) -> None:
    for name in values:
        if name not in allowed:
            raise ManifestError(f"found the {what} {name!r}, expected {', '.join(allowed)}")


def _type_name(value: Any) -> str:
    return {list: "a list", str: "a string", type(None): "null", bool: "true or false"}.get(
        type(value), "a number"
    )


def _format_value(value: Any) -> str:
    """Return a value as JSON on one line, truncated to 60 characters."""
    if value is None:
        return "missing"
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
