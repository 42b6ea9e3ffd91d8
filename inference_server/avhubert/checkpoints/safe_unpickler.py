"""Load checkpoint pickles without importing or calling anything that they name.

Built on the pure-Python unpickler of the standard library, whose instructions can be overridden one by one. A class or
function that the pickle names becomes a ``GlobalReference``, an object of it an ``OpaqueObject``. Names that are not on
the allow list raise ``ModelFormatError``. Sizes and counts are limited, because a pickle of a few bytes can otherwise
ask for gigabytes, and keys are restricted, because hashing a deeply nested tuple overflows the C stack.
"""

from __future__ import annotations

import io
import pickle
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, TypeAlias, TypeVar

import torch

from gorggle_server.avhubert.checkpoints.tensor_storage import StorageReference, TensorRecord
from gorggle_server.errors import ModelFormatError

_T = TypeVar("_T")
PersistentLoad: TypeAlias = Callable[[object], object]

# The largest string in a real checkpoint is its SentencePiece model, about 1 MB.
_MAX_BYTES = 2**28
_MAX_LINE_BYTES = 2**16
# Every instruction takes 1 to 3 reads; a published checkpoint takes some 100,000.
_MAX_READS = 5_000_000
# Items that calls may copy in total. Without a limit, a short pickle could copy one long list a million times.
_MAX_COPIED_ITEMS = 2**23

# Data classes, which become an OpaqueObject: vocabulary, tokenizer, configurations and training meters.
_RECORDS = re.compile(
    r"argparse\.Namespace|torch\.device|sentencepiece\.SentencePieceProcessor"
    r"|fairseq\.data\.(dictionary\.Dictionary|encoders\.sentencepiece_bpe\.Sentencepiece(BPE|Config))"
    r"|omegaconf\.(dictconfig\.DictConfig|listconfig\.ListConfig|base\.(Container)?Metadata)"
    r"|omegaconf\.nodes\.(Any|Boolean|Bytes|Enum|Float|Integer|Path|String)Node"
    r"|fairseq\.(logging\.)?meters\.(\w+Meter|MetersDict)"
    r"|fairseq\.dataclass\.(configs|constants)\.\w+"
)
# Types that configurations refer to as the declared type of a field, without creating objects.
_TYPES = frozenset({"typing.Any", *(f"builtins.{name}" for name in ("bool", "bytes", "dict", "float", "int", "list",
                                                                    "object", "str", "tuple"))})  # fmt: skip

_STORAGE_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# Formats of numpy scalars: a learning rate, a count, a flag.
_SCALAR_CODES = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b",
                 "u8": "Q", "u4": "I", "u2": "H", "u1": "B", "b1": "?"}  # fmt: skip

