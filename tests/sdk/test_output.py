"""Output files of the command line."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from gorggle.cli.output import build_output_paths, write_atomically


@pytest.mark.parametrize(
    ("files", "output", "expected"),
    [
        (["a.mp4"], "out.srt", ["out.srt"]),
        (["a.mp4"], "folder", ["folder/a.srt"]),
        (["a.mp4"], "new/", ["new/a.srt"]),
        (["x/a.mp4", "b.webm"], "new", ["new/a.srt", "new/b.srt"]),
        (
            ["a.mp4", "a.webm", "y/a.mp4", "a.mp4"],
            "new",
            ["new/a.srt", "new/a.webm.srt", "new/a.mp4.srt", "new/a-2.srt"],
        ),
        (["-", "a"], "new", ["new/stdin.srt", "new/a.srt"]),
    ],
)
def test_each_input_file_has_a_unique_output_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], output: str, expected: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    assert [str(path) for path in build_output_paths(files, output, "srt")] == expected


def test_files_are_replaced_atomically(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    write_atomically(target, "first")
    contents: set[str] = set()
    stop = threading.Event()

    def poll() -> None:
        while not stop.is_set():
            contents.add(target.read_text()[:5])

    poller = threading.Thread(target=poll)
    poller.start()
    for number in range(50):
        write_atomically(target, ("x" if number % 2 else "y") * 100_000)
    stop.set()
    poller.join()
    assert contents <= {"first", "xxxxx", "yyyyy"}
    assert [path.name for path in target.parent.iterdir()] == ["a.txt"]


def test_writing_through_a_symbolic_link_replaces_its_target(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("before")
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_atomically(tmp_path / "link.txt", "after")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "after"


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_atomically(tmp_path / "a.txt", "\ud800")
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_has_the_umask_permissions(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.txt", "text")
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~umask
