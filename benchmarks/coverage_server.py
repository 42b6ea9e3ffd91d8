"""The server with line-transition coverage for the fuzzer: ``python benchmarks/coverage_server.py MAP …``.

MAP is a file of 65 536 bytes: one byte per hashed transition between lines of ``inference_server``, like AFL's branch
map. FFmpeg and the decoder subprocesses are not covered.
"""

from __future__ import annotations

import mmap
import sys
import threading
import zlib
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import gorggle_server

MAP_BYTES = 1 << 16
PACKAGE = str(Path(gorggle_server.__file__).parent)
# Inference does not depend on the input's validity; tracing it would only cost time.
UNTRACED = (f"{PACKAGE}/avhubert", f"{PACKAGE}/vision", f"{PACKAGE}/observability")
# Functions without new coverage for this number of calls are traced in one of sixteen calls.
SAMPLING_THRESHOLD_CALLS = 400


def record_coverage(path: str) -> None:
    """Record the coverage of all threads from now on."""
    with Path(path).open("r+b") as file:
        reached = mmap.mmap(file.fileno(), MAP_BYTES)
    dull: Counter[CodeType] = Counter()
    bases: dict[CodeType, int] = {}

    def on_call(frame: FrameType, _event: str, _argument: Any) -> Any:
        code = frame.f_code
        base = bases.get(code)
        if base is None:
            name = code.co_filename
            is_ours = name.startswith(PACKAGE) and not name.startswith(UNTRACED)
            base = bases[code] = zlib.crc32(f"{name}:{code.co_firstlineno}".encode()) if is_ours else -1
        if base < 0:
            return None
        dull[code] += 1
        if dull[code] > SAMPLING_THRESHOLD_CALLS and dull[code] % 16:
            return None
        before = 0

        def on_line(frame: FrameType, event: str, _argument: Any) -> Any:
            nonlocal before
            if event == "line":
                place = (base ^ before * 2654435761 ^ frame.f_lineno * 40503) % MAP_BYTES
                before = frame.f_lineno
                if not reached[place]:
                    reached[place] = 1
                    dull[code] = 0
            return on_line

        return on_line

    threading.settrace(on_call)
    sys.settrace(on_call)


if __name__ == "__main__":
    from gorggle_server.__main__ import main

    record_coverage(sys.argv[1])
    code = main(sys.argv[2:])
    threading.settrace(None)  # type: ignore[arg-type]
    sys.settrace(None)
    sys.exit(code)
