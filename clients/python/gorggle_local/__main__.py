"""``gorggle local``: run the whole product here until told to stop."""

from __future__ import annotations

import argparse
import signal
import sys
from importlib import util
from pathlib import Path

NEEDED = ("aiohttp", "moto", "awslambdaric", "aws_lambda_powertools", "torch", "local_aws")
EXIT_OK, EXIT_FAILED = 0, 1


def main() -> int:
    """Run the command; the result is its exit code."""
    options = _parser().parse_args()
    missing = [name for name in NEEDED if util.find_spec(name) is None]
    if missing:
        return _complain(f"{', '.join(missing)} is not installed: pip install 'gorggle[local]'")
    from gorggle_local.product import LocalSettings, Product, told
    from gorggle_local.services import ServiceError

    signal.signal(signal.SIGTERM, _interrupt)
    settings = LocalSettings(options.listen, options.folder.resolve(), options.device)
    try:
        with Product(settings, lambda text: print(text, file=sys.stderr, flush=True)) as product:
            if options.announce:
                print(told(product), flush=True)
            print(
                f"\n  Gorggle is at {product.url}\n  Logs are in {settings.folder / 'logs'}. Ctrl-C ends it.\n",
                file=sys.stderr,
            )
            product.watch()
    except KeyboardInterrupt:
        return EXIT_OK
    except (ServiceError, OSError) as error:
        return _complain(str(error))
    return EXIT_OK


def _parser() -> argparse.ArgumentParser:
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
        default=Path.home() / ".cache" / "gorggle",
        help="for logs and keys (default: ~/.cache/gorggle)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the model runs")
    parser.add_argument(
        "--announce", action="store_true", help="tell the address as a line of JSON when ready"
    )
    return parser


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _complain(text: str) -> int:
    print(f"gorggle local: error: {text}", file=sys.stderr)
    return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
