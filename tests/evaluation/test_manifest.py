from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from gorggle_evaluation.manifest import ManifestError, ReferenceWord, read_manifest
from tests.evaluation.conftest import WriteManifest

A = {"media": "a.mp4", "text": "Bin blue."}
WORDS = [{"text": "bin", "start_s": 0.5, "end_s": 0.8}, {"text": "blue", "start_s": 0.8, "end_s": 1}]


def read_error(path: Path) -> str:
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_line_only_requires_media_and_text(write_manifest: WriteManifest) -> None:
    path = write_manifest(A, "", {**A, "id": "again", "group": "g", "notes": {"anything": 1}})
    manifest = read_manifest(path)
    first, second = manifest.entries
    assert (first.id, first.media, first.texts, first.group) == (
        "a.mp4",
        path.parent / "a.mp4",
        ("bin", "blue"),
        None,
    )
    assert (second.id, second.group) == ("again", "g")
    assert manifest.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_words_have_timestamps(write_manifest: WriteManifest) -> None:
    (entry,) = read_manifest(write_manifest({**A, "words": WORDS})).entries
    assert entry.words == (ReferenceWord("bin", 0.5, 0.8), ReferenceWord("blue", 0.8, 1.0))


def test_a_word_of_several_parts_has_a_start_on_the_first_and_an_end_on_the_last(
    write_manifest: WriteManifest,
) -> None:
    line = {"media": "a.mp4", "text": "Bin 21.", "words": [WORDS[0], {**WORDS[1], "text": "21"}]}
    (entry,) = read_manifest(write_manifest(line)).entries
    assert entry.words == (
        ReferenceWord("bin", 0.5, 0.8),
        ReferenceWord("twenty", 0.8, None),
        ReferenceWord("one", None, 1.0),
    )


def test_sentences_are_sorted_by_time_with_their_speakers(write_manifest: WriteManifest) -> None:
    sentences = [
        {"text": "so?", "speaker": "ben", "start_s": 2, "end_s": 3},
        {"text": "Bin blue", "speaker": 7, "start_s": 0.5, "end_s": 1, "words": WORDS},
    ]
    (entry,) = read_manifest(write_manifest({"media": "a.mp4", "sentences": sentences})).entries
    assert entry.texts == ("bin", "blue", "so")
    assert [word.speaker for word in entry.words] == ["7", "7", "ben"]
    assert entry.speakers == ("7", "ben")
    assert entry.words[1].start_s == 0.8
    assert entry.words[2].start_s is None


def test_speakers_are_only_used_if_all_sentences_have_one(write_manifest: WriteManifest) -> None:
    sentences = [{"text": "one", "speaker": "ann"}, {"text": "two"}]
    (entry,) = read_manifest(write_manifest({"media": "a.mp4", "sentences": sentences})).entries
    assert entry.speakers == ()
    assert entry.texts == ("one", "two")


def test_csv_has_a_header_and_quoted_texts(write_manifest: WriteManifest) -> None:
    path = write_manifest("media,text,group", 'a.mp4,"Yes, please",x', "", "b.mp4,no,", name="m.csv")
    first, second = read_manifest(path).entries
    assert first.texts == ("yes", "please")
    assert (first.group, second.group) == ("x", None)


