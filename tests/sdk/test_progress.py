"""The progress line, on a fake terminal."""

from __future__ import annotations

import io

import pytest

from gorggle import MediaInfo, Progress
from gorggle.cli import progress as module
from gorggle.cli.progress import ProgressLine, format_duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def current_line(self) -> str:
        """Return the text after the last clear sequence."""
        return self.getvalue().rsplit("\r\x1b[K", 1)[-1]


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test advances."""
    time_s = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: time_s[0])
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return time_s


def media(duration_s: float | None) -> MediaInfo:
    return MediaInfo("mp4", "h264", "aac", 640, 480, 25.0, duration_s, 0)


def test_fraction_and_eta_are_computed_from_media_time(now: list[float]) -> None:
    terminal = Terminal()
    line = ProgressLine(terminal, "clip.mp4", 1_000_000)
    line.handle_event(media(60))
    now[0] += 5
    line.add_bytes(500_000)
    now[0] += 5
    line.handle_event(Progress(400_000, 30, 15, 1))
    assert (
        terminal.current_line()
        == "clip.mp4  [#####---------------]  25%  0.5 MB sent  00:15 transcribed of 01:00  ETA 00:30"
    )


def test_the_fraction_is_computed_from_bytes_without_a_duration(now: list[float]) -> None:
    terminal = Terminal()
    line = ProgressLine(terminal, "clip.mp4", 1_000_000)
    line.handle_event(media(None))
    now[0] += 1
    line.handle_event(Progress(500_000, 30, 15, 1))
    assert terminal.current_line() == "clip.mp4  [##########----------]  50%  0.0 MB sent  00:15 transcribed"


def test_a_stream_of_unknown_size_has_no_fraction() -> None:
    terminal = Terminal()
    ProgressLine(terminal, "-").add_bytes(2_500_000)
    assert terminal.current_line() == "-  2.5 MB sent  00:00 transcribed"


def test_the_line_is_redrawn_at_most_ten_times_per_second(now: list[float]) -> None:
    terminal = Terminal()
    line = ProgressLine(terminal, "clip.mp4", 1000)
    for _ in range(100):
        now[0] += 0.01
        line.add_bytes(1)
    assert 9 <= terminal.getvalue().count("\r") <= 11


def test_a_message_replaces_the_statistics() -> None:
    terminal = Terminal()
    line = ProgressLine(terminal, "clip.mp4", 1000)
    line.set_message("bin\nblue")
    assert terminal.current_line() == "clip.mp4  bin blue"
    line.set_message("")
    assert "MB sent" in terminal.current_line()


def test_the_line_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    terminal = Terminal()
    line = ProgressLine(terminal, "a/very/long/path/to/some/file/somewhere.mp4", 1000)
    line.add_bytes(10)
    assert len(terminal.current_line()) < 40
    line.set_message("word " * 50)
    assert len(terminal.current_line()) < 40


def test_a_closed_line_stays_cleared(now: list[float]) -> None:
    terminal = Terminal()
    line = ProgressLine(terminal, "clip.mp4", 1000)
    line.add_bytes(10)
    line.clear()
    assert terminal.current_line() == ""
    now[0] += 1
    line.add_bytes(10)
    assert terminal.current_line() != ""
    line.close()
    now[0] += 1
    line.add_bytes(10)
    assert terminal.current_line() == ""


def test_nothing_is_drawn_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    line = ProgressLine(file, "clip.mp4", 1000)
    line.add_bytes(10)
    line.set_message("note")
    line.close()
    assert file.getvalue() == ""
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    ProgressLine(terminal, "clip.mp4", 1000).add_bytes(10)
    assert terminal.getvalue() == ""


def test_durations_are_rounded_to_seconds() -> None:
    assert [format_duration(time_s) for time_s in (0, 59.6, 61, 3599.7)] == [
        "00:00",
        "01:00",
        "01:01",
        "1:00:00",
    ]
