"""Faults to order: what a test wants a function to do instead of its work, so many times."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

FaultKind = Literal["error", "timeout", "exit", "twice", "unreachable"]


@dataclass
class Fault:
    """What happens to invocations of a function.

    Attributes:
        function: its name begins or ends so.
        kind: "error": it raises ``error``; "timeout": its time is over after ``after_s``; "exit": its process is
            killed after ``after_s``; "twice": it is called twice with the same event; "unreachable": Lambda itself
            answers an error.
        times: for so many invocations.
    """

    function: str
    kind: FaultKind
    times: int = 1
    error: str = "RuntimeError"
    message: str = "a fault to order"
    after_s: float = 0.05


class Faults:
    """The faults that are ordered, taken in order."""

    def __init__(self) -> None:
        self._pending: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Order one."""
        with self._lock:
            self._pending.append(fault)

    def clear(self) -> None:
        """Forget those that are left."""
        with self._lock:
            self._pending.clear()

    def take(self, function: str) -> Fault | None:
        """What is to happen to this invocation."""
        with self._lock:
            for fault in self._pending:
                if fault.times > 0 and function.endswith(fault.function):
                    fault.times -= 1
                    return fault
        return None
