"""Return unused memory to the operating system: a server runs for months.

glibc gives groups of threads separate heaps (arenas) and cannot release memory below a block that is still in use. Frames,
audio and messages of many streams are allocated in many threads and fragment all arenas, so the resident size grows for
hours although no more memory is used.

Finished streams leave reference cycles that hold frames and audio. Only Python's garbage collector frees them, and its full
collections run when a quarter of all objects is new; with torch's objects loaded that takes ten minutes of streams and more.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import sys

# The GIL lets one thread allocate at a time, except in torch and OpenCV code outside it.
MALLOC_ARENAS = 2
_M_ARENA_MAX = -8  # malloc.h


def limit_malloc_arenas() -> None:
    """Limit the number of glibc arenas. Call it before threads start; without glibc it does nothing."""
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_ARENA_MAX, MALLOC_ARENAS)


def freeze_gc() -> None:
    """Freeze all current objects (``gc.freeze``), such as the libraries and models of a ready server.

    Later collections skip them: they run sooner and take milliseconds.
    """
    gc.collect()
    gc.freeze()


def trim_memory() -> None:
    """Collect reference cycles and return free heap memory to the operating system.

    This takes some milliseconds, in which no other thread can allocate. If nothing was frozen (the server is embedded in
    another program), a full collection would stop that program for seconds: then only the heap is trimmed.
    """
    if gc.get_freeze_count():
        gc.collect()
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    # Other C libraries, such as musl, have neither function.
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
