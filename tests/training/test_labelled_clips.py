"""Readers of recorded clips: manifests, the GRID corpus and LRS3."""

import json
import math
from pathlib import Path

import pytest

from gorggle_evaluation.manifest import ManifestError
from gorggle_training.labelled_clips import (
    CorpusError,
    LabelledClip,
    RejectedClip,
    parse_grid_alignment,
    parse_lrs3_label,
    read_grid_corpus,
    read_lrs3,
    read_manifest_clips,
)
from gorggle_training.speech_synthesis import TimedWord

GRID_ALIGNMENT = (
    "0 14500 sil\n14500 19750 bin\n19750 24250 blue\n24250 25000 sp\n25000 29750 at\n29750 74500 sil\n"
)
LRS3_LABEL = """Text:  IT'S {LG} TRUE
Conf:  4

WORD START END ASDSCORE
IT'S 0.11 0.25 7.1
{LG} 0.25 0.40 2.0
TRUE 0.40 0.72 8.3
"""


def write_file(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_grid_times_are_samples_at_25_khz() -> None:
    assert parse_grid_alignment(GRID_ALIGNMENT) == (
        TimedWord("bin", 0.58, 0.79),
        TimedWord("blue", 0.79, 0.97),
        TimedWord("at", 1.0, 1.19),
    )


@pytest.mark.parametrize("alignment", ["align/s1/bbaf2n.align", "s1/align/bbaf2n.align", "s1/bbaf2n.align"])
def test_the_grid_corpus_is_read_however_its_archives_are_unpacked(tmp_path: Path, alignment: str) -> None:
    video = write_file(tmp_path / "s1" / "bbaf2n.mpg")
    write_file(tmp_path / alignment, GRID_ALIGNMENT)
    (clip,) = read_grid_corpus(tmp_path)
    assert isinstance(clip, LabelledClip)
    assert (clip.media, clip.text) == (video, "bin blue at")


def test_unusable_grid_clips_are_rejected_with_a_reason(tmp_path: Path) -> None:
    for name in ("lacking", "broken", "silent"):
        write_file(tmp_path / "s2" / f"{name}.mpg")
    write_file(tmp_path / "s2" / "broken.align", "0 12")
    write_file(tmp_path / "s2" / "silent.align", "0 74500 sil")
    reasons = {
        clip.media.stem: clip.reason for clip in read_grid_corpus(tmp_path) if isinstance(clip, RejectedClip)
    }
    assert reasons["lacking"].startswith("it has no labels: expected")
    assert "found '0 12', expected start, end and word" in reasons["broken"]
    assert reasons["silent"] == "it has no words"


def test_lrs3_labels_give_word_times_from_the_table() -> None:
    assert parse_lrs3_label(LRS3_LABEL) == (TimedWord("it's", 0.11, 0.25), TimedWord("true", 0.4, 0.72))


def test_lrs3_labels_without_a_table_give_words_without_times() -> None:
    words = parse_lrs3_label("Text:  IT'S {LG} TRUE\nConf:  4\n")
    assert [word.text for word in words] == ["it's", "true"]
    assert all(math.isnan(word.start_s) for word in words)


def test_lrs3_is_read_without_its_test_split(tmp_path: Path) -> None:
    for split in ("pretrain", "trainval", "test"):
        write_file(tmp_path / split / "speaker" / "00001.mp4")
        write_file(tmp_path / split / "speaker" / "00001.txt", LRS3_LABEL)
    write_file(tmp_path / "trainval" / "speaker" / "00002.mp4")
    write_file(tmp_path / "trainval" / "speaker" / "00002.txt", "nothing")
    clips = list(read_lrs3(tmp_path))
    assert [clip.media.parts[-3] for clip in clips] == ["pretrain", "trainval", "trainval"]
    assert isinstance(clips[-1], RejectedClip)
    assert "expected the first line to begin with 'Text:'" in clips[-1].reason


@pytest.mark.parametrize(
    ("read", "expected"), [(read_grid_corpus, "s1/bbaf2n.mpg"), (read_lrs3, "trainval/SPEAKER/00001.mp4")]
)
def test_a_folder_without_clips_is_refused(tmp_path: Path, read: object, expected: str) -> None:
    with pytest.raises(CorpusError, match=expected):
        list(read(tmp_path))  # type: ignore[operator]


def test_a_manifest_gives_words_with_and_without_times(tmp_path: Path) -> None:
    for name in ("timed", "untimed", "dialogue", "disordered"):
        write_file(tmp_path / f"{name}.mp4")
    timed = [{"text": "Go", "start_s": 0.2, "end_s": 0.4}, {"text": "now!", "start_s": 0.4, "end_s": 0.8}]
    sentences = [{"text": "go", "speaker": "a"}, {"text": "now", "speaker": "b"}]
    rows = [
        {"media": "timed.mp4", "text": "Go now!", "words": timed},
        {"media": "untimed.mp4", "text": "Go, now."},
        {"media": "dialogue.mp4", "sentences": sentences},
        {"media": "disordered.mp4", "text": "now go", "words": timed[::-1]},
    ]
    manifest = write_file(tmp_path / "clips.jsonl", "\n".join(map(json.dumps, rows)))
    with_times, without_times, dialogue, disordered = read_manifest_clips(manifest)
    assert isinstance(with_times, LabelledClip)
    assert with_times.words == (TimedWord("go", 0.2, 0.4), TimedWord("now", 0.4, 0.8))
    assert isinstance(without_times, LabelledClip)
    assert without_times.text == "go now"
    assert all(math.isnan(word.end_s) for word in without_times.words)
    assert isinstance(dialogue, RejectedClip)
    assert "it has 2 speakers" in dialogue.reason
    assert isinstance(disordered, RejectedClip)
    assert disordered.reason == "the times of its words are not in order"


def test_an_invalid_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="has no clips"):
        list(read_manifest_clips(write_file(tmp_path / "clips.jsonl")))