def sentence(**fields: Any) -> dict[str, Any]:
    return {"media": "a.mp4", "sentences": [{"text": "bin blue", **fields}]}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{broken", "not valid JSON"),
        ("[1]", "found a list, expected an object"),
        ("null", "found null, expected an object"),
        ({"text": "x"}, "media is missing: expected the path of a clip"),
        ({"media": "a.mp4"}, "text is missing: expected the reference text"),
        ({"media": "a.mp4", "text": 5}, "text is 5, expected the reference text"),
        ({"media": "a.mp4", "text": "…"}, "has no words"),
        ({"media": "z.mp4", "text": "x"}, "media 'z.mp4' does not exist"),
        ({"media": "..", "text": "x"}, "does not exist (expected a file"),
        ({**A, "transcript": "x"}, "found the field 'transcript', expected media, text, words"),
        ({**A, "words": WORDS[:1]}, "words say 'bin', expected what text says: 'bin blue'"),
        ({**A, "words": {}}, "words must be a list of objects"),
        ({**A, "words": [{**WORDS[0], "start_s": 0.9}, WORDS[1]]}, "words[0].end_s is 0.8, expected"),
        ({**A, "words": [{**WORDS[0], "start_s": -1}, WORDS[1]]}, "words[0].start_s is -1, expected seconds"),
        ({**A, "words": [{**WORDS[0], "start_s": True}, WORDS[1]]}, "start_s is true, expected seconds"),
        ({**A, "words": [WORDS[0], {"text": "blue", "end_s": 1}]}, "words[1].start_s is missing"),
        ({**A, "words": [{**WORDS[0], "text": "…"}]}, "words[0].text is '…', which is not a word"),
        ({**A, "words": [{**WORDS[0], "start": 1}]}, "found the field of words[0] 'start'"),
        ('{"media": "a.mp4", "text": "a", "words": [{"text": "a", "start_s": NaN, "end_s": 1}]}', "is NaN"),
        ({"media": "a.mp4", "sentences": []}, "sentences must be a list of objects"),
        ({**sentence(), "words": WORDS}, "found both words and sentences"),
        ({**sentence(), "text": "other"}, "text is 'other', expected the sentences' text"),
        (sentence(speaker=[]), "sentences[0].speaker is [], expected a name"),
        (sentence(start_s=1), "sentences[0].end_s is missing, expected seconds"),
        (sentence(words=[{**WORDS[0], "end_s": 0}]), "sentences[0].words[0].end_s is 0"),
        ({**A, "id": ""}, "id is '', expected a name for the clip"),
        ({**A, "group": 3}, "group is 3, expected the name of a group"),
        (
            {"media": "a.mp4", "sentences": [{"text": "x", "speaker": n} for n in range(11)]},
            "found 11 speakers, expected at most 10",
        ),
    ],
)
def test_a_json_error_names_its_line(
    write_manifest: WriteManifest, line: dict[str, Any] | str, expected: str
) -> None:
    path = write_manifest({"media": "b.mp4", "text": "right"}, line)
    message = read_error(path)
    assert message.startswith(f"{path}:2: ")
    assert expected in message


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["media,words", "a.mp4,x"], ":1: found the columns media, words: expected media,text"),
        (["media,text,media", "a.mp4,x,a.mp4"], ":1: found the columns"),
        (["media,text", "a.mp4,x", "b.mp4,yes, please"], ":3: found 3 columns, expected 2"),
        (["media,text", 'a.mp4,"x', "b.mp4,y"], "invalid CSV"),
        (["media,text", '"a.mp4","x\ny"', "c.mp4,"], ":4: text is missing"),
        ([], ":1: found the columns (none)"),
    ],
)
def test_a_csv_error_names_its_line(write_manifest: WriteManifest, lines: list[str], expected: str) -> None:
    path = write_manifest(*lines, name="m.csv")
    if not lines:
        path.write_text("")
    assert expected in read_error(path)


def test_duplicate_ids_are_refused(write_manifest: WriteManifest) -> None:
    assert "2: the id 'a.mp4' is already used in line 1" in read_error(write_manifest(A, A))


def test_an_unusable_manifest_is_refused(tmp_path: Path, write_manifest: WriteManifest) -> None:
    assert "cannot be read: no such file" in read_error(tmp_path / "missing.jsonl")
    assert "has no clips" in read_error(write_manifest())
    (tmp_path / "latin.jsonl").write_bytes(b'{"media": "\xff"}')
    assert "is not UTF-8 text" in read_error(tmp_path / "latin.jsonl")
