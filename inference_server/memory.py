"""Memory that is no longer needed, given back: a server runs for months, and its memory is paid for.

glibc gives every few threads a heap of their own, and gives nothing back while anything above it is in use. Frames, sounds
and messages of many streams come and go in many threads, and tear holes into all of these heaps; what the process holds
grows for hours though it uses no more than at the start.

What a stream leaves behind refers to itself here and there, with pictures and sounds in it, and is found by Python's collector
alone; that looks at everything only when a quarter of all objects is new, which beside those of torch takes ten minutes
of streams and more.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import sys

# Python's own lock lets one thread allocate at a time, but for what torch and OpenCV do outside it.
MALLOC_ARENAS = 2
_M_ARENA_MAX = -8  # malloc.h


def limit_malloc_arenas() -> None:
    """Have all threads share a few heaps. To be called before there are threads; without glibc nothing happens."""
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_ARENA_MAX, MALLOC_ARENAS)


def freeze_gc() -> None:
    """Have the collector never look again at what there is now: the libraries and models of a server that is ready.

    It then soon looks at everything else, and needs milliseconds for it.
    """
    gc.collect()
    gc.freeze()


def trim_memory() -> None:
    """Collect what refers to itself, and give the system what is free in all heaps.

    Takes some milliseconds, in which no other thread can allocate. Where the server is a part of another program, which
    has set nothing apart, the collector would look at all that program's objects and stop it for seconds: there Python
    decides when to collect.
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
