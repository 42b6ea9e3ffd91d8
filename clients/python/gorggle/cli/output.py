"""Output of the command line: standard output, files, and errors."""

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
    """Return a transcript in one of the command line's formats, with a final line break."""
    match output_format:
        case "json":
            return transcript.to_json(indent=None if on_one_line else 2) + "\n"
        case "srt":
            return transcript.to_srt()
        case "vtt":
            return transcript.to_vtt()
    return transcript.to_text()


def build_output_paths(files: Sequence[str], output: str, output_format: str) -> list[Path]:
    """Return the path of each file's result; ``output`` is a folder for several files or if it looks like one.

    Raises:
        ValueError: several files and one output file, a missing folder, or an output that is one of the files.
    """
    path = Path(output)
    if path.is_dir() or len(files) > 1 or output.endswith(os.sep):
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is a file: several results need a folder")
        paths = [path / name for name in _build_unique_names(files, SUFFIXES[output_format])]
    elif path.parent.is_dir():
        paths = [path]
    else:
        raise ValueError(f"{path.parent} is not a folder: create it, or write elsewhere")
    inputs = {Path(file).resolve() for file in files if file != "-"}
    overwritten = [str(path) for path in paths if path.resolve() in inputs]
    if overwritten:
        raise ValueError(f"--output {output} would overwrite the input {', '.join(overwritten)}")
    return paths


def detect_format(output: str | None) -> str:
    """Return the format of an output's extension; text without an output or for any other extension."""
    suffix = Path(output).suffix.lower() if output else ""
    return next((name for name, known in SUFFIXES.items() if known == suffix), "text")


def write_atomically(path: Path, text: str) -> None:
    """Replace a file atomically, creating its folder; devices and pipes are written directly.

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
    """Write to standard output and flush."""
    sys.stdout.write(text)
    sys.stdout.flush()


def print_error(text: object, about: str = "") -> None:
    """Print an error as one line on standard error."""
    subject = f"{about}: " if about else ""
    sys.stderr.write(f"gorggle: {subject}{' '.join(str(text).split())}\n")
    sys.stderr.flush()


def _build_unique_names(files: Sequence[str], suffix: str) -> list[str]:
    """Return the files' names with another suffix; equal ones keep their extension, or get a number."""
    names: list[str] = []
    for file in files:
        path = Path(STDIN_NAME if file == "-" else file)
        candidates = [path.stem + suffix, path.name + suffix]
        candidates += [f"{path.stem}-{number}{suffix}" for number in range(2, len(files) + 2)]
        names.append(next(name for name in candidates if name not in names))
    return names
