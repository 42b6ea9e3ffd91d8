"""Run the server until Ctrl-C or SIGTERM: ``python -m gorggle_server`` or ``gorggle serve``."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from gorggle_server.errors import GorggleError
from gorggle_server.logging_setup import configure_logging
from gorggle_server.memory import freeze_gc, limit_malloc_arenas
from gorggle_server.settings import ServerSettings

# Further flags of a setting. Other commands have --model too.
FLAG_ALIASES = {"default_model": ("--model",)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server; return 0 after a clean shutdown, 1 after a failure, 2 for invalid settings."""
    parser = _create_parser()
    args = vars(parser.parse_args(argv))
    print_ready, exit_on_stdin_eof = args.pop("print_ready"), args.pop("exit_on_stdin_eof")
    configure_logging(args.pop("log_level"), args.pop("log_format"))
    try:
        settings = ServerSettings(**{name: value for name, value in args.items() if value is not None})
    except ValidationError as error:
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"]) or "settings"
            message = problem["msg"].removeprefix("Value error, ")
            print(f"gorggle serve: {where}: {message}", file=sys.stderr)
        return 2
    try:
        asyncio.run(_run(settings, print_ready, exit_on_stdin_eof))
    except GorggleError as error:
        print(f"gorggle serve: {error}", file=sys.stderr)
        return 1
    return 0


def set_up_libraries() -> None:
    """Configure the allocator, torch's libraries and gRPC for a server. Call it before they are loaded."""
    limit_malloc_arenas()
    # Silence gRPC core's own logging (such as client disconnects) on stderr: it is not in our log format.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # Waiting OpenMP threads must sleep: spinning, they take CPU time from decoding and face tracking, and on a busy
    # machine a batch takes many times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # numpy's idle OpenBLAS threads spin too: for operations small enough for one thread, they used half of two CPUs
    # at 15 streams.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # oneDNN caches a primitive for each utterance length, 3 MB each and 1024 by default, which looks like a leak for
    # hours. These sizes cover one utterance, and preparing a primitive is cheap.
    os.environ.setdefault("LRU_CACHE_CAPACITY", "64")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")


async def _run(settings: ServerSettings, print_ready: bool, exit_on_stdin_eof: bool) -> None:
    set_up_libraries()
    # Importing torch takes a second: report invalid settings before it.
    from gorggle_server.grpc_server.server import serve

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if exit_on_stdin_eof:
        threading.Thread(target=_stop_on_stdin_eof, args=(loop, stop), daemon=True).start()

    def report_ready(address: str, http_address: str) -> None:
        freeze_gc()
        logging.getLogger(__name__).info("serving on %s", address)
        if print_ready:
            print(json.dumps({"listening": address, "operations": http_address}), flush=True)

    await serve(settings, report_ready, stop)


def _stop_on_stdin_eof(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Stop the server when the program that started it ends."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    loop.call_soon_threadsafe(stop.set)


def _create_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gorggle serve",
        description="Run the inference server. Every option can also be set as GORGGLE_NAME in the environment.",
        epilog="example: gorggle serve --listen 127.0.0.1:50051 --max-streams 16",
    )
    for name, field in ServerSettings.model_fields.items():
        flags = [f"--{name.replace('_', '-')}", *FLAG_ALIASES.get(name, ())]
        parser.add_argument(*flags, **_to_argument_options(field))
    parser.add_argument(
        "--print-ready",
        action="store_true",
        help="print one JSON line with the listening addresses to stdout when ready to serve",
    )
    parser.add_argument(
        "--exit-on-stdin-eof", action="store_true", help="shut down when standard input is closed"
    )
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    parser.add_argument("--log-format", default="text", choices=["text", "json"])
    return parser


def _to_argument_options(field: FieldInfo) -> dict[str, Any]:
    default = field.get_default(call_default_factory=True)
    shown = str(default) if isinstance(default, Path) else repr(default)
    text = f"{field.description or ''} (default: {shown})".strip().replace("%", "%%")
    if field.annotation is bool:
        return {"action": argparse.BooleanOptionalAction, "default": None, "help": text}
    if isinstance(default, dict):
        return {"type": json.loads, "metavar": "JSON", "help": text}
    if isinstance(default, tuple):
        return {"nargs": "*", "metavar": "NAME", "help": text}
    return {"metavar": "VALUE", "help": text}


if __name__ == "__main__":
    sys.exit(main())
