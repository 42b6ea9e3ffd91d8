"""The command ``gorggle``: reads files with a server, and hands over to the server's own commands."""

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
from gorggle.version import get_version

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
# As a shell reports programs that end by SIGINT and SIGPIPE.
EXIT_INTERRUPTED, EXIT_PIPE_CLOSED = 130, 141

FORMATS = ("text", "json", "srt", "vtt")
_RAW_HELP = argparse.RawDescriptionHelpFormatter

_EXAMPLES = """\
examples:
  gorggle transcribe clip.mp4                     read lips and sound; starts a server of its own
  gorggle transcribe clip.mp4 --format srt --output clip.srt
  gorggle transcribe *.webm --format vtt --output captions/ --server gpu-host:50051 --ca ca.pem
  gorggle serve                                   run a server on 127.0.0.1:50051
  gorggle models --server 127.0.0.1:50051         what it can read, and what its licences permit
  gorggle model info model.safetensors            look into a model file
  gorggle evaluate manifest.jsonl                 measure a model on clips whose words are known
"""
_TRANSCRIBE_EXAMPLES = """\
formats:
  text   a line a segment, as they come: [00:00.52 - 00:02.10] face-1: bin blue at f two now
  json   file, duration, model and segments with words; several files to standard output: one object a line
  srt    SubRip captions (several files need --output)
  vtt    WebVTT captions (several files need --output)

examples:
  gorggle transcribe clip.mp4
  gorggle transcribe clip.mp4 --modality video --format json | jq .segments
  gorggle transcribe clip.mp4 --overlay captioned.mp4 --plot words.png    draw it (gorggle[pictures])
  gorggle transcribe a.mp4 b.mp4 --format srt --output captions/
  ffmpeg -i rtsp://camera/1 -c copy -f mpegts - | gorggle transcribe - --live --server a:50051,b:50051

The exit code is 0 if every file was read, 1 if one was not, 2 for wrong arguments, 130 after Ctrl-C.
A bearer token is read from --token-file or from GORGGLE_TOKEN.
"""
_MODELS_EXAMPLES = """\
examples:
  gorggle models
  gorggle models --server 127.0.0.1:50051 --json | jq '.[].name'
"""
_MODEL_HELP = """\
usage: gorggle model convert IN.pt OUT.safetensors
       gorggle model info PATH [--json]

Convert an AV-HuBERT checkpoint to safetensors without running any code in it, or look into a model file.
Both take the server's packages: pip install 'gorggle[server]'.

examples:
  gorggle model convert large_vox_433h.pt avhubert-large.safetensors
  gorggle model info avhubert-large.safetensors --json
"""
_LOCAL_NOT_INSTALLED = "what runs the product here is not installed: pip install 'gorggle[local]'"
_GATEWAY_NOT_INSTALLED = "what serves browsers is not installed: pip install 'gorggle[gateway]'"
_EVALUATION_NOT_INSTALLED = "what measures models is not installed: pip install 'gorggle[evaluation]'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the result is its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # gRPC's core writes to standard error what it meets on the way, even where the call goes on elsewhere.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        code = _run(given)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has had enough; the interpreter must not try to flush the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    return code


def _run(arguments: list[str]) -> int:
    match arguments:
        case ["serve", *rest]:
            return _run_module("gorggle_server", "gorggle serve", rest)
        case ["local", *rest]:
            return _run_module("gorggle_local", "gorggle local", rest, _LOCAL_NOT_INSTALLED)
        case ["gateway", *rest]:
            return _run_module("gorggle_gateway", "gorggle gateway", rest, _GATEWAY_NOT_INSTALLED)
        case ["evaluate", *rest]:
            return _run_module("gorggle_evaluation", "gorggle evaluate", rest, _EVALUATION_NOT_INSTALLED)
        case ["model"] | ["model", "-h" | "--help"]:
            print(_MODEL_HELP, end="")
            return EXIT_OK if len(arguments) == 2 else EXIT_USAGE
        case ["cost", *rest]:
            return _run_module("gorggle_lambdas.aws_costs", "gorggle cost", rest)
        case ["token", *rest]:
            return _run_module("gorggle_server.security.api_tokens", "gorggle token", rest)
        case ["model", *rest]:
            return _run_module("gorggle_server.avhubert", "gorggle model", rest)
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


def _run_module(module: str, program: str, arguments: list[str], not_installed: str = "") -> int:
    """Run another package as if it were the program; it may not be installed, so it is not imported here."""
    from gorggle.local_server import NOT_INSTALLED

    try:
        if util.find_spec(module) is None:
            raise ModuleNotFoundError(module)
        sys.argv = [program, *arguments]
        runpy.run_module(module, run_name="__main__")
    except ModuleNotFoundError as error:
        print_error(f"{not_installed or NOT_INSTALLED} (no module named {error.name or module})")
        return EXIT_FAILED
    return EXIT_OK


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gorggle",
        description="Gorggle reads lips: video in, who said what out, word by word with times.",
        epilog=_EXAMPLES,
        formatter_class=_RAW_HELP,
    )
    parser.add_argument("--version", action="version", version=f"gorggle {get_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_transcribe(commands)
    commands.add_parser("serve", help="run the inference server", add_help=False)
    commands.add_parser("local", help="run the whole product on this machine", add_help=False)
    commands.add_parser("gateway", help="serve the page, and live captions for browsers", add_help=False)
    _add_models(commands)
    commands.add_parser("evaluate", help="measure a model on clips whose words are known", add_help=False)
    commands.add_parser("cost", help="estimate what the AWS pipeline costs", add_help=False)
    commands.add_parser("token", help="make a bearer token for a client of a server", add_help=False)
    commands.add_parser("model", help="convert a checkpoint, or look into a model file", add_help=False)
    return parser


def _add_transcribe(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "transcribe",
        help="read video files",
        description="Read video files: who said what, word by word with times, on standard output.",
        epilog=_TRANSCRIBE_EXAMPLES,
        formatter_class=_RAW_HELP,
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="a video or sound file; - reads standard input"
    )
    parser.add_argument(
        "--modality",
        choices=("av", "video", "audio"),
        default="av",
        help="read lips and sound, or one (default: av)",
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="how to write (default: text)")
    parser.add_argument("--output", metavar="PATH", help="write to a file; for several files, into a folder")
    parser.add_argument("--model", metavar="NAME", help="which model reads (default: the server's)")
    parser.add_argument("--beam", type=_parse_count, default=0, metavar="N", help="width of the beam search")
    parser.add_argument(
        "--speakers", type=_parse_count, default=0, metavar="N", help="people to follow at once"
    )
    parser.add_argument("--interim", action="store_true", help="show on standard error what may still change")
    parser.add_argument(
        "--live", action="store_true", help="the media comes into being while it is read: a camera"
    )
    parser.add_argument(
        "--overlay",
        metavar="VIDEO",
        help="write the video with captions and face boxes",
    )
    parser.add_argument("--plot", metavar="PICTURE", help="draw mouths, speech and words on a time line")
    parser.add_argument(
        "--start-offset", type=_parse_seconds, default=0.0, metavar="S", help="seconds added to every time"
    )
    add_server_options(parser)


def _add_models(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "models",
        help="list a server's models, with what their licences permit",
        description="List a server's models: what they read, how well, and what their licences permit.",
        epilog=_MODELS_EXAMPLES,
        formatter_class=_RAW_HELP,
    )
    parser.add_argument("--json", action="store_true", help="write everything that is known, as JSON")
    add_server_options(parser)


def _parse_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _parse_seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
