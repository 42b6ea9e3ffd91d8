"""Free memory is returned to the system; tested in a subprocess."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

# Many threads tear holes into their heaps: of what each has allocated, only every hundredth piece stays in use.
PROGRAM = """
import json, os, threading
from gorggle_server.memory import limit_malloc_arenas, trim_memory
import ctypes

limit_malloc_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def tear():
    pieces = [libc.malloc(50_000) for _ in range(400)]
    for piece in pieces:
        ctypes.memset(piece, 1, 50_000)
    together.wait()
    for number, piece in enumerate(pieces):
        if number % 100:
            libc.free(piece)

together = threading.Barrier(8)
threads = [threading.Thread(target=tear) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
before = resident()
trim_memory()
libc.fopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.fclose.argtypes = [ctypes.c_void_p]
file = libc.fopen(b"/dev/stderr", b"w")
libc.malloc_info(0, file)
libc.fclose(file)
print(json.dumps([before, resident()]))
"""


# Something that refers to itself, which only the collector finds.
RING = """
import gc, weakref
from gorggle_server.memory import trim_memory, freeze_gc

class Ring:
    def __init__(self):
        self.itself = self

gc.disable()
{ready}
ring = Ring()
left = weakref.ref(ring)
del ring
trim_memory()
print(left() is None)
"""


@pytest.mark.parametrize(
    ("ready", "collected"),
    [("freeze_gc()", "True"), ("# the server is a part of another program", "False")],
)
def test_reference_cycles_are_collected_only_after_freeze_gc(ready: str, collected: str) -> None:
    program = RING.format(ready=ready)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == collected


def test_the_collector_skips_frozen_objects() -> None:
    program = "import gc; from gorggle_server.memory import freeze_gc as s; s(); print(len(gc.get_objects()))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) < 100  # of thousands


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have one heap")
def test_threads_share_arenas_and_free_memory_is_returned() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )
    before, after = json.loads(done.stdout)
    assert done.stderr.count("<heap nr=") == 2
    # Of 160 MB that were free, nearly all.
    assert before - after > 100e6, (before, after)
