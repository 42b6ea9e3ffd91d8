"""The names that a checkpoint's pickle may use, and what stands in for each."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from gorggle_server.avhubert.checkpoints.tensor_storage import StorageReference, TensorRecord
from gorggle_server.errors import ModelFormatError


@dataclass(frozen=True)
class GlobalReference:
    """A name that the pickle mentioned, in place of the class or function itself."""

    name: str


@dataclass
class OpaqueObject:
    """An object of an allowed class: what the pickle said about it, and no behaviour.

    ``arguments`` went to its constructor, ``state`` to its ``__setstate__``; ``elements`` and
    ``entries`` were appended and set.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    elements: list[Any] = field(default_factory=list)
    entries: dict[Any, Any] = field(default_factory=dict)


_RECORDS = frozenset(
    {
        "argparse.Namespace",
        "fairseq.data.dictionary.Dictionary",
        "fairseq.data.encoders.sentencepiece_bpe.SentencepieceBPE",
        "fairseq.data.encoders.sentencepiece_bpe.SentencepieceConfig",
        "sentencepiece.SentencePieceProcessor",
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.listconfig.ListConfig",
        "omegaconf.base.Metadata",
        "omegaconf.base.ContainerMetadata",
        "omegaconf.nodes.AnyNode",
        "omegaconf.nodes.BooleanNode",
        "omegaconf.nodes.BytesNode",
        "omegaconf.nodes.EnumNode",
        "omegaconf.nodes.FloatNode",
        "omegaconf.nodes.IntegerNode",
        "omegaconf.nodes.PathNode",
        "omegaconf.nodes.StringNode",
        "torch.device",
    }
)
# Whole families of data classes: what trained the model (meters) and what configured it (dataclass configurations
# and their enumerations). They are records like the others.
_RECORD_FAMILIES = re.compile(
    r"fairseq\.(meters|logging\.meters)\.\w+Meter"
    r"|fairseq\.(meters|logging\.meters)\.MetersDict"
    r"|fairseq\.dataclass\.(configs|constants)\.\w+"
)
# Types that configurations mention without making an object: the declared type of a field.
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
# numpy's scalars of these kinds and sizes: a learning rate, a count, a flag.
_SCALAR_CODES = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b",
                 "u8": "Q", "u4": "I", "u2": "H", "u1": "B", "b1": "?"}  # fmt: skip


def named(module: object, name: object) -> GlobalReference:
    """The mark of an allowed name.

    Raises:
        ModelFormatError: any other name; nothing of it was imported or run.
    """
    if not isinstance(module, str) or not isinstance(name, str):
        raise ModelFormatError("the checkpoint's pickle names a class with something that is not text")
    # Python 2's name of the module, which protocol 2 keeps using.
    full_name = f"{'builtins' if module == '__builtin__' else module}.{name}".replace(
        "builtins.long", "builtins.int"
    )
    if full_name in _CALLS or full_name in _TYPES or storage_dtype(GlobalReference(full_name)) is not None:
        return GlobalReference(full_name)
    if full_name in _RECORDS or _RECORD_FAMILIES.fullmatch(full_name):
        return GlobalReference(full_name)
    raise ModelFormatError(
        f"the checkpoint asks for {full_name}, which is not among the classes that a model needs: "
        "it was not loaded, and nothing of it was run; do not trust this file"
    )


def called(mark: object, arguments: object) -> object:
    """What stands in for the result of calling an allowed name.

    Raises:
        ModelFormatError: a call of something that is not callable in a checkpoint.
    """
    if not isinstance(mark, GlobalReference) or not isinstance(arguments, tuple):
        raise ModelFormatError("the checkpoint's pickle calls something that is no class")
    if mark.name in _CALLS:
        return _CALLS[mark.name](*arguments)
    if mark.name in _TYPES or storage_dtype(mark) is not None:
        raise ModelFormatError(f"the checkpoint's pickle calls {mark.name}, which no checkpoint does")
    return OpaqueObject(mark.name, arguments)


def storage_dtype(mark: object) -> torch.dtype | None:
    """The type of the numbers in a storage class of torch; None for other names."""
    if not isinstance(mark, GlobalReference):
        return None
    module, _, name = mark.name.rpartition(".")
    return _STORAGE_TYPES.get(name) if module in ("torch", "torch.storage", "torch.cuda") else None


def _ordered_dict(pairs: object = ()) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    if not isinstance(pairs, tuple | list):
        raise TypeError("an OrderedDict is made from something that is no list")
    for key, value in pairs:
        if not isinstance(key, str | int):
            raise TypeError("a key is neither text nor a number")
        result[key] = value
    return result


def _tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> TensorRecord:
    if not isinstance(storage, StorageReference):
        raise TypeError("a tensor refers to something that is no storage")
    return TensorRecord.create(storage, offset, size, stride)


def _parameter(tensor: object, *_: object) -> TensorRecord:
    if not isinstance(tensor, TensorRecord):
        raise TypeError("a parameter holds something that is no tensor")
    return tensor


def _encoded(text: object, encoding: object = "latin1") -> bytes:
    # How protocol 2 writes bytes.
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise TypeError("bytes are spelled in another encoding than latin1")
    return text.encode("latin1")


def _numpy_type(code: object, *_: object) -> OpaqueObject:
    if code not in _SCALAR_CODES:
        raise TypeError("a number of numpy has an unknown type")
    return OpaqueObject("numpy.dtype", (code,))


def _numpy_scalar(dtype: object, data: object) -> object:
    if not isinstance(dtype, OpaqueObject) or dtype.name != "numpy.dtype" or not isinstance(data, bytes):
        raise TypeError("a number of numpy is not made from a type and bytes")
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "<"
    return struct.unpack((">" if order == ">" else "<") + _SCALAR_CODES[dtype.arguments[0]], data)[0]


def _size(sizes: object = ()) -> tuple[Any, ...]:
    if not isinstance(sizes, tuple | list):
        raise TypeError("a torch.Size is made from something that is no tuple")
    return tuple(sizes)


def _set(items: object = ()) -> list[Any]:
    # A set counts as a list: its members are never looked up, and need not be hashed.
    if not isinstance(items, tuple | list):
        raise TypeError("a set is made from something that is no list")
    return list(items)


def _default_dict(_factory: object = None) -> dict[Any, Any]:
    return {}


_CALLS: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": _default_dict,
    "builtins.set": _set,
    "builtins.frozenset": _set,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.Size": _size,
    "_codecs.encode": _encoded,
    "numpy.dtype": _numpy_type,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
}
