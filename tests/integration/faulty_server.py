"""Server with an injected device fault: ``python -m tests.integration.faulty_server FILE …``.

While FILE exists, ``Recognizer.encode`` raises a RuntimeError with the file's text. With the text "slow SECONDS", it sleeps first
and then succeeds. With a text that begins with "lost", the device health check fails too, as after an illegal memory access.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from gorggle_server.__main__ import main
from gorggle_server.inference import device_health
from gorggle_server.inference.recognizer import Recognizer


def inject_faults_while_exists(fault: Path) -> None:
    """Patch the recognizer and the device health check to fail while the file exists."""
    encode = Recognizer.encode

    def encode_or_fail(self: Recognizer, *arguments: Any, **keywords: Any) -> Any:
        if fault.exists():
            text = fault.read_text()
            if text.startswith("slow"):
                time.sleep(float(text.split()[1]))
            else:
                raise RuntimeError(text)
        return encode(self, *arguments, **keywords)

    run_probe = device_health.run_probe_kernel

    def run_probe_or_fail(device: str) -> None:
        if fault.exists() and fault.read_text().startswith("lost"):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        run_probe(device)

    Recognizer.encode = encode_or_fail  # type: ignore[method-assign]
    device_health.run_probe_kernel = run_probe_or_fail


if __name__ == "__main__":
    inject_faults_while_exists(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
