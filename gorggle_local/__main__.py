"""``gorggle local``: run server, pipeline, API and website on this machine until interrupted."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from importlib import util
from pathlib import Path

REQUIRED_MODULES = ("aiohttp", "moto", "awslambdaric", "aws_lambda_powertools", "torch", "gorggle_lambdas")
EXIT_OK, EXIT_FAILED = 0, 1


def main() -> int:
    """Run the command and return its exit code."""
    options = _build_parser().parse_args()
    missing = [name for name in REQUIRED_MODULES if util.find_spec(name) is None]
    if missing:
        return _fail(f"missing packages: {', '.join(missing)}; run: pip install 'gorggle[local]'")
    from gorggle_local.processes import ServiceError
    from gorggle_local.supervisor import LocalSettings, LocalStack

    signal.signal(signal.SIGTERM, _interrupt)
    max_disk_bytes = int(options.max_disk_gb * 1e9)
    settings = LocalSettings(
        options.listen, options.data_dir.resolve(), options.device, max_disk_bytes, options.model
    )
    try:
        with LocalStack(settings, lambda text: print(text, file=sys.stderr, flush=True)) as stack:
            if options.print_ready:
                print(json.dumps({"listening": stack.url}), flush=True)
            print(
                f"\n  Gorggle is running at {stack.url}\n"
                f"  Data and logs: {settings.data_dir}\n"
                "  Press Ctrl-C to stop.\n",
                file=sys.stderr,
            )
            stack.watch()
    except KeyboardInterrupt:
        return EXIT_OK
    except (ServiceError, OSError) as error:
        return _fail(str(error))
    return EXIT_OK


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gorggle local",
        description="Run the inference server, the pipeline, the HTTP API and the website on this machine.",
    )
    parser.add_argument(
        "--listen",
        default="127.0.0.1:8080",
        help="address of the website and the API (default: 127.0.0.1:8080)",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=_data_home() / "gorggle",
        help="directory for videos, transcripts, logs and keys (default: ~/.local/share/gorggle)",
    )
    parser.add_argument(
        "--max-disk-gb",
        type=_parse_size_gb,
        default=20.0,
        help="maximum size of videos and transcripts; above it the oldest videos are deleted (default: 20)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="device for inference")
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="model to use: one installed with `gorggle model get` (default: the embedded one)",
    )
    parser.add_argument(
        "--print-ready", action="store_true", help="print the address as a line of JSON when ready"
    )
    return parser


def _data_home() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")


def _parse_size_gb(text: str) -> float:
    size = float(text)
    if not 0 < size < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid size: expected gigabytes, such as 20")
    return size


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _fail(text: str) -> int:
    print(f"gorggle local: error: {text}", file=sys.stderr)
    return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
