"""Where the command line writes: standard output, a file, a folder of files, and its complaints."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gorggle.results import Transcript

SUFFIXES = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt"}
STDIN_NAME = "stdin"


def format_transcript(transcript: Transcript, output_format: str, *, on_one_line: bool = False) -> str:
    """A transcript in one of the command line's formats, with a line break at its end."""
    match output_format:
        case "json":
            return transcript.to_json(indent=None if on_one_line else 2) + "\n"
        case "srt":
            return transcript.to_srt()
        case "vtt":
            return transcript.to_vtt()
    return transcript.to_text()


def build_output_paths(files: Sequence[str], output: str, output_format: str) -> list[Path]:
    """Where each file's result goes: into ``output``, as a folder where there are several or it looks like one.

    Raises:
        ValueError: several files and one file to write to, or a folder that does not exist to write a file in.
    """
    path = Path(output)
    if path.is_dir() or len(files) > 1 or output.endswith(os.sep):
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is a file: several results need a folder")
        return [path / name for name in _build_unique_names(files, SUFFIXES[output_format])]
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent} is no folder: make it, or write elsewhere")
    return [path]


def write_atomically(path: Path, text: str) -> None:
    """Write a file that is there as a whole or not at all. Folders are made; devices and pipes written to directly.

    Raises:
        OSError: it cannot be written.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def write_to_stdout(text: str) -> None:
    """Write to standard output at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def print_error(text: object, about: str = "") -> None:
    """Say on standard error, in one line, what went wrong."""
    subject = f"{about}: " if about else ""
    sys.stderr.write(f"gorggle: {subject}{' '.join(str(text).split())}\n")
    sys.stderr.flush()


def _build_unique_names(files: Sequence[str], suffix: str) -> list[str]:
    """A name for each result: the file's, with another ending; files of one name get their whole name, or a number."""
    names: list[str] = []
    for file in files:
        path = Path(STDIN_NAME if file == "-" else file)
        candidates = [path.stem + suffix, path.name + suffix]
        candidates += [f"{path.stem}-{number}{suffix}" for number in range(2, len(files) + 2)]
        names.append(next(name for name in candidates if name not in names))
    return names
