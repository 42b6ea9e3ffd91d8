"""Seccomp filter of a decoder process: an allow list of the system calls that decoding needs.

The kernel runs the filter before each system call of the process. Other calls fail with ENOSYS, so that the C library
uses its fallbacks where it has them.

Source: seccomp(2); numbers from the kernel's tables of the two architectures.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys

# Numbers on x86-64 and arm64 (-1: none). None of these opens files or connections, or starts or signals processes.
_ALLOWED = {
    # the two pipes and the spool file
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "lseek": (8, 62),
    "pread64": (17, 67), "close": (3, 57), "fstat": (5, 80), "poll": (7, -1), "ppoll": (271, 73),
    # memory
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "mremap": (25, 216),
    "madvise": (28, 233), "sysinfo": (99, 179),
    # threads
    "futex": (202, 98), "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "set_robust_list": (273, 99),
    "rseq": (334, 293), "gettid": (186, 178), "getpid": (39, 172), "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120), "getcpu": (309, 168), "exit": (60, 93), "exit_group": (231, 94),
    # own signals, time
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "restart_syscall": (219, 128), "clock_gettime": (228, 113), "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101), "gettimeofday": (96, 169), "time": (201, -1), "getrandom": (318, 278),
}  # fmt: skip
_CLONE, _PRCTL, _TGKILL = (56, 220), (157, 167), (234, 131)

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_SECCOMP = (317, 277)
_SET_MODE_FILTER, _FILTER_FLAG_TSYNC = 1, 1

_ALLOW, _DENY = 0x7FFF0000, 0x00050000 | errno.ENOSYS
_LOAD, _IF_EQUAL, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_CLONE_THREAD = 0x10000
_PR_SET_NAME = 15


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def install_filter() -> bool:
    """Install the filter irrevocably; return False if that is not possible. Requires ``no_new_privs``.

    The process can then not open files or connections, start programs or access other processes.
    """
    architecture = _ARCHITECTURES.get(platform.machine())
    if not sys.platform.startswith("linux") or architecture is None or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    column, kind = architecture
    instructions = _build_filter(column, kind)
    array = (_Instruction * len(instructions))(*instructions)
    program = _Program(len(instructions), array)
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.syscall(
        ctypes.c_long(_SECCOMP[column]),
        ctypes.c_ulong(_SET_MODE_FILTER),
        ctypes.c_ulong(_FILTER_FLAG_TSYNC),
        ctypes.byref(program),
    )
    return bool(done == 0)


def _build_filter(column: int, architecture: int) -> list[_Instruction]:
    # System calls of another architecture have other numbers.
    instructions = [
        _Instruction(_LOAD, 0, 0, _ARCHITECTURE_AT),
        _Instruction(_IF_EQUAL, 1, 0, architecture),
        _Instruction(_RETURN, 0, 0, _DENY),
        _Instruction(_LOAD, 0, 0, _NUMBER_AT),
    ]
    for numbers in _ALLOWED.values():
        if numbers[column] >= 0:
            instructions += [
                _Instruction(_IF_EQUAL, 0, 1, numbers[column]),
                _Instruction(_RETURN, 0, 0, _ALLOW),
            ]
    instructions += _allow_if(_CLONE[column], _IF_ANY_BIT, _CLONE_THREAD)  # a thread, not a process
    instructions += _allow_if(_PRCTL[column], _IF_EQUAL, _PR_SET_NAME)  # thread names
    instructions += _allow_if(_TGKILL[column], _IF_EQUAL, os.getpid())  # abort() signals itself
    return [*instructions, _Instruction(_RETURN, 0, 0, _DENY)]


def _allow_if(number: int, test: int, value: int) -> list[_Instruction]:
    """Allow a call whose first 32-bit argument passes a test."""
    return [
        _Instruction(_IF_EQUAL, 0, 4, number),
        _Instruction(_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        _Instruction(test, 0, 1, value),
        _Instruction(_RETURN, 0, 0, _ALLOW),
        _Instruction(_RETURN, 0, 0, _DENY),
    ]
