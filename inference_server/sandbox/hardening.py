"""How a decoder process shuts itself in before it opens a stranger's file: what it gives up, and what is left to it.

``cut_off`` comes first, while the process is still being made ready, or the one that it is forked from; then ``leave``;
``confine`` when it knows its limits. Each takes what this system and this user's rights allow, and tells what holds. Only
Linux has all of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import resource
import signal
import sys
from enum import IntFlag
from pathlib import Path

from gorggle_server.sandbox.seccomp import install_filter

MAX_OPEN_FILES = 16
# How much longer the process lives once it was told that its processor time is up.
CPU_GRACE_S = 5

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38


class SandboxFeatures(IntFlag):
    """What holds for a decoder beyond the limits of memory, time and files, which hold everywhere."""

    NO_NETWORK = 1  # in a network of its own that has no interface
    NO_NEW_PRIVILEGES = 2
    SECCOMP = 4  # no opening, connecting, starting, signalling: see syscalls
    MEMORY_LIMIT = 8


def isolate_signals_and_network() -> SandboxFeatures:
    """Cut the ties that children inherit cut: signals, and the network. Ends with the thread that started it."""
    # A terminal and a supervisor signal every process of the server, which lets its streams finish; then it ends us.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if not sys.platform.startswith("linux"):
        return SandboxFeatures(0)
    libc = ctypes.CDLL(None, use_errno=True)
    held = SandboxFeatures(0)
    # Without a user namespace only root may; where neither is permitted, the filter of calls has to do.
    if any(libc.unshare(flags) == 0 for flags in (_CLONE_NEWUSER | _CLONE_NEWNET, _CLONE_NEWNET)):
        held |= SandboxFeatures.NO_NETWORK
    # After unshare, which resets both. Who may not be looked into owns nothing of its own in /proc, which is needed yet.
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    return held


def drop_privileges() -> SandboxFeatures:
    """Cut the ties of this very process: other processes' eyes, more rights, the life after the parent."""
    if not sys.platform.startswith("linux"):
        return SandboxFeatures(0)
    # Where memory runs out, this process goes first. Written now: later /proc is not ours any more.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        return SandboxFeatures.NO_NEW_PRIVILEGES
    return SandboxFeatures(0)


def apply_limits(memory_bytes: int, cpu_s: int, max_file_bytes: int) -> SandboxFeatures:
    """Take on the limits, for good.

    Args:
        memory_bytes: of address space, the program itself included.
        cpu_s: of processor time, of all threads together.
        max_file_bytes: how far any open file may grow; 0 where nothing is spooled.
    """
    held = SandboxFeatures(0)
    _set_limit(resource.RLIMIT_CORE, 0)
    _set_limit(resource.RLIMIT_FSIZE, max_file_bytes)
    _set_limit(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    _set_limit(resource.RLIMIT_CPU, cpu_s, CPU_GRACE_S)
    if not sys.platform.startswith("linux"):
        # Linux counts threads too, which decoding needs, and all of the user's; there the filter refuses processes.
        _set_limit(resource.RLIMIT_NPROC, 1)
    # macOS maps hundreds of gigabytes into every process and has no limit that tells them from memory in use.
    elif _set_limit(resource.RLIMIT_AS, memory_bytes):
        held |= SandboxFeatures.MEMORY_LIMIT
    if install_filter():
        held |= SandboxFeatures.SECCOMP
    return held


def _set_limit(what: int, soft: int, grace: int = 0) -> bool:
    """Lower a limit; it can be lowered no further than it already is."""
    hardest = resource.getrlimit(what)[1]
    hard = soft + grace
    if hardest != resource.RLIM_INFINITY:
        hard = min(hard, hardest)
    try:
        resource.setrlimit(what, (min(soft, hard), hard))
    except (OSError, ValueError):  # macOS knows some limits by name only
        return False
    return True
