"""Fault injection: errors, timeouts and crashes of function invocations, for tests."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

FaultKind = Literal["error", "timeout", "exit", "twice", "unreachable"]


@dataclass
class Fault:
    """A fault of a function's next invocations.

    Attributes:
        function: suffix of its name.
        kind: "error": it raises ``error``; "timeout": it times out after ``after_s``; "exit": its process is killed after
            ``after_s``; "twice": it is invoked twice with the same event; "unreachable": Lambda returns a service error.
        times: number of invocations.
    """

    function: str
    kind: FaultKind
    times: int = 1
    error: str = "RuntimeError"
    message: str = "injected fault"
    after_s: float = 0.05


class Faults:
    """Injected faults, applied in order."""

    def __init__(self) -> None:
        self._pending: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Add a fault."""
        with self._lock:
            self._pending.append(fault)

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._pending.clear()

    def take(self, function: str) -> Fault | None:
        """Return the fault for an invocation, if any, and count it."""
        with self._lock:
            for fault in self._pending:
                if fault.times > 0 and function.endswith(fault.function):
                    fault.times -= 1
                    return fault
        return None
