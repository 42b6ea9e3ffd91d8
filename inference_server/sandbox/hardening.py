"""Sandbox of a decoder process, enabled before it opens untrusted media.

``isolate_signals_and_network`` is called first, in the fork server if there is one; then ``drop_privileges``; and
``apply_limits`` when the job is known. Each enables what the system and the user's permissions allow, and returns the
active features. Only Linux supports all of them.
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
# Seconds of CPU time between SIGXCPU and SIGKILL.
CPU_GRACE_S = 5

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38


class SandboxFeatures(IntFlag):
    """Active sandbox features that are not available on every system."""

    NO_NETWORK = 1  # in a network namespace without interfaces
    NO_NEW_PRIVILEGES = 2
    SECCOMP = 4  # see ``seccomp``
    MEMORY_LIMIT = 8


def isolate_signals_and_network() -> SandboxFeatures:
    """Ignore termination signals, leave the network namespace and die with the parent; inherited by children."""
    # Terminals and supervisors signal all processes of the server, which drains its streams and then kills this one.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if not sys.platform.startswith("linux"):
        return SandboxFeatures(0)
    libc = ctypes.CDLL(None, use_errno=True)
    held = SandboxFeatures(0)
    # Only root may do so without a user namespace; if neither is permitted, seccomp still blocks sockets.
    if any(libc.unshare(flags) == 0 for flags in (_CLONE_NEWUSER | _CLONE_NEWNET, _CLONE_NEWNET)):
        held |= SandboxFeatures.NO_NETWORK
    # After unshare, which resets both. The process must stay dumpable to own its files in /proc, which it still needs.
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    return held


def drop_privileges() -> SandboxFeatures:
    """Make the process non-dumpable, forbid privilege escalation, and die with the parent (prctl)."""
    if not sys.platform.startswith("linux"):
        return SandboxFeatures(0)
    # Be the OOM killer's first choice. Written before the process becomes non-dumpable and loses its files in /proc.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        return SandboxFeatures.NO_NEW_PRIVILEGES
    return SandboxFeatures(0)


def apply_limits(memory_bytes: int, cpu_s: int, max_file_bytes: int) -> SandboxFeatures:
    """Apply irrevocable resource limits and the seccomp filter.

    Args:
        memory_bytes: address space, including the program itself.
        cpu_s: CPU time of all threads.
        max_file_bytes: maximum size of an open file.
    """
    held = SandboxFeatures(0)
    _set_limit(resource.RLIMIT_CORE, 0)
    _set_limit(resource.RLIMIT_FSIZE, max_file_bytes)
    _set_limit(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    _set_limit(resource.RLIMIT_CPU, cpu_s, CPU_GRACE_S)
    if not sys.platform.startswith("linux"):
        # Linux also counts threads, and all of the user's; there seccomp forbids processes.
        _set_limit(resource.RLIMIT_NPROC, 1)
    # macOS maps hundreds of gigabytes into every process, so a limit on address space cannot be used.
    elif _set_limit(resource.RLIMIT_AS, memory_bytes):
        held |= SandboxFeatures.MEMORY_LIMIT
    if install_filter():
        held |= SandboxFeatures.SECCOMP
    return held


def _set_limit(what: int, soft: int, grace: int = 0) -> bool:
    """Set a soft limit, and a hard limit ``grace`` above it, within the current hard limit; return success."""
    hardest = resource.getrlimit(what)[1]
    hard = soft + grace
    if hardest != resource.RLIM_INFINITY:
        hard = min(hard, hardest)
    try:
        resource.setrlimit(what, (min(soft, hard), hard))
    except (OSError, ValueError):  # macOS does not implement some limits
        return False
    return True
