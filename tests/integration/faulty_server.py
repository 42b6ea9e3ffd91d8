"""The real server with a device that fails while a file is there: ``python -m tests.integration.faulty_server FILE …``.

The file's text is the error's. The fault is put in below everything of the server, where a call of the device would raise.
A text that begins with "lost" makes the device fail for good, as CUDA does after an illegal access.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from gorggle_server.__main__ import main
from gorggle_server.avhubert import Model
from gorggle_server.inference import device_health


def inject_faults_while_exists(fault: Path) -> None:
    encode = Model.encode

    def failing(self: Model, *arguments: Any, **named: Any) -> Any:
        if fault.exists():
            text = fault.read_text()
            if text.startswith("slow"):
                time.sleep(float(text.split()[1]))
            else:
                raise RuntimeError(text)
        return encode(self, *arguments, **named)

    calculate = device_health.run_probe_kernel

    def calculate_or_fail(device: str) -> None:
        if fault.exists() and fault.read_text().startswith("lost"):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        calculate(device)

    Model.encode = failing  # type: ignore[method-assign]
    device_health.run_probe_kernel = calculate_or_fail


if __name__ == "__main__":
    inject_faults_while_exists(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
