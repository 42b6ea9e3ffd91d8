"""The manifest: which clips to read, and what is said in them. Every line is checked before anything is read."""

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
# The mapping of speakers to faces is searched for exhaustively.
MAX_SPEAKERS = 10


class ManifestError(Exception):
    """A line of the manifest is wrong; the message names file and line, what was found and what was expected."""


@dataclass(frozen=True)
class ReferenceWord:
    """A word as it is compared; its times and its speaker where the manifest tells them."""

    text: str
    start_s: float | None = None
    end_s: float | None = None
    speaker: str | None = None


@dataclass(frozen=True)
class Entry:
    """A clip and everything that is said in it, in order of time.

    Attributes:
        id: names the clip in the results; the media's path as written where the manifest gives none.
        speakers: those that the manifest names, in order of appearance; empty where it leaves some sentence's out.
    """

    id: str
    media: Path
    words: tuple[ReferenceWord, ...]
    group: str | None = None
    speakers: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The words alone."""
        return tuple(word.text for word in self.words)


@dataclass(frozen=True)
class Manifest:
    """All entries of a file, and the checksum of the file."""

    path: Path
    entries: tuple[Entry, ...]
    sha256: str


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest: CSV where the file is called so, JSON Lines otherwise.

    Raises:
        ManifestError: it cannot be read, is empty, or a line is wrong.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is not UTF-8 text: give JSON Lines or CSV") from error
    lines = _parse_csv_lines(path, text) if path.suffix.lower() == ".csv" else _parse_json_lines(path, text)
    entries: list[Entry] = []
    line_of_id: dict[str, int] = {}
    for number, values in lines:
        try:
            entry = _parse_entry(values, path.parent)
            if entry.id in line_of_id:
                raise ManifestError(
                    f"the id {entry.id!r} is that of line {line_of_id[entry.id]}: give each line an id of its own"
                )
        except ManifestError as error:
            raise ManifestError(f"{path}:{number}: {error}") from None
        line_of_id[entry.id] = number
        entries.append(entry)
    if not entries:
        raise ManifestError(f"{path} names no clip: give at least one line")
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
                f"{path}:{number}: found {_format_value(line.strip())}, which is no JSON ({error}): "
                'expected an object on one line, such as {"media": "a.mp4", "text": "what is said"}'
            ) from None
        if not isinstance(values, dict):
            raise ManifestError(
                f"{path}:{number}: found {_type_name(values)}, expected an object such as "
                '{"media": "a.mp4", "text": "what is said"}'
            )
        yield number, values


def _parse_csv_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) < len(header) or not {"media", "text"} <= set(header) <= set(CSV_FIELDS):
            raise ManifestError(
                f"{path}:1: found the columns {', '.join(header) or '(none)'}: expected media,text "
                "and, if you like, id and group"
            )
        number = reader.line_num + 1
        for row in reader:
            if row and len(row) != len(header):
                raise ManifestError(
                    f"{path}:{number}: found {len(row)} columns, expected {len(header)} "
                    f"({','.join(header)}): put quotes around a text with commas"
                )
            if row:
                yield number, {name: value for name, value in zip(header, row, strict=True) if value}
            number = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(f"{path}:{reader.line_num}: this is no CSV: {error}") from None


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
        raise ManifestError("found both words and sentences: put the words into the sentences")
    sentences = values["sentences"]
    if not isinstance(sentences, list) or not sentences or not all(isinstance(s, dict) for s in sentences):
        raise ManifestError("sentences must be a list of objects with text, speaker, start_s, end_s, words")
    words: list[ReferenceWord] = []
    speakers: list[str | None] = []
    for place, sentence in _sort_sentences(sentences):
        _reject_unknown(sentence, SENTENCE_FIELDS, f"field of {place.rstrip('.')}")
        speakers.append(_parse_speaker(sentence, place))
        words += _parse_reference(sentence, place, speakers[-1])
    _check_text(values, words)
    named = tuple(dict.fromkeys(speaker for speaker in speakers if speaker is not None))
    if len(named) > MAX_SPEAKERS:
        raise ManifestError(f"found {len(named)} speakers, expected at most {MAX_SPEAKERS} in one clip")
    return tuple(words), () if None in speakers else named


def _sort_sentences(sentences: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Sentences with their places in the line, by their start where all tell it."""
    placed = [(f"sentences[{index}].", sentence) for index, sentence in enumerate(sentences)]
    spans = [
        _get_span(sentence, place)
        for place, sentence in placed
        if "start_s" in sentence or "end_s" in sentence
    ]
    if len(spans) < len(placed):
        return placed
    order = sorted(range(len(placed)), key=lambda index: spans[index])
    return [placed[index] for index in order]


