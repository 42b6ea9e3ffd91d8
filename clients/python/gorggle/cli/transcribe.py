"""What ``gorggle transcribe`` and ``gorggle models`` do."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from gorggle.cli import output as cli_output
from gorggle.cli.output import print_error
from gorggle.cli.progress import ProgressLine
from gorggle.cli.rendering import RenderOptions, pictures_of
from gorggle.cli.server_args import ServerHandle, UsageError, check_server_options
from gorggle.client import Client
from gorggle.errors import GorggleError
from gorggle.events import Activity, Event, Interrupted, StreamWarning
from gorggle.results import Segment, Transcript, in_order, text_line
from gorggle.server_info import Model
from gorggle.sources import check_path, unreadable

STDIN_DESCRIPTOR = 0


def transcribe(options: argparse.Namespace) -> bool:
    """Read files one after the other; true if all were read. One that fails does not keep the others from it."""
    try:
        paths = (
            cli_output.output_paths(options.files, options.output, options.format) if options.output else None
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    if paths is None and len(options.files) > 1 and options.format in {"srt", "vtt"}:
        raise UsageError(f"several files in {options.format} would run into each other: give --output FOLDER")
    options.pictures = pictures_of(options.files, options.overlay, options.plot)
    check_server_options(options)
    failures = 0
    with ServerHandle(options) as server:
        for number, file in enumerate(options.files):
            try:
                transcribe_file(file, server.client, options, None if paths is None else paths[number])
            except (GorggleError, _OutputError) as error:
                about = "standard input" if file == "-" else file
                print_error(str(error).removeprefix(f"{file} "), about)
                failures += 1
    return not failures


def transcribe_file(
    file: str, client: Callable[[], Client], options: argparse.Namespace, output: Path | None
) -> None:
    """Read one file and write what was said: to ``output``, or to standard output where it is None."""
    with contextlib.ExitStack() as stack:
        source: Any = _ProgressFile(stack.enter_context(_opened(file)), file)
        line = source.line = ProgressLine(sys.stderr, file, source.size_bytes)
        stack.callback(line.close)
        line.note("starting a server …" if options.server is None else "connecting …")
        reader = _ResultPrinter(file, options, output, line)
        stream = client().transcribe(
            source,
            modality=options.modality,
            model=options.model,
            interim_results=options.interim,
            live=options.live,
            beam_size=options.beam,
            max_speakers=options.speakers,
            start_offset_s=options.start_offset,
            face_boxes=bool(options.pictures),
            activity_events=options.pictures.plot is not None,
            on_event=reader.tell,
        )
        with stream:
            for segment in stream:
                reader.take(segment)
        transcript = Transcript(file, stream.duration_s, stream.model, in_order(reader.segments))
        line.close()
        reader.finish(transcript)
        _draw(options.pictures, Path(file), transcript, reader.activities)


def _draw(pictures: RenderOptions, clip: Path, transcript: Transcript, activities: list[Activity]) -> None:
    try:
        pictures.write(clip, transcript, activities)
    except OSError as error:
        raise _OutputError(f"the pictures cannot be drawn: {error.strerror or error}") from error


class _OutputError(Exception):
    """A result cannot be written."""


class _ResultPrinter:
    """Shows what comes of one file while it comes, and writes it at the end."""

    def __init__(
        self, file: str, options: argparse.Namespace, output: Path | None, line: ProgressLine
    ) -> None:
        self.segments: list[Segment] = []
        self.activities: list[Activity] = []
        self._file = file
        self._form: str = options.format
        self._is_one_of_several = len(options.files) > 1
        self._output = output
        self._line = line
        self._streams_text = output is None and self._form == "text"
        self._has_begun = False

    def tell(self, event: Event) -> None:
        """Show progress and warnings."""
        self._line.note("")
        self._line.tell(event)
        if isinstance(event, Activity):
            self.activities.append(event)
        if isinstance(event, StreamWarning):
            self._line.clear()
            print_error(f"warning: {event.message}", self._file)
        elif isinstance(event, Interrupted):
            self._line.clear()
            print_error(f"warning: {event.reason}; going on from {event.final_until_s:.1f} s", self._file)

    def take(self, segment: Segment) -> None:
        """Show a segment: on standard output what is final, on standard error what may still change."""
        if not segment.is_final:
            self._show_interim(segment)
            return
        if not segment.text:
            return  # what seemed to be said was not
        self.segments.append(segment)
        self._line.note("")
        if self._streams_text:
            self._begin_text()
            self._line.clear()
            cli_output.write_to_stdout(text_line(segment) + "\n")

    def finish(self, transcript: Transcript) -> None:
        """Write everything that was not yet written."""
        if self._streams_text:
            self._begin_text()
            return
        on_one_line = self._is_one_of_several and self._output is None
        text = cli_output.format_transcript(transcript, self._form, on_one_line=on_one_line)
        if self._output is None:
            cli_output.write_to_stdout(text)
            return
        try:
            cli_output.write_atomically(self._output, text)
        except OSError as error:
            raise _OutputError(
                f"cannot write {self._output}: {(error.strerror or str(error)).lower()}"
            ) from error

    def _begin_text(self) -> None:
        """Among several files, say once which one follows."""
        if self._is_one_of_several and not self._has_begun:
            self._line.clear()
            cli_output.write_to_stdout(f"==> {self._file} <==\n")
        self._has_begun = True

    def _show_interim(self, segment: Segment) -> None:
        if sys.stderr.isatty():
            self._line.note(f"… {segment.text}")
        else:
            print(f"{text_line(segment)} …", file=sys.stderr, flush=True)


class _ProgressFile:
    """A file whose reading moves the progress line."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.name = name
        self.line: ProgressLine | None = None
        self.size_bytes = os.fstat(file.fileno()).st_size or None
        self._file = file

    def read(self, size: int) -> bytes:
        """Read up to ``size`` bytes, as many as there are."""
        chunk = self._file.read(size)
        if self.line is not None:
            self.line.count(len(chunk))
        return chunk

    def seekable(self) -> bool:
        """Whether it can be read again, where a server is lost; a pipe cannot."""
        return self._file.seekable()

    def tell(self) -> int:
        """As a file's ``tell``."""
        return self._file.tell()

    def seek(self, place: int) -> int:
        """As a file's ``seek``; the progress line goes back too."""
        if self.line is not None:
            self.line.count(place - self._file.tell())
        return self._file.seek(place)


