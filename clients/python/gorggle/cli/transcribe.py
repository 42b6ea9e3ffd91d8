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
from gorggle.cli.rendering import RenderOptions, parse_render_options
from gorggle.cli.server_args import ServerHandle, UsageError, check_server_options
from gorggle.client import Client
from gorggle.errors import GorggleError
from gorggle.events import Activity, Event, Interrupted, StreamWarning
from gorggle.results import Segment, Transcript, sort_segments, to_text_line
from gorggle.server_info import Model
from gorggle.sources import create_read_error, validate_path

STDIN_DESCRIPTOR = 0


def transcribe_files(options: argparse.Namespace) -> bool:
    """Read files one after the other; true if all were read. One that fails does not keep the others from it."""
    try:
        paths = (
            cli_output.build_output_paths(options.files, options.output, options.format)
            if options.output
            else None
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    if paths is None and len(options.files) > 1 and options.format in {"srt", "vtt"}:
        raise UsageError(f"several files in {options.format} would run into each other: give --output FOLDER")
    options.pictures = parse_render_options(options.files, options.overlay, options.plot)
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
        source: Any = _ProgressFile(stack.enter_context(_open_input(file)), file)
        line = source.line = ProgressLine(sys.stderr, file, source.size_bytes)
        stack.callback(line.close)
        line.set_message("starting a server …" if options.server is None else "connecting …")
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
            on_event=reader.handle_event,
        )
        with stream:
            for segment in stream:
                reader.add_segment(segment)
        transcript = Transcript(file, stream.duration_s, stream.model, sort_segments(reader.segments))
        line.close()
        reader.write_result(transcript)
        _render(options.pictures, Path(file), transcript, reader.activities)


def _render(pictures: RenderOptions, clip: Path, transcript: Transcript, activities: list[Activity]) -> None:
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
        self._output_format: str = options.format
        self._is_one_of_several = len(options.files) > 1
        self._output = output
        self._line = line
        self._streams_text = output is None and self._output_format == "text"
        self._has_begun = False

    def handle_event(self, event: Event) -> None:
        """Show progress and warnings."""
        self._line.set_message("")
        self._line.handle_event(event)
        if isinstance(event, Activity):
            self.activities.append(event)
        if isinstance(event, StreamWarning):
            self._line.clear()
            print_error(f"warning: {event.message}", self._file)
        elif isinstance(event, Interrupted):
            self._line.clear()
            print_error(f"warning: {event.reason}; going on from {event.final_end_s:.1f} s", self._file)

    def add_segment(self, segment: Segment) -> None:
        """Show a segment: on standard output what is final, on standard error what may still change."""
        if not segment.is_final:
            self._show_interim(segment)
            return
        if not segment.text:
            return  # what seemed to be said was not
        self.segments.append(segment)
        self._line.set_message("")
        if self._streams_text:
            self._print_file_header()
            self._line.clear()
            cli_output.write_to_stdout(to_text_line(segment) + "\n")

    def write_result(self, transcript: Transcript) -> None:
        """Write everything that was not yet written."""
        if self._streams_text:
            self._print_file_header()
            return
        on_one_line = self._is_one_of_several and self._output is None
        text = cli_output.format_transcript(transcript, self._output_format, on_one_line=on_one_line)
        if self._output is None:
            cli_output.write_to_stdout(text)
            return
        try:
            cli_output.write_atomically(self._output, text)
        except OSError as error:
            raise _OutputError(
                f"cannot write {self._output}: {(error.strerror or str(error)).lower()}"
            ) from error

    def _print_file_header(self) -> None:
        """Among several files, say once which one follows."""
        if self._is_one_of_several and not self._has_begun:
            self._line.clear()
            cli_output.write_to_stdout(f"==> {self._file} <==\n")
        self._has_begun = True

    def _show_interim(self, segment: Segment) -> None:
        if sys.stderr.isatty():
            self._line.set_message(f"… {segment.text}")
        else:
            print(f"{to_text_line(segment)} …", file=sys.stderr, flush=True)


class _ProgressFile:
    """A file whose reading moves the progress line."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.name = name
        self.progress: ProgressLine | None = None
        self.size_bytes = os.fstat(file.fileno()).st_size or None
        self._file = file

    def read(self, size: int) -> bytes:
        """Read up to ``size`` bytes, as many as there are."""
        chunk = self._file.read(size)
        if self.progress is not None:
            self.progress.add_bytes(len(chunk))
        return chunk

    def seekable(self) -> bool:
        """Whether it can be read again, where a server is lost; a pipe cannot."""
        return self._file.seekable()

    def tell(self) -> int:
        """As a file's ``handle_event``."""
        return self._file.tell()

    def seek(self, position: int) -> int:
        """As a file's ``seek``; the progress line goes back too."""
        if self.progress is not None:
            self.progress.add_bytes(position - self._file.tell())
        return self._file.seek(position)


def _open_input(file: str) -> IO[bytes]:
    """The file, unbuffered: what a pipe has is sent at once, and no lock of a buffer is held when the program ends."""
    try:
        if file == "-":
            return open(STDIN_DESCRIPTOR, "rb", buffering=0, closefd=False)
        validate_path(file)
        return Path(file).open("rb", buffering=0)
    except OSError as error:
        raise create_read_error(file, error) from error


# ------------------------------------------------------------------------------------------------------------ models


def list_models(options: argparse.Namespace) -> bool:
    """List the server's models."""
    check_server_options(options)
    with ServerHandle(options) as server:
        found = server.client().models()
    if options.json:
        cli_output.write_to_stdout(
            json.dumps([dataclasses.asdict(m) for m in found], indent=2, ensure_ascii=False) + "\n"
        )
    else:
        cli_output.write_to_stdout("\n".join(_format_model(model) for model in found))
    return True


def _format_model(model: Model) -> str:
    commercial = {
        "permitted": "permitted",
        "forbidden": "FORBIDDEN",
        "unknown": "unknown: find out before you use it",
    }
    shape = (
        f"{model.architecture}, {model.parameter_count / 1e6:.1f} million parameters, encoder {model.encoder_layers} x "
        f"{model.encoder_width}, decoder {model.decoder_layers} x {model.decoder_width}, {model.vocabulary_size} units"
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


COMMANDS: dict[str, Callable[[argparse.Namespace], bool]] = {
    "transcribe": transcribe_files,
    "models": list_models,
}