# Raised by operations on plain containers when the pickle is damaged or hostile.
_DAMAGE = (
    pickle.UnpicklingError, EOFError, IndexError, KeyError, TypeError, ValueError, AttributeError,
    OverflowError, RecursionError, MemoryError, struct.error,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class GlobalReference:
    """A class or function that the pickle names."""

    name: str


@dataclass(slots=True)
class OpaqueObject:
    """An object of an allowed class, without behaviour: the constructor's arguments and the pickled state."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None

    def append(self, item: object) -> None:
        """Ignore an item: no list subclass of a checkpoint is needed."""

    extend = append


def load(stream: BinaryIO, persistent_load: PersistentLoad | None = None) -> Any:
    """Load one pickle, up to and including its STOP.

    Args:
        stream: at the pickle's first byte; left after its last.
        persistent_load: turns persistent ids, such as torch's references to storages, into objects.

    Raises:
        ModelFormatError: the pickle is damaged, exceeds a limit, names a class that is not allowed, or uses an
            instruction that no checkpoint needs.
    """
    try:
        return _SafeUnpickler(stream, persistent_load).load()
    except _DAMAGE as error:
        raise ModelFormatError(
            f"the checkpoint's pickle is malformed: {type(error).__name__}: {error}"
        ) from error


def loads(data: bytes | bytearray, persistent_load: PersistentLoad | None = None) -> Any:
    """Load a pickle that is held in memory: see ``load``."""
    return load(io.BytesIO(data), persistent_load)


def get_storage_dtype(reference: object) -> torch.dtype | None:
    """Return the element type of a torch storage class; None for anything else."""
    if not isinstance(reference, GlobalReference):
        return None
    module, _, name = reference.name.rpartition(".")
    return _STORAGE_TYPES.get(name) if module in ("torch", "torch.storage", "torch.cuda") else None


class _LimitedReader:
    """Reads from a stream within the limits; a short read is an error."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._reads, self._bytes = stream, 0, 0

    def read(self, size: int) -> bytes:
        self._count(size)
        data = self._stream.read(size)
        if len(data) < size:
            raise ModelFormatError("the checkpoint's pickle is truncated")
        return data

    def readline(self) -> bytes:
        data = self._stream.readline(_MAX_LINE_BYTES)
        self._count(len(data))
        if not data.endswith(b"\n"):
            raise ModelFormatError("the checkpoint's pickle is truncated: a line does not end")
        return data

    def _count(self, size: int) -> None:
        self._reads += 1
        self._bytes += size
        if self._reads > _MAX_READS or self._bytes > _MAX_BYTES:
            raise ModelFormatError(
                f"the checkpoint's pickle exceeds {_MAX_BYTES} bytes or {_MAX_READS} instructions: it is damaged or hostile"
            )


class _SafeUnpickler(pickle._Unpickler):  # noqa: SLF001  the C implementation cannot be overridden
    stack: list[Any]
    append: Callable[[object], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]

    def __init__(self, stream: BinaryIO, persistent_load: PersistentLoad | None) -> None:
        super().__init__(_LimitedReader(stream), encoding="utf-8")
        if persistent_load is not None:
            self.persistent_load = persistent_load  # type: ignore[method-assign,assignment]
        self._copied_items = 0

    def find_class(self, module: str, name: str) -> GlobalReference:
        # Protocol 2 uses Python 2's names.
        full_name = f"{'builtins' if module == '__builtin__' else module}.{name}"
        full_name = "builtins.int" if full_name == "builtins.long" else full_name
        reference = GlobalReference(full_name)
        is_allowed = full_name in _CALLS or full_name in _TYPES
        if is_allowed or _RECORDS.fullmatch(full_name) or get_storage_dtype(reference) is not None:
            return reference
        raise ModelFormatError(
            f"the checkpoint contains {full_name[:200]!a}, which is not on the list of allowed classes; "
            "it was not loaded and none of its code was run: do not trust this file"
        )

    def _instantiate(self, function: object, args: object) -> None:
        """Push the result of calling an allowed name."""
        if not isinstance(function, GlobalReference) or not isinstance(args, tuple | list):
            raise TypeError("only allowed classes can be called, with a tuple of arguments")
        args = tuple(args)
        self._copied_items += len(args) + sum(
            len(arg) for arg in args if isinstance(arg, str | bytes | list | tuple)
        )
        if self._copied_items > _MAX_COPIED_ITEMS:
            raise ModelFormatError(
                "the checkpoint's pickle copies more than any checkpoint needs: it is hostile"
            )
        if function.name in _CALLS:
            self.append(_CALLS[function.name](*args))
        elif _RECORDS.fullmatch(function.name):
            self.append(OpaqueObject(function.name, args))
        else:
            raise TypeError(f"{function.name} cannot be called")

    def load_reduce(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        if not isinstance(args, tuple):
            raise TypeError("the arguments of a call are not a tuple")
        self._instantiate(function, args)

    def load_newobj_ex(self) -> None:
        if self.stack.pop() != {}:
            raise TypeError("an object has keyword arguments")
        self.load_reduce()

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, OpaqueObject):
            target.state = state
        elif not isinstance(target, dict):
            raise TypeError(f"cannot set the state of {type(target).__name__}")
        # The state of a dict is the attributes of an OrderedDict, such as the versions in a state dict: not needed.

    def load_frame(self) -> None:
        self.read(8)  # the frame's length; instructions are read one by one

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        _set_items(self.stack[-1], items)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _set_items(self.stack[-1], [key, value])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        _set_items(self.stack[-1], items)

    def load_refused(self) -> None:
        raise ModelFormatError("the checkpoint's pickle has an instruction that no checkpoint needs")

    _base = pickle._Unpickler.dispatch  # noqa: SLF001
    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        **dict.fromkeys(range(256), load_refused),
        **_base,
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_reduce,
        pickle.NEWOBJ_EX[0]: load_newobj_ex,
        pickle.BUILD[0]: load_build,
        pickle.FRAME[0]: load_frame,
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        # Sets become lists: their members are never looked up and need not be hashed.
        pickle.EMPTY_SET[0]: _base[pickle.EMPTY_LIST[0]],
        pickle.ADDITEMS[0]: _base[pickle.APPENDS[0]],
        pickle.FROZENSET[0]: _base[pickle.LIST[0]],
        **dict.fromkeys(
            b"".join((
                pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.STRING, pickle.PERSID,
                pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER,
            )),
            load_refused,
        ),
    }  # fmt: skip


