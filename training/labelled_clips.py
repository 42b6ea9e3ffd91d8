"""Recorded clips with their words, from a manifest of ``gorggle evaluate``, the GRID corpus or LRS3.

Readers yield a ``LabelledClip`` for each usable clip and a ``RejectedClip`` with the reason for each other one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gorggle_evaluation.manifest import Entry, read_manifest
from gorggle_evaluation.text_normalization import normalize_words
from gorggle_training.speech_synthesis import TimedWord

# Times in GRID's alignments are samples of its 25 kHz recordings.
GRID_SAMPLE_RATE_HZ = 25_000
GRID_SILENCES = frozenset({"sil", "sp"})
# Where the alignments are, depending on how the corpus's archives are unpacked.
GRID_ALIGNMENTS = ("align/{speaker}/{name}.align", "{speaker}/align/{name}.align", "{speaker}/{name}.align")
# The test split is for evaluation.
LRS3_SPLITS = ("pretrain", "trainval")

_LRS3_TEXT, _LRS3_TABLE = "Text:", ["WORD", "START", "END"]
_ANNOTATION = re.compile(r"\{[^}]*\}")  # LRS3's marks of noise and laughter


class CorpusError(Exception):
    """A corpus cannot be used; the message says what was found, what was expected and what to do."""


@dataclass(frozen=True)
class LabelledClip:
    """A clip of one speaker.

    Attributes:
        media: video file with audio.
        words: normalized, in order, timed from the clip's start; times are NaN if unknown.
    """

    media: Path
    words: tuple[TimedWord, ...]

    @property
    def text(self) -> str:
        """Return the words, joined by spaces."""
        return " ".join(word.text for word in self.words)


@dataclass(frozen=True)
class RejectedClip:
    """A clip that cannot be used, and the reason."""

    media: Path
    reason: str


ClipOrRejection = LabelledClip | RejectedClip
Parser = Callable[[str], tuple[TimedWord, ...]]


def read_manifest_clips(path: Path) -> Iterator[ClipOrRejection]:
    """Yield the clips of a manifest of ``gorggle evaluate``.

    Raises:
        ManifestError: the manifest is invalid.
    """
    return map(_convert_entry, read_manifest(path).entries)


def read_grid_corpus(folder: Path) -> Iterator[ClipOrRejection]:
    """Yield the clips of the GRID corpus: ``sN/*.mpg`` with alignments in one of ``GRID_ALIGNMENTS``.

    Raises:
        CorpusError: the folder has no such clips.
    """
    videos = sorted(folder.glob("s[0-9]*/**/*.mpg"))
    if not videos:
        raise CorpusError(f"{folder} has no clips of the GRID corpus: expected files such as s1/bbaf2n.mpg")
    for video in videos:
        speaker = video.relative_to(folder).parts[0]
        candidates = [pattern.format(speaker=speaker, name=video.stem) for pattern in GRID_ALIGNMENTS]
        yield _read_labels(video, [folder / candidate for candidate in candidates], parse_grid_alignment)


def read_lrs3(folder: Path) -> Iterator[ClipOrRejection]:
    """Yield the clips of LRS3's training splits: ``pretrain|trainval/SPEAKER/NNNNN.mp4``, each with a ``.txt``.

    Raises:
        CorpusError: the folder has no such clips.
    """
    videos = [video for split in LRS3_SPLITS for video in sorted(folder.glob(f"{split}/*/*.mp4"))]
    if not videos:
        raise CorpusError(
            f"{folder} has no clips of LRS3's training splits: expected files such as trainval/SPEAKER/00001.mp4"
        )
    for video in videos:
        yield _read_labels(video, [video.with_suffix(".txt")], parse_lrs3_label)


def parse_grid_alignment(text: str) -> tuple[TimedWord, ...]:
    """Parse lines of start, end and word; silences are omitted.

    Raises:
        ValueError: a line is malformed.
    """
    words = []
    for line in filter(str.strip, text.splitlines()):
        start, end, word = _split_row(line, "start, end and word")
        if word not in GRID_SILENCES:
            words.append(_make_word(word, int(start) / GRID_SAMPLE_RATE_HZ, int(end) / GRID_SAMPLE_RATE_HZ))
    return tuple(words)


def parse_lrs3_label(text: str) -> tuple[TimedWord, ...]:
    """Parse a label file: its table of words and times if it has one, otherwise its text.

    Raises:
        ValueError: it has neither, or a row is malformed.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    table = next((row for row, line in enumerate(lines, 1) if line.split()[:3] == _LRS3_TABLE), None)
    if table is not None:
        rows = [_split_row(line, "word, start, end") for line in lines[table:]]
        return tuple(
            _make_word(word, float(start), float(end))
            for word, start, end in rows
            if _ANNOTATION.sub("", word)
        )
    if not lines or not lines[0].startswith(_LRS3_TEXT):
        raise ValueError(f"expected the first line to begin with {_LRS3_TEXT!r}")
    spoken = _ANNOTATION.sub(" ", lines[0].removeprefix(_LRS3_TEXT))
    return tuple(TimedWord(word, math.nan, math.nan) for word in normalize_words(spoken))


def _read_labels(video: Path, candidates: list[Path], parse: Parser) -> ClipOrRejection:
    labels = next((path for path in candidates if path.is_file()), None)
    if labels is None:
        return RejectedClip(video, f"it has no labels: expected {' or '.join(map(str, candidates))}")
    try:
        words = parse(labels.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        return RejectedClip(video, f"{labels} cannot be used: {error}")
    return _check_words(LabelledClip(video, words))


def _convert_entry(entry: Entry) -> ClipOrRejection:
    if len(entry.speakers) > 1:
        return RejectedClip(entry.media, f"it has {len(entry.speakers)} speakers; expected one: cut the clip")
    words = [
        TimedWord(
            word.text,
            math.nan if word.start_s is None else word.start_s,
            math.nan if word.end_s is None else word.end_s,
        )
        for word in entry.words
    ]
    return _check_words(LabelledClip(entry.media, tuple(words)))


def _check_words(clip: LabelledClip) -> ClipOrRejection:
    """Reject a clip without words, or whose times are not in order; clips with some untimed words have none."""
    times_s = [time_s for word in clip.words for time_s in (word.start_s, word.end_s)]
    if not times_s:
        return RejectedClip(clip.media, "it has no words")
    if any(map(math.isnan, times_s)):
        return LabelledClip(
            clip.media, tuple(TimedWord(word.text, math.nan, math.nan) for word in clip.words)
        )
    if any(word.end_s < word.start_s for word in clip.words) or times_s[::2] != sorted(times_s[::2]):
        return RejectedClip(clip.media, "the times of its words are not in order")
    return clip


def _make_word(text: str, start_s: float, end_s: float) -> TimedWord:
    normalized = normalize_words(text)
    if len(normalized) != 1:
        raise ValueError(f"found {text!r}, expected one word")
    return TimedWord(normalized[0], start_s, end_s)


def _split_row(line: str, columns: str) -> tuple[str, str, str]:
    values = line.split()
    if len(values) < 3:
        raise ValueError(f"found {line!r}, expected {columns}")
    return values[0], values[1], values[2]
