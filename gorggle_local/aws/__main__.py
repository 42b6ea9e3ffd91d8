"""``python -m gorggle_local.aws``: an AWS on this machine, until standard input closes. Tells its addresses as a line of JSON."""

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
    """Run the machine."""
    parser = argparse.ArgumentParser(prog="python -m gorggle_local.aws", description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "gorggle-local-aws")
    parser.add_argument("--truth", type=Path, action="append", default=[], help="folder of clips' truths")
    parser.add_argument("--aws-port", type=int, default=0)
    parser.add_argument("--api-port", type=int, default=0)
    parser.add_argument("--time-scale", type=float, default=1.0, help="of the state machine's retries")
    parser.add_argument("--python", type=Path, help="interpreter that functions run under; default: this one")
    parser.add_argument("--runtime", type=Path, help="zip of what Lambda's runtime brings for --python")
    given = parser.parse_args()
    interpreter = None
    if (given.python is None) != (given.runtime is None):
        parser.error("--python and --runtime belong together: a runtime is built for one Python")
    if given.python is not None:
        interpreter = python_discovery.probe(given.python)
        if interpreter is None:
            parser.error(f"{given.python} is no CPython that takes packages built for Lambda: give another")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    machine = AwsEmulator(
        EmulatorSettings(
            given.cache,
            tuple(given.truth),
            given.aws_port,
            given.api_port,
            given.time_scale,
            interpreter,
            given.runtime,
        )
    )
    machine.start()
    told = {
        "endpoint_url": machine.endpoint_url,
        "api_url": machine.api_url,
        "interpreter": str(machine.interpreter),
    }
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    try:
        sys.stdin.read()
    except KeyboardInterrupt:
        pass
    finally:
        machine.stop()
    # Taking moto's objects apart one by one would take longer than all the rest.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
