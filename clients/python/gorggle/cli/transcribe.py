"""``gorggle transcribe`` and ``gorggle models``."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

from gorggle.cli import output as cli_output
from gorggle.cli.output import print_error
from gorggle.cli.progress import ProgressLine
from gorggle.cli.rendering import RenderOptions, parse_render_options
from gorggle.cli.server_args import ServerHandle, UsageError, check_server_options
from gorggle.client import Client
from gorggle.errors import GorggleError
from gorggle.events import Activity, Event, Interrupted, Started, StreamWarning
from gorggle.results import Segment, Transcript, sort_segments, to_text_line
from gorggle.server_info import Model
from gorggle.sources import create_read_error, validate_path

STDIN_DESCRIPTOR = 0


def transcribe_files(options: argparse.Namespace) -> bool:
    """Transcribe files one after the other; return whether all succeeded. A failed file does not stop the others."""
    options.format = options.format or cli_output.detect_format(options.output)
    try:
        paths = (
            cli_output.build_output_paths(options.files, options.output, options.format)
            if options.output
            else None
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    if paths is None and len(options.files) > 1 and options.format in {"srt", "vtt"}:
        raise UsageError(
            f"several files in {options.format} cannot share standard output: use --output FOLDER"
        )
    options.rendering = parse_render_options(options.files, options.overlay, options.plot)
    check_server_options(options)
    failures = 0
    reported_models: set[str] = set()
    with ServerHandle(options) as server:
        for number, file in enumerate(options.files):
            output = None if paths is None else paths[number]
            try:
                transcribe_file(file, server.client, options, output, reported_models)
            except (GorggleError, _OutputError) as error:
                subject = "standard input" if file == "-" else file
                print_error(str(error).removeprefix(f"{file} "), subject)
                failures += 1
    return not failures


def transcribe_file(
    file: str,
    client: Callable[[], Client],
    options: argparse.Namespace,
    output: Path | None,
    reported_models: set[str],
) -> None:
    """Transcribe one file and write the result to ``output``, or to standard output if it is None.

    Its model is named on standard error unless it is one of ``reported_models``.
    """
    with contextlib.ExitStack() as stack:
        media = stack.enter_context(_open_input(file))
        line = ProgressLine(sys.stderr, file, os.fstat(media.fileno()).st_size or None)
        stack.callback(line.close)
        line.set_message("starting a server …" if options.server is None else "connecting …")
        printer = _ResultPrinter(file, options, output, line, reported_models)
        stream = client().transcribe(
            _ProgressFile(media, file, line),
            modality=options.modality,
            model=options.model,
            audio_model=options.audio_model,
            interim_results=options.interim_results,
            live=options.live,
            beam_size=options.beam_size,
            max_speakers=options.max_speakers,
            start_offset_s=options.start_offset,
            face_boxes=bool(options.rendering),
            activity_events=options.rendering.plot is not None,
            on_event=printer.handle_event,
        )
        with stream:
            for segment in stream:
                printer.add_segment(segment)
        transcript = Transcript(
            file,
            stream.duration_s,
            stream.model,
            sort_segments(printer.segments),
            audio_model=stream.audio_model,
        )
        line.close()
        printer.write_result(transcript)
        _render(options.rendering, Path(file), transcript, printer.activities)


def _render(rendering: RenderOptions, clip: Path, transcript: Transcript, activities: list[Activity]) -> None:
    try:
        rendering.write(clip, transcript, activities)
    except OSError as error:
        raise _OutputError(f"cannot write the overlay or plot: {error.strerror or error}") from error


class _OutputError(Exception):
    """A result cannot be written."""


class _ResultPrinter:
    """Prints the results of one file as they arrive, and writes the transcript at the end."""

    def __init__(
        self,
        file: str,
        options: argparse.Namespace,
        output: Path | None,
        line: ProgressLine,
        reported_models: set[str],
    ) -> None:
        self.segments: list[Segment] = []
        self.activities: list[Activity] = []
        self._file = file
        self._output_format: str = options.format
        self._has_several_files = len(options.files) > 1
        self._output = output
        self._line = line
        self._reported_models = reported_models
        self._streams_text = output is None and self._output_format == "text"
        self._header_printed = False

    def handle_event(self, event: Event) -> None:
        """Show the model, progress and warnings."""
        self._line.set_message("")
        self._line.handle_event(event)
        if isinstance(event, Started) and event.model not in self._reported_models:
            self._reported_models.add(event.model)
            self._line.clear()
            print_error(f"model: {event.model}{f', with {event.audio_model}' if event.audio_model else ''}")
        if isinstance(event, Activity):
            self.activities.append(event)
        if isinstance(event, StreamWarning):
            self._line.clear()
            print_error(f"warning: {event.message}", self._file)
        elif isinstance(event, Interrupted):
            self._line.clear()
            print_error(f"warning: {event.reason}; resuming from {event.final_end_s:.1f} s", self._file)

    def add_segment(self, segment: Segment) -> None:
        """Print a final segment on standard output, an interim one on standard error."""
        if not segment.is_final:
            self._show_interim(segment)
            return
        if not segment.text:
            return  # retracts its interim results
        self.segments.append(segment)
        self._line.set_message("")
        if self._streams_text:
            self._print_file_header()
            self._line.clear()
            cli_output.write_to_stdout(to_text_line(segment) + "\n")

    def write_result(self, transcript: Transcript) -> None:
        """Write the transcript, unless its lines were printed already."""
        if self._streams_text:
            self._print_file_header()
            return
        on_one_line = self._has_several_files and self._output is None
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
        """Print the file's name once, if there are several files."""
        if self._has_several_files and not self._header_printed:
            self._line.clear()
            cli_output.write_to_stdout(f"==> {self._file} <==\n")
        self._header_printed = True

    def _show_interim(self, segment: Segment) -> None:
        if sys.stderr.isatty():
            self._line.set_message(f"… {segment.text}")
        else:
            print(f"{to_text_line(segment)} …", file=sys.stderr, flush=True)


