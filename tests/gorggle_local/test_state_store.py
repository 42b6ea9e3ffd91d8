"""Tests of the folder with the state of the local AWS: atomic writes, damaged files, and locking."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from gorggle_local.aws.state_store import SavedState, StateFolder, StateStoreError, StoredObject, read_chunks

ITEM = {"job_id": {"S": "a" * 32}, "name": {"S": 'naïve\n"quoted".mp4'}}


def add_object(
    folder: StateFolder, content: bytes, key: str = "uploads/x/demo.mp4", size: int = -1
) -> StoredObject:
    size = len(content) if size < 0 else size
    file = folder.add_content([content[:3], content[3:]])
    return StoredObject("b", key, "v1", file, size, "e", "2026-01-02T03:04:05", {"content-type": "video/mp4"})


def list_object_files(path: Path) -> set[str]:
    return {each.name for each in (path / "objects").iterdir()}


def test_saved_state_is_loaded(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    state = SavedState([add_object(folder, b"a video")], {"jobs": [ITEM], "others": []})
    assert folder.save(state)
    folder.close()
    reopened = StateFolder(tmp_path)
    assert reopened.load() == state
    content = reopened.get_content(state.objects[0].file)
    assert b"".join(read_chunks(content)) == b"a video"
    assert (content.seek(2), content.read(3)) == (2, b"vid")
    reopened.close()


def test_a_new_folder_is_empty_and_private(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "new" / "data")
    assert folder.load() == SavedState()
    assert folder.path.stat().st_mode & 0o777 == 0o700
    folder.close()


def test_unchanged_state_is_not_written(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    assert folder.save(SavedState(tables={"jobs": [ITEM]}))
    assert not folder.save(SavedState(tables={"jobs": [ITEM]}))
    assert folder.save(SavedState(tables={"jobs": []}))
    folder.close()


def test_incomplete_files_of_a_killed_process_are_ignored(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    complete, truncated = add_object(folder, b"complete"), add_object(folder, b"cut", size=4)
    missing = StoredObject(**{**complete.__dict__, "file": "0" * 32})
    outside = StoredObject(**{**complete.__dict__, "file": "../state.json", "size_bytes": 1})
    folder.save(SavedState([complete, truncated, missing, outside]))
    (tmp_path / "state.json.draft").write_text('{"format": 1, "obj')
    (tmp_path / "objects" / "1234.draft").write_bytes(b"half")
    folder.add_content([b"not referenced"])
    folder.close()
    reopened = StateFolder(tmp_path)
    assert reopened.load().objects == [complete]
    assert list_object_files(tmp_path) == {complete.file}
    reopened.close()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 2}', '{"format": 1, "objects": [{}], "tables": {}}']
)
def test_a_damaged_state_is_rejected_and_not_changed(tmp_path: Path, text: str) -> None:
    folder = StateFolder(tmp_path)
    (tmp_path / "state.json").write_text(text)
    content = folder.add_content([b"a video"])
    with pytest.raises(StateStoreError, match=r"is damaged .*move .* away to start with an empty state"):
        folder.load()
    assert (tmp_path / "state.json").read_text() == text
    assert list_object_files(tmp_path) == {content}
    folder.close()


def test_a_folder_is_locked_for_one_process(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    with pytest.raises(StateStoreError, match="is in use"):
        StateFolder(tmp_path, timeout_s=0.2)
    threading.Timer(0.3, folder.close).start()
    StateFolder(tmp_path).close()