def _parse_reference(values: dict[str, Any], prefix: str, speaker: str | None) -> tuple[ReferenceWord, ...]:
    """The words of a line or of a sentence, with times where there are any."""
    words = normalize_words(_get_text(values, f"{prefix}text", "what is said"))
    if not words:
        raise ManifestError(
            f"{prefix}text is {_format_value(values['text'])}, which holds no word: give what is said, or leave it out"
        )
    if "words" not in values:
        return tuple(ReferenceWord(word, speaker=speaker) for word in words)
    timed = values["words"]
    if not isinstance(timed, list) or not all(isinstance(word, dict) for word in timed):
        raise ManifestError(f"{prefix}words must be a list of objects with text, start_s, end_s")
    said = tuple(
        _parse_timed_word(word, f"{prefix}words[{index}].", speaker) for index, word in enumerate(timed)
    )
    if tuple(word.text for word in said) != words:
        raise ManifestError(
            f"{prefix}words say {_format_value(' '.join(word.text for word in said))}, "
            f"expected what {prefix}text says: {_format_value(' '.join(words))}"
        )
    return said


def _parse_timed_word(values: dict[str, Any], prefix: str, speaker: str | None) -> ReferenceWord:
    _reject_unknown(values, WORD_FIELDS, f"field of {prefix.rstrip('.')}")
    found = normalize_words(_get_text(values, f"{prefix}text", "a word"))
    if len(found) != 1:
        raise ManifestError(
            f"{prefix}text is {_format_value(values['text'])}, compared as {len(found)} words: "
            "expected one, with times of its own"
        )
    start_s, end_s = _get_span(values, prefix)
    return ReferenceWord(found[0], start_s, end_s, speaker)


def _parse_speaker(sentence: dict[str, Any], prefix: str) -> str | None:
    speaker = sentence.get("speaker")
    if speaker is None:
        return None
    if isinstance(speaker, bool) or not isinstance(speaker, str | int) or not str(speaker).strip():
        raise ManifestError(f"{prefix}speaker is {_format_value(speaker)}, expected a name or a whole number")
    return str(speaker)


def _check_text(values: dict[str, Any], words: Iterable[ReferenceWord]) -> None:
    """Where a line has sentences, its own text is not needed; where it stands there, it must say the same."""
    if "text" not in values:
        return
    expected = tuple(word.text for word in words)
    if normalize_words(_get_text(values, "text", "what is said")) != expected:
        raise ManifestError(
            f"text is {_format_value(values['text'])}, expected what the sentences say in order of time: "
            f"{_format_value(' '.join(expected))}"
        )


# -------------------------------------------------------------------------------------------------------------- values


def _get_text(values: dict[str, Any], place: str, meaning: str) -> str:
    name = place.rpartition(".")[2]
    if name not in values:
        raise ManifestError(f"{place} is missing: expected {meaning}")
    value = values[name]
    if not isinstance(value, str) or not value.strip():
        raise ManifestError(f"{place} is {_format_value(value)}, expected {meaning}")
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
    return {list: "a list", str: "a text", type(None): "null", bool: "true or false"}.get(
        type(value), "a number"
    )


def _format_value(value: Any) -> str:
    """A value as JSON on one line, cut where it is long."""
    if value is None:
        return "missing"
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
