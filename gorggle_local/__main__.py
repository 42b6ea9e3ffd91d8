"""``gorggle local``: run the whole product here until told to stop."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from importlib import util
from pathlib import Path

REQUIRED_MODULES = ("aiohttp", "moto", "awslambdaric", "aws_lambda_powertools", "torch", "gorggle_lambdas")
EXIT_OK, EXIT_FAILED = 0, 1


def main() -> int:
    """Run the command; the result is its exit code."""
    options = _build_parser().parse_args()
    missing = [name for name in REQUIRED_MODULES if util.find_spec(name) is None]
    if missing:
        return _fail(f"{', '.join(missing)} is not installed: pip install 'gorggle[local]'")
    from gorggle_local.processes import ServiceError
    from gorggle_local.supervisor import LocalSettings, LocalStack, ready_message

    signal.signal(signal.SIGTERM, _interrupt)
    limit_bytes = int(options.limit_gb * 1e9)
    settings = LocalSettings(options.listen, options.folder.resolve(), options.device, limit_bytes)
    try:
        with LocalStack(settings, lambda text: print(text, file=sys.stderr, flush=True)) as product:
            if options.announce:
                print(ready_message(product), flush=True)
            print(
                f"\n  Gorggle is at {product.url}\n"
                f"  Videos, transcripts and logs are in {settings.data_dir}. Ctrl-C ends it.\n",
                file=sys.stderr,
            )
            product.watch()
    except KeyboardInterrupt:
        return EXIT_OK
    except (ServiceError, OSError) as error:
        return _fail(str(error))
    return EXIT_OK


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gorggle local",
        description="Run the inference server, the pipeline, the HTTP API and the page on this machine.",
    )
    parser.add_argument(
        "--listen", default="127.0.0.1:8080", help="where the page is (default: 127.0.0.1:8080)"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=_data_home() / "gorggle",
        help="for videos, transcripts, logs and keys (default: ~/.local/share/gorggle)",
    )
    parser.add_argument(
        "--limit-gb",
        type=_parse_size_gb,
        default=20.0,
        help="the most that videos and transcripts take there; beyond, the oldest videos are deleted (default: 20)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the model runs")
    parser.add_argument(
        "--announce", action="store_true", help="tell the address as a line of JSON when ready"
    )
    return parser


def _data_home() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")


def _parse_size_gb(text: str) -> float:
    size = float(text)
    if not 0 < size < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is no size: expected gigabytes, such as 20")
    return size


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _fail(text: str) -> int:
    print(f"gorggle local: error: {text}", file=sys.stderr)
    return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