def _opened(file: str) -> IO[bytes]:
    """The file, unbuffered: what a pipe has is sent at once, and no lock of a buffer is held when the program ends."""
    try:
        if file == "-":
            return open(STDIN_DESCRIPTOR, "rb", buffering=0, closefd=False)
        check_path(file)
        return Path(file).open("rb", buffering=0)
    except OSError as error:
        raise unreadable(file, error) from error


# ------------------------------------------------------------------------------------------------------------ models


def models(options: argparse.Namespace) -> bool:
    """List the server's models."""
    check_server_options(options)
    with ServerHandle(options) as server:
        found = server.client().models()
    if options.json:
        cli_output.write_to_stdout(
            json.dumps([dataclasses.asdict(m) for m in found], indent=2, ensure_ascii=False) + "\n"
        )
    else:
        cli_output.write_to_stdout("\n".join(_description(model) for model in found))
    return True


def _description(model: Model) -> str:
    commercial = {
        "permitted": "permitted",
        "forbidden": "FORBIDDEN",
        "unknown": "unknown: find out before you use it",
    }
    shape = (
        f"{model.architecture}, {model.parameters / 1e6:.1f} million parameters, encoder {model.encoder_layers} x "
        f"{model.encoder_width}, decoder {model.decoder_layers} x {model.decoder_width}, {model.units} units"
    )
    rates = [
        f"{rate.word_error_rate_percent:g} % on {rate.dataset} ({rate.modality}, {rate.condition}; {rate.source})"
        for rate in model.error_rates
    ]
    rows = [
        ("", model.description),
        ("network", shape),
        ("reads", ", ".join(model.modalities)),
        ("languages", ", ".join(model.language_codes)),
        ("vocabulary", model.vocabulary),
        ("trained on", model.trained_on),
        *(("word error rate", rate) for rate in rates),
        ("licence", " ".join(part for part in (model.license.name, model.license.url) if part)),
        ("commercial use", commercial[model.license.commercial_use]),
        ("", model.license.summary),
    ]
    lines = [f"  {name + ':' if name else '':16} {text}" for name, text in rows if text]
    return "\n".join([model.name, *lines, ""])


COMMANDS: dict[str, Callable[[argparse.Namespace], bool]] = {"transcribe": transcribe, "models": models}
