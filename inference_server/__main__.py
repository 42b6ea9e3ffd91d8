"""``python -m gorggle_server``, also ``gorggle serve``: runs the server until Ctrl-C or SIGTERM."""

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
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from gorggle_server.errors import GorggleError
from gorggle_server.logging_setup import configure_logging
from gorggle_server.memory import freeze_gc, limit_malloc_arenas
from gorggle_server.settings import ServerSettings


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server; the exit code is 0 after a clean end, 1 after a failure, 2 for wrong settings."""
    parser = _create_parser()
    given = vars(parser.parse_args(argv))
    announce, exit_on_stdin_eof = given.pop("announce"), given.pop("exit_on_stdin_eof")
    configure_logging(given.pop("log_level"), given.pop("log_format"))
    try:
        settings = ServerSettings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"]) or "settings"
            message = problem["msg"].removeprefix("Value error, ")
            print(f"gorggle serve: {where}: {message}", file=sys.stderr)
        return 2
    try:
        asyncio.run(_run(settings, announce, exit_on_stdin_eof))
    except GorggleError as error:
        print(f"gorggle serve: {error}", file=sys.stderr)
        return 1
    return 0


def set_up_libraries() -> None:
    """Tell allocator, torch's libraries and gRPC how to behave in a server; to be called first: they look only at the start."""
    limit_malloc_arenas()
    # What its core meets on the way, a client that goes for one, is no line of our log, and not in its form.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # Threads that wait for each other must sleep: spinning, they take the processor from decoding and seeing, and where
    # those are busy a batch takes many times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # numpy's threads spin too while they have nothing to do: for sums so small that one thread is enough, they took half of
    # two processors from 15 streams.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Convolutions are prepared for each length of utterance, and what was prepared is kept: 3 MB each for 1024 of them,
    # which looks like a leak for hours. So few are enough for those of one utterance, and preparing costs little.
    os.environ.setdefault("LRU_CACHE_CAPACITY", "64")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")


async def _run(settings: ServerSettings, print_ready: bool, exit_on_stdin_eof: bool) -> None:
    set_up_libraries()
    # Loading torch takes a second: wrong settings are told before it.
    from gorggle_server.grpc_server.server import serve

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if exit_on_stdin_eof:
        threading.Thread(target=_stop_on_stdin_eof, args=(loop, stop), daemon=True).start()

    def tell(address: str, operations: str) -> None:
        freeze_gc()
        logging.getLogger(__name__).info("serving on %s", address)
        if print_ready:
            print(json.dumps({"listening": address, "operations": operations}), flush=True)

    await serve(settings, tell, stop)


def _stop_on_stdin_eof(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Stop when the program that started this one ends."""
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
        parser.add_argument(f"--{name.replace('_', '-')}", **_to_argument_options(field))
    parser.add_argument(
        "--announce",
        action="store_true",
        help="print one JSON line with the address on stdout when ready to serve",
    )
    parser.add_argument("--exit-on-stdin-eof", action="store_true", help="end when standard input is closed")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    parser.add_argument("--log-format", default="text", choices=["text", "json"])
    return parser


def _to_argument_options(field: FieldInfo) -> dict[str, Any]:
    default = field.get_default(call_default_factory=True)
    text = f"{field.description or ''} (default: {default!r})".strip().replace("%", "%%")
    if field.annotation is bool:
        return {"action": argparse.BooleanOptionalAction, "default": None, "help": text}
    if isinstance(default, dict):
        return {"type": json.loads, "metavar": "JSON", "help": text}
    if isinstance(default, tuple):
        return {"nargs": "*", "metavar": "NAME", "help": text}
    return {"metavar": "VALUE", "help": text}


if __name__ == "__main__":
    sys.exit(main())
