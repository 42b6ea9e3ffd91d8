"""``python -m gorggle_local.aws``: emulate AWS until standard input is closed. Prints its URLs as a line of JSON."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
from pathlib import Path

from gorggle_local.aws import python_discovery
from gorggle_local.aws.emulator import AwsEmulator, EmulatorSettings


def main() -> None:
    """Run the emulator."""
    parser = argparse.ArgumentParser(prog="python -m gorggle_local.aws", description=__doc__)
    parser.add_argument("--cache-dir", type=Path, default=Path(tempfile.gettempdir()) / "gorggle-local-aws")
    parser.add_argument(
        "--truth", type=Path, action="append", default=[], help="folder of reference transcripts"
    )
    parser.add_argument("--aws-port", type=int, default=0)
    parser.add_argument("--api-port", type=int, default=0)
    parser.add_argument(
        "--time-scale", type=float, default=1.0, help="factor for the delays of the state machine's retries"
    )
    parser.add_argument("--python", type=Path, help="interpreter for the functions; default: this one")
    parser.add_argument("--runtime", type=Path, help="zip of the Lambda runtime's packages for --python")
    options = parser.parse_args()
    interpreter = None
    if (options.python is None) != (options.runtime is None):
        parser.error("--python and --runtime must be given together")
    if options.python is not None:
        interpreter = python_discovery.probe(options.python)
        if interpreter is None:
            parser.error(f"{options.python} is not a CPython that can load packages built for Lambda")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    emulator = AwsEmulator(
        EmulatorSettings(
            options.cache_dir,
            tuple(options.truth),
            options.aws_port,
            options.api_port,
            options.time_scale,
            interpreter,
            options.runtime,
        )
    )
    emulator.start()
    ready_info = {
        "endpoint_url": emulator.endpoint_url,
        "api_url": emulator.api_url,
        "interpreter": str(emulator.interpreter),
    }
    sys.stdout.write(json.dumps(ready_info) + "\n")
    sys.stdout.flush()
    try:
        sys.stdin.read()
    except KeyboardInterrupt:
        pass
    finally:
        emulator.stop()
    # Exit at once: freeing moto's objects takes seconds.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
