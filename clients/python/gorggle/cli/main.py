"""The ``gorggle`` command: transcribes files through a server, and runs the other packages' commands."""

from __future__ import annotations

import argparse
import math
import os
import runpy
import sys
from collections.abc import Sequence
from importlib import util

from gorggle.cli.output import print_error
from gorggle.cli.server_args import CommandError, UsageError, add_server_options
from gorggle.errors import GorggleError
from gorggle.local_server import NOT_INSTALLED
from gorggle.version import get_version

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
# A shell's exit codes for SIGINT and SIGPIPE.
EXIT_INTERRUPTED, EXIT_PIPE_CLOSED = 130, 141

FORMATS = ("text", "json", "srt", "vtt")
_RAW_HELP = argparse.RawDescriptionHelpFormatter

_EXAMPLES = """\
examples:
  gorggle transcribe clip.mp4                     transcribe with a temporary local server
  gorggle transcribe clip.mp4 --format srt --output clip.srt
  gorggle transcribe *.webm --format vtt --output captions/ --server gpu-host:50051 --ca ca.pem
  gorggle serve                                   run a server on 127.0.0.1:50051
  gorggle models --server 127.0.0.1:50051         list models and their licences
  gorggle model list                              list the models that can be downloaded, and their licences
  gorggle evaluate manifest.jsonl                 measure error rates on transcribed clips
  gorggle train --manifest clips.jsonl --out mine fine-tune a model on recorded clips
"""
_TRANSCRIBE_EXAMPLES = """\
formats:
  text   one line per segment, as it arrives: [00:00.52 - 00:02.10] Person 1: bin blue at f two now
  json   file, duration, model and segments with words; several files on standard output: one object per line
  srt    SubRip captions (several files need --output)
  vtt    WebVTT captions (several files need --output)

examples:
  gorggle transcribe clip.mp4
  gorggle transcribe clip.mp4 --modality video --format json | jq .segments
  gorggle transcribe clip.mp4 --overlay captioned.mp4 --plot words.png    needs gorggle[rendering]
  gorggle transcribe a.mp4 b.mp4 --format srt --output captions/
  ffmpeg -i rtsp://camera/1 -c copy -f mpegts - | gorggle transcribe - --live --server a:50051,b:50051

Without --format, the format follows the extension of --output: .txt, .json, .srt or .vtt.
Speakers are shown as "Person 1"; JSON has the server's labels ("face-1", or "voice" without a face).
The exit code is 0 if every file was transcribed, 1 if one failed, 2 for wrong arguments, 130 after Ctrl-C.
A bearer token is read from --token-file or from GORGGLE_TOKEN.
"""
_MODELS_EXAMPLES = """\
examples:
  gorggle models
  gorggle models --server 127.0.0.1:50051 --json | jq '.[].name'
"""
_MODEL_HELP = """\
usage: gorggle model list [--json]
       gorggle model get NAME [--accept-license] [--mirror URL]
       gorggle model remove NAME
       gorggle model convert IN.pt OUT.safetensors
       gorggle model info PATH [--json]

List models by name, download one after showing its licence, or delete one. `convert` converts an AV-HuBERT
checkpoint to safetensors without executing code in it; `info` shows a model file's metadata.
All need the server's packages: pip install 'gorggle[server]'.

examples:
  gorggle model list
  gorggle model get avhubert-avsr-large-433h
  gorggle transcribe clip.mp4 --model avhubert-avsr-large-433h
  gorggle model convert large_vox_433h.pt avhubert-large.safetensors
  gorggle model info avhubert-large.safetensors --json
"""
# Commands of optional packages: the module that is run, the help, and what is missing without the package.
_MODULES = {
    "serve": ("gorggle_server", "run the inference server", NOT_INSTALLED),
    "local": (
        "gorggle_local",
        "run the whole stack on this machine",
        "the local stack is not installed: pip install 'gorggle[local]'",
    ),
    "gateway": (
        "gorggle_gateway",
        "serve the web page, and live captions for browsers",
        "the gateway is not installed: pip install 'gorggle[gateway]'",
    ),
    "evaluate": (
        "gorggle_evaluation",
        "measure error rates on transcribed clips",
        "the evaluation is not installed: pip install 'gorggle[evaluation]'",
    ),
    "train": (
        "gorggle_training.train_command",
        "fine-tune a model on recorded clips",
        "the training is not installed: pip install 'gorggle[training]'",
    ),
    "cost": ("gorggle_lambdas.aws_costs", "estimate the cost of the AWS pipeline", NOT_INSTALLED),
    "token": (
        "gorggle_server.security.api_tokens",
        "create a bearer token for a client of a server",
        NOT_INSTALLED,
    ),
    "model": (
        "gorggle_server.model_catalogue",
        "list, download, remove, convert and describe models",
        NOT_INSTALLED,
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    # gRPC's core logs connection errors to standard error, even those of calls that are retried.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        code = _run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader closed the pipe: keep the interpreter from flushing the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    return code


def _run(arguments: list[str]) -> int:
    match arguments:
        case ["model"] | ["model", "-h" | "--help"]:
            print(_MODEL_HELP, end="")
            return EXIT_OK if len(arguments) == 2 else EXIT_USAGE
        case [command, *rest] if command in _MODULES:
            return _run_module(command, rest)
    parser = _build_parser()
    options = parser.parse_args(arguments)
    from gorggle.cli import transcribe

    try:
        return EXIT_OK if transcribe.COMMANDS[options.command](options) else EXIT_FAILED
    except UsageError as error:
        parser.exit(EXIT_USAGE, f"gorggle {options.command}: error: {error}\n")
    except (GorggleError, CommandError) as error:
        print_error(error)
    return EXIT_FAILED


def _run_module(command: str, arguments: list[str]) -> int:
    """Run an optional package as the main program."""
    module, _help, not_installed = _MODULES[command]
    try:
        if util.find_spec(module) is None:
            raise ModuleNotFoundError(module)
        sys.argv = [f"gorggle {command}", *arguments]
        runpy.run_module(module, run_name="__main__")
    except ModuleNotFoundError as error:
        print_error(f"{not_installed} (no module named {error.name or module})")
        return EXIT_FAILED
    return EXIT_OK


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gorggle",
        description="Lip reading and speech recognition: who said what, with word timestamps.",
        epilog=_EXAMPLES,
        formatter_class=_RAW_HELP,
    )
    parser.add_argument("--version", action="version", version=f"gorggle {get_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_transcribe(commands)
    _add_models(commands)
    for command, (_module, text, _not_installed) in _MODULES.items():
        commands.add_parser(command, help=text, add_help=False)
    return parser


def _add_transcribe(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "transcribe",
        help="transcribe video files",
        description="Transcribe video files: who said what, with word timestamps, on standard output.",
        epilog=_TRANSCRIBE_EXAMPLES,
        formatter_class=_RAW_HELP,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a video or audio file; - is standard input")
    parser.add_argument(
        "--modality",
        choices=("av", "video", "audio"),
        default="av",
        help="use video and audio, or one of them (default: av)",
    )
    parser.add_argument("--format", choices=FORMATS, help="output format (default: from --output, else text)")
    parser.add_argument("--output", metavar="PATH", help="output file; for several inputs, a folder")
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="name of the model: an installed one, see `gorggle model list`; with --server, one that it serves "
        "(default: the server's)",
    )
    parser.add_argument(
        "--audio-model",
        metavar="NAME",
        help="second model, which recognizes the audio as well, such as moonshine-tiny-en or an installed model of Whisper, if --model reads lips; words are "
        "decided one by one; none: no second model (default: the server's)",
    )
    parser.add_argument("--beam-size", type=_parse_count, default=0, metavar="N", help="beam search width")
    parser.add_argument(
        "--max-speakers", type=_parse_count, default=0, metavar="N", help="faces to track at once"
    )
    parser.add_argument(
        "--interim-results", action="store_true", help="show interim results on standard error"
    )
    parser.add_argument("--live", action="store_true", help="treat the input as a live stream (low latency)")
    parser.add_argument("--overlay", metavar="VIDEO", help="write the video with captions and face boxes")
    parser.add_argument("--plot", metavar="IMAGE", help="plot mouths, speech and words on a timeline")
    parser.add_argument(
        "--start-offset",
        type=_parse_seconds,
        default=0.0,
        metavar="S",
        help="seconds added to all timestamps",
    )
    add_server_options(parser)


def _add_models(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "models",
        help="list a server's models and their licences",
        description="List a server's models: inputs, languages, error rates and licences.",
        epilog=_MODELS_EXAMPLES,
        formatter_class=_RAW_HELP,
    )
    parser.add_argument("--json", action="store_true", help="write all fields as JSON")
    add_server_options(parser)


def _parse_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _parse_seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0")
    return value
