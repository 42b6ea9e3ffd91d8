"""What each instruction of a pickle does here, where no class is imported and no function called.

Source: the instruction set as documented in Python's ``pickletools``.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeAlias

from gorggle_server.avhubert.checkpoints import pickle_allowlist
from gorggle_server.avhubert.checkpoints.pickle_allowlist import GlobalReference, OpaqueObject
from gorggle_server.errors import ModelFormatError

PersistentLoad: TypeAlias = Callable[[object], object]

# The longest string in a real checkpoint is its SentencePiece model, of about a megabyte.
_MAX_BYTES = 2**28
# How much calls may copy in all. Without a limit, a short pickle could copy one long list a million times.
_MAX_COPIED_ITEMS = 2**23
_KEY_TYPES = (str, int, float, bytes, type(None))


@dataclass
class PickleMachine:
    """The state of an unpickler: a stack, the stacks below its marks, and the memo."""

    stream: BinaryIO
    persistent_load: PersistentLoad | None
    stack: list[Any] = field(default_factory=list)
    marked: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    copied_items: int = 0

    def read(self, count: int) -> bytes:
        """The next bytes; fewer are an error."""
        if not 0 <= count <= _MAX_BYTES:
            raise ModelFormatError(
                f"the checkpoint's pickle announces {count} bytes; expected at most {_MAX_BYTES}"
            )
        data = self.stream.read(count)
        if len(data) < count:
            raise ModelFormatError("the checkpoint's pickle ends before its time: the file is cut off")
        return data

    def line(self, encoding: str = "utf-8") -> str:
        """The rest of the line."""
        data = self.stream.readline(65_536)
        if not data.endswith(b"\n"):
            raise ModelFormatError("the checkpoint's pickle has a line without an end: the file is cut off")
        return data[:-1].decode(encoding)

    def unsigned(self, size: int) -> int:
        """The next number, of so many bytes."""
        return int.from_bytes(self.read(size), "little")

    def push(self, value: object) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def pop_marked(self) -> list[Any]:
        """All that was pushed since the last MARK."""
        items = self.stack
        self.stack = self.marked.pop()
        return items

    def call(self, mark: object, arguments: object) -> None:
        """Push what stands for the result of a call."""
        if isinstance(arguments, tuple):
            self.copied_items += sum(
                len(one) for one in arguments if isinstance(one, str | bytes | list | tuple)
            )
        if self.copied_items > _MAX_COPIED_ITEMS:
            raise ModelFormatError(
                "the checkpoint's pickle copies more than any checkpoint needs: it is hostile"
            )
        self.push(pickle_allowlist.called(mark, arguments))


def _mark(machine: PickleMachine) -> None:
    machine.marked.append(machine.stack)
    machine.stack = []


def _pop(machine: PickleMachine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_marked()


def _pop_marked(machine: PickleMachine) -> None:
    machine.pop_marked()


def _frame(machine: PickleMachine) -> None:
    machine.read(8)  # a hint for reading ahead; the instructions inside say all


def _protocol(machine: PickleMachine) -> None:
    version = machine.unsigned(1)
    if version > 5:
        raise ModelFormatError(f"the checkpoint's pickle has protocol {version}; the highest known is 5")


def _memoize(machine: PickleMachine) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _put(size: int) -> Callable[[PickleMachine], None]:
    def operation(machine: PickleMachine) -> None:
        machine.memo[machine.unsigned(size)] = machine.stack[-1]

    return operation


def _get(size: int) -> Callable[[PickleMachine], None]:
    def operation(machine: PickleMachine) -> None:
        machine.push(machine.memo[machine.unsigned(size)])

    return operation


def _put_line(machine: PickleMachine) -> None:
    machine.memo[int(machine.line())] = machine.stack[-1]


def _get_line(machine: PickleMachine) -> None:
    machine.push(machine.memo[int(machine.line())])


def _constant(value: object) -> Callable[[PickleMachine], None]:
    return lambda machine: machine.push(value)


def _integer(size: int, *, signed: bool = False) -> Callable[[PickleMachine], None]:
    return lambda machine: machine.push(int.from_bytes(machine.read(size), "little", signed=signed))


def _long(size: int) -> Callable[[PickleMachine], None]:
    return lambda machine: machine.push(
        int.from_bytes(machine.read(machine.unsigned(size)), "little", signed=True)
    )


def _integer_line(machine: PickleMachine) -> None:
    text = machine.line()
    machine.push({"00": False, "01": True}[text] if text in ("00", "01") else int(text))


def _long_line(machine: PickleMachine) -> None:
    machine.push(int(machine.line().removesuffix("L")))


def _float(machine: PickleMachine) -> None:
    machine.push(struct.unpack(">d", machine.read(8))[0])


def _float_line(machine: PickleMachine) -> None:
    machine.push(float(machine.line()))


def _text(size: int) -> Callable[[PickleMachine], None]:
    return lambda machine: machine.push(machine.read(machine.unsigned(size)).decode("utf-8", "surrogatepass"))


def _bytes(size: int) -> Callable[[PickleMachine], None]:
    return lambda machine: machine.push(machine.read(machine.unsigned(size)))


def _new(make: Callable[[], object]) -> Callable[[PickleMachine], None]:
    return lambda machine: machine.push(make())


def _tuple_of(count: int) -> Callable[[PickleMachine], None]:
    def operation(machine: PickleMachine) -> None:
        items = tuple(machine.stack[-count:])
        if len(items) < count:
            raise IndexError("the stack is too short for a tuple")
        machine.stack[-count:] = [items]

    return operation


def _tuple(machine: PickleMachine) -> None:
    items = machine.pop_marked()
    machine.push(tuple(items))


def _list(machine: PickleMachine) -> None:
    items = machine.pop_marked()
    machine.push(items)


def _dict(machine: PickleMachine) -> None:
    items = machine.pop_marked()
    result: dict[Any, Any] = {}
    _set_items(result, items)
    machine.push(result)


def _append(machine: PickleMachine) -> None:
    value = machine.stack.pop()
    _extend(machine.stack[-1], [value])


def _appends(machine: PickleMachine) -> None:
    items = machine.pop_marked()
    _extend(machine.stack[-1], items)


def _extend(target: object, items: list[Any]) -> None:
    if isinstance(target, OpaqueObject):
        target.elements.extend(items)
    elif isinstance(target, list):
        target.extend(items)
    else:
        raise TypeError(f"cannot append to {type(target).__name__}")


def _set_item(machine: PickleMachine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _set_items(machine.stack[-1], [key, value])


def _set_many_items(machine: PickleMachine) -> None:
    items = machine.pop_marked()
    _set_items(machine.stack[-1], items)


def _set_items(target: object, items: list[Any]) -> None:
    entries = target.entries if isinstance(target, OpaqueObject) else target
    if not isinstance(entries, dict) or len(items) % 2:
        raise TypeError(f"cannot set items of {type(target).__name__}")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Hashing a tuple nested a million deep would overflow C's stack; real keys are plain.
        if not isinstance(key, _KEY_TYPES):
            raise TypeError(f"a key is of type {type(key).__name__}; expected text or a number")
        entries[key] = value


def _global(machine: PickleMachine) -> None:
    module = machine.line()
    machine.push(pickle_allowlist.named(module, machine.line()))


def _stack_global(machine: PickleMachine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.push(pickle_allowlist.named(module, name))


def _instance(machine: PickleMachine) -> None:
    module = machine.line()
    mark = pickle_allowlist.named(module, machine.line())
    arguments = machine.pop_marked()
    machine.call(mark, tuple(arguments))


def _object(machine: PickleMachine) -> None:
    mark, *arguments = machine.pop_marked()
    machine.call(mark, tuple(arguments))


def _reduce(machine: PickleMachine) -> None:
    arguments, mark = machine.stack.pop(), machine.stack.pop()
    machine.call(mark, arguments)


def _new_object_with_names(machine: PickleMachine) -> None:
    names = machine.stack.pop()
    if names != {}:
        raise ModelFormatError(
            "the checkpoint's pickle makes an object from named arguments, which no checkpoint needs"
        )
    _reduce(machine)


def _build(machine: PickleMachine) -> None:
    state = machine.stack.pop()
    target = machine.stack[-1]
    if isinstance(target, OpaqueObject):
        target.state = state
    elif isinstance(target, GlobalReference) or not isinstance(target, dict):
        raise TypeError(f"cannot give a state to {type(target).__name__}")
    # A dict's state is the attributes of an OrderedDict, such as the versions in a state dict: not needed.


def _persistent(machine: PickleMachine) -> None:
    if machine.persistent_load is None:
        raise ModelFormatError("the checkpoint's pickle refers to a storage where none can be")
    machine.push(machine.persistent_load(machine.stack.pop()))


OPERATIONS: dict[bytes, Callable[[PickleMachine], None]] = {
    pickle.PROTO: _protocol,
    pickle.FRAME: _frame,
    pickle.MARK: _mark,
    pickle.POP: _pop,
    pickle.POP_MARK: _pop_marked,
    pickle.DUP: lambda machine: machine.push(machine.stack[-1]),
    pickle.MEMOIZE: _memoize,
    pickle.BINPUT: _put(1),
    pickle.LONG_BINPUT: _put(4),
    pickle.PUT: _put_line,
    pickle.BINGET: _get(1),
    pickle.LONG_BINGET: _get(4),
    pickle.GET: _get_line,
    pickle.NONE: _constant(None),
    pickle.NEWTRUE: _constant(True),
    pickle.NEWFALSE: _constant(False),
    pickle.INT: _integer_line,
    pickle.LONG: _long_line,
    pickle.BININT: _integer(4, signed=True),
    pickle.BININT1: _integer(1),
    pickle.BININT2: _integer(2),
    pickle.LONG1: _long(1),
    pickle.LONG4: _long(4),
    pickle.FLOAT: _float_line,
    pickle.BINFLOAT: _float,
    pickle.UNICODE: lambda machine: machine.push(machine.line("raw-unicode-escape")),
    pickle.SHORT_BINUNICODE: _text(1),
    pickle.BINUNICODE: _text(4),
    pickle.BINUNICODE8: _text(8),
    # Python 2's byte strings: names, in practice.
    pickle.SHORT_BINSTRING: _text(1),
    pickle.BINSTRING: _text(4),
    pickle.SHORT_BINBYTES: _bytes(1),
    pickle.BINBYTES: _bytes(4),
    pickle.BINBYTES8: _bytes(8),
    pickle.EMPTY_TUPLE: _constant(()),
    pickle.TUPLE1: _tuple_of(1),
    pickle.TUPLE2: _tuple_of(2),
    pickle.TUPLE3: _tuple_of(3),
    pickle.TUPLE: _tuple,
    pickle.EMPTY_LIST: _new(list),
    pickle.LIST: _list,
    pickle.APPEND: _append,
    pickle.APPENDS: _appends,
    pickle.EMPTY_DICT: _new(dict),
    pickle.DICT: _dict,
    pickle.SETITEM: _set_item,
    pickle.SETITEMS: _set_many_items,
    # Sets only count as lists: their members are never looked up, and need not be hashed.
    pickle.EMPTY_SET: _new(list),
    pickle.ADDITEMS: _appends,
    pickle.FROZENSET: _list,
    pickle.GLOBAL: _global,
    pickle.STACK_GLOBAL: _stack_global,
    pickle.INST: _instance,
    pickle.OBJ: _object,
    pickle.REDUCE: _reduce,
    pickle.NEWOBJ: _reduce,
    pickle.NEWOBJ_EX: _new_object_with_names,
    pickle.BUILD: _build,
    pickle.BINPERSID: _persistent,
}