def _set_items(target: object, items: list[Any]) -> None:
    if not isinstance(target, dict | OpaqueObject) or len(items) % 2:
        raise TypeError(f"cannot set items of {type(target).__name__}")
    for key, value in zip(items[::2], items[1::2], strict=True):
        _validate_key(key)
        if isinstance(target, dict):
            target[key] = value


def _validate_key(key: object) -> None:
    # Larger integers are refused: a million multiples of 2^61 - 1 would all have the same hash.
    if not isinstance(key, str | int | float | bytes | None) or (isinstance(key, int) and abs(key) >= 2**63):
        raise TypeError(f"a key is of type {type(key).__name__}; expected text or a 64-bit number")


def _create_ordered_dict(pairs: object = ()) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    for key, value in _expect(pairs, tuple, list):
        _set_items(result, [key, value])
    return result


def _create_tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> TensorRecord:
    return TensorRecord.create(_expect(storage, StorageReference), offset, size, stride)


def _create_parameter(tensor: object, *_: object) -> TensorRecord:
    return _expect(tensor, TensorRecord)


def _encode(text: object, encoding: object = "latin1") -> bytes:
    # Protocol 2 writes bytes as calls of _codecs.encode.
    if encoding not in ("latin1", "latin-1"):
        raise TypeError("bytes have an encoding other than latin1")
    return _expect(text, str).encode("latin1")


def _create_numpy_dtype(code: object, *_: object) -> OpaqueObject:
    if _expect(code, str) not in _SCALAR_CODES:
        raise TypeError("a numpy scalar has an unsupported type")
    return OpaqueObject("numpy.dtype", (code,))


def _create_numpy_scalar(dtype: object, data: object) -> object:
    numpy_dtype = _expect(dtype, OpaqueObject)
    if numpy_dtype.name != "numpy.dtype":
        raise TypeError("a numpy scalar has no dtype")
    state = numpy_dtype.state
    order = ">" if isinstance(state, tuple) and len(state) > 1 and state[1] == ">" else "<"
    return struct.unpack(order + _SCALAR_CODES[numpy_dtype.arguments[0]], _expect(data, bytes))[0]


def _create_sequence(items: object = ()) -> object:
    return _expect(items, tuple, list)


def _expect(value: object, *kinds: type[_T]) -> _T:
    if not isinstance(value, kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"found {type(value).__name__}; expected {expected}")
    return value


_CALLS: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": _create_ordered_dict,
    "collections.defaultdict": lambda _factory=None: {},
    "builtins.set": _create_sequence,
    "builtins.frozenset": _create_sequence,
    "torch._utils._rebuild_tensor_v2": _create_tensor,
    "torch._utils._rebuild_tensor": _create_tensor,
    "torch._utils._rebuild_parameter": _create_parameter,
    "torch.nn.parameter.Parameter": _create_parameter,
    "torch.Size": _create_sequence,
    "_codecs.encode": _encode,
    "numpy.dtype": _create_numpy_dtype,
    "numpy.core.multiarray.scalar": _create_numpy_scalar,
    "numpy._core.multiarray.scalar": _create_numpy_scalar,
}
