"""Reads pickles without running them.

Python's own unpickler imports and calls whatever a file names. Real checkpoints need only containers,
tensors and a handful of the reference toolkit's classes, so this package interprets the pickle's
instructions itself: a class that is named becomes a mark, an object of it an inert record, and any name
that is not on the list in ``pickle_classes`` ends the reading with a ``ModelFormatError``.
"""

from __future__ import annotations

import io
import pickle
import struct
from typing import Any, BinaryIO

from gorggle_server.avhubert.checkpoints.pickle_opcodes import OPERATIONS, PersistentLoad, PickleMachine
from gorggle_server.errors import ModelFormatError

_MAX_STACK = 10_000_000
# What a damaged or hostile pickle makes of operations on plain containers, which is all that there are.
_DAMAGE = (
    IndexError, KeyError, TypeError, ValueError, AttributeError,
    OverflowError, RecursionError, MemoryError, struct.error,
)  # fmt: skip


def load(stream: BinaryIO, persistent_load: PersistentLoad | None = None) -> Any:
    """Read one pickle, up to and including its STOP.

    Args:
        stream: at the pickle's first byte; left after its last.
        persistent_load: turns persistent ids, such as torch's references to storages, into objects.

    Raises:
        ModelFormatError: the pickle is damaged, names a class that is not allowed, or does what no
            checkpoint does.
    """
    try:
        return _result(PickleMachine(stream, persistent_load))
    except _DAMAGE as error:
        raise ModelFormatError(
            f"the checkpoint's pickle is malformed: {type(error).__name__}: {error}"
        ) from error


def loads(data: bytes | bytearray, persistent_load: PersistentLoad | None = None) -> Any:
    """Read a pickle that is held in memory: see ``load``."""
    return load(io.BytesIO(data), persistent_load)


def _result(machine: PickleMachine) -> Any:
    while (code := machine.read(1)) != pickle.STOP:
        operation = OPERATIONS.get(code)
        if operation is None:
            raise ModelFormatError(
                f"the checkpoint's pickle has instruction {code!r}, which no checkpoint needs: it is damaged, or no checkpoint"
            )
        operation(machine)
        if len(machine.stack) > _MAX_STACK:
            raise ModelFormatError(f"the checkpoint's pickle piles up more than {_MAX_STACK} objects")
    return machine.stack.pop()
