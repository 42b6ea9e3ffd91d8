"""``python -m gorggle_local.aws``: emulate AWS until standard input is closed. Prints its URLs as a line of JSON."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from gorggle_local.aws.emulator import AwsEmulator, EmulatorSettings

CACHE_DIR = Path(tempfile.gettempdir()) / "gorggle-local-aws"


def main() -> None:
    """Run the emulator."""
    parser = argparse.ArgumentParser(prog="python -m gorggle_local.aws", description=__doc__)
    parser.add_argument("--cache-dir", type=Path, default=CACHE_DIR)
    parser.add_argument("--aws-port", type=int, default=0)
    parser.add_argument("--api-port", type=int, default=0)
    options = parser.parse_args()
    run(AwsEmulator(EmulatorSettings(options.cache_dir, options.aws_port, options.api_port)))


def run(emulator: AwsEmulator) -> NoReturn:
    """Run an emulator until standard input is closed, and exit."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
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
