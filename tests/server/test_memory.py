"""Garbage collection and the return of free memory to the operating system, tested in a subprocess."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

# Fragments the heaps of several threads: each frees all but every hundredth of its allocations.
FRAGMENTATION_PROGRAM = """
import json, os, threading
from gorggle_server.memory import limit_malloc_arenas, trim_memory
import ctypes

limit_malloc_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def fragment_heap():
    blocks = [libc.malloc(50_000) for _ in range(400)]
    for block in blocks:
        ctypes.memset(block, 1, 50_000)
    barrier.wait()
    for number, block in enumerate(blocks):
        if number % 100:
            libc.free(block)

barrier = threading.Barrier(8)
threads = [threading.Thread(target=fragment_heap) for _ in range(8)]
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


# Creates a reference cycle, which only the garbage collector can free.
REFERENCE_CYCLE_PROGRAM = """
import gc, weakref
from gorggle_server.memory import trim_memory, freeze_gc

class Cycle:
    def __init__(self):
        self.reference = self

gc.disable()
{setup}
cycle = Cycle()
reference = weakref.ref(cycle)
del cycle
trim_memory()
print(reference() is None)
"""


@pytest.mark.parametrize(
    ("setup", "collected"),
    [("freeze_gc()", "True"), ("# embedded in another program: freeze_gc is not called", "False")],
)
def test_reference_cycles_are_collected_only_after_freeze_gc(setup: str, collected: str) -> None:
    program = REFERENCE_CYCLE_PROGRAM.format(setup=setup)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == collected


def test_frozen_objects_are_not_tracked_by_the_garbage_collector() -> None:
    program = "import gc; from gorggle_server.memory import freeze_gc as s; s(); print(len(gc.get_objects()))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) < 100  # thousands without freeze_gc


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc arenas are specific to glibc")
def test_malloc_arenas_are_limited_and_free_memory_is_returned() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FRAGMENTATION_PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )
    before, after = json.loads(done.stdout)
    assert done.stderr.count("<heap nr=") == 2
    # Nearly all of the 160 MB of free memory.
    assert before - after > 100e6, (before, after)