class _ProgressFile:
    """A file that reports its reads to the progress line."""

    def __init__(self, file: IO[bytes], name: str, line: ProgressLine) -> None:
        self.name = name
        self._file, self._line = file, line

    def read(self, size: int) -> bytes:
        """Read up to ``size`` available bytes."""
        chunk = self._file.read(size)
        self._line.add_bytes(len(chunk))
        return chunk

    def seekable(self) -> bool:
        """Whether it can be read again after the loss of a server; a pipe cannot."""
        return self._file.seekable()

    def tell(self) -> int:
        """Return the position, like ``IO.tell``."""
        return self._file.tell()

    def seek(self, position: int) -> int:
        """Change the position, like ``IO.seek``, and the progress."""
        self._line.add_bytes(position - self._file.tell())
        return self._file.seek(position)


def _open_input(file: str) -> IO[bytes]:
    """Open a file unbuffered, so that a pipe's data is sent at once and no buffer lock is held at exit."""
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
        result = server.client().models()
    if options.json:
        cli_output.write_to_stdout(
            json.dumps([dataclasses.asdict(m) for m in result], indent=2, ensure_ascii=False) + "\n"
        )
    else:
        cli_output.write_to_stdout("\n".join(_format_model(model) for model in result))
    return True


def _format_model(model: Model) -> str:
    commercial = {
        "permitted": "permitted",
        "forbidden": "FORBIDDEN",
        "unknown": "unknown: check before use",
    }
    shape = (
        f"{model.architecture}, {model.parameter_count / 1e6:.1f} million parameters, encoder {model.encoder_layers} x "
        f"{model.encoder_width}, decoder {model.decoder_layers} x {model.decoder_width}, {model.vocabulary_size} tokens"
    )
    rates = [
        f"{rate.word_error_rate_percent:g} % on {rate.dataset} ({rate.modality}, {rate.condition}; {rate.source})"
        for rate in model.error_rates
    ]
    rows = [
        ("", model.description),
        ("network", shape),
        ("inputs", ", ".join(model.modalities)),
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
