"""Tensors of a torch checkpoint: described by its pickle, read from the file on demand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gorggle_server.errors import ModelFormatError

# A model has at most the five dimensions of a convolution; more means damage.
_MAX_DIMENSIONS = 16


@dataclass(frozen=True)
class StorageReference:
    """A storage of ``length`` elements in the file; ``read`` returns its bytes."""

    dtype: torch.dtype
    length: int
    read: Callable[[], bytearray]


@dataclass(frozen=True)
class TensorRecord:
    """A lazy tensor: a strided view of a storage."""

    storage: StorageReference
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @classmethod
    def create(cls, storage: StorageReference, offset: object, shape: object, stride: object) -> TensorRecord:
        """Create a record after checking that the view lies within its storage.

        Raises:
            ModelFormatError: it does not, or the arguments are invalid.
        """
        numbers = _to_sizes(shape), _to_sizes(stride)
        if not _is_size(offset) or None in numbers or len(numbers[0] or ()) != len(numbers[1] or ()):
            raise ModelFormatError(
                "the checkpoint describes a tensor with an invalid offset, shape or stride"
            )
        sizes, steps = numbers[0] or (), numbers[1] or ()
        assert isinstance(offset, int)
        last = offset + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
        # Also refuses a small storage that is expanded to a huge tensor by strides of 0.
        if 0 not in sizes and (last >= storage.length or math.prod(sizes) > storage.length):
            raise ModelFormatError(
                f"the checkpoint describes a tensor of shape {sizes} that reaches beyond its storage of {storage.length} elements"
            )
        return cls(storage, offset, sizes, steps)

    @property
    def dtype(self) -> torch.dtype:
        """The tensor's dtype."""
        return self.storage.dtype

    def read(self) -> Tensor:
        """Read the tensor from the file.

        Raises:
            ModelFormatError: the storage is shorter or longer than announced.
        """
        data = self.storage.read()
        if len(data) != self.storage.length * self.dtype.itemsize:
            raise ModelFormatError(
                f"a storage of the checkpoint has {len(data)} bytes; expected {self.storage.length} x {self.dtype.itemsize}"
            )
        if 0 in self.shape:
            return torch.empty(self.shape, dtype=self.dtype)
        flat = torch.frombuffer(data, dtype=self.dtype)
        view = flat.as_strided(self.shape, self.stride, self.offset).contiguous()
        # A view of part of a storage would keep all of it in memory.
        return view.clone() if view.numel() < flat.numel() else view


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**48


def _to_sizes(values: object) -> tuple[int, ...] | None:
    if (
        not isinstance(values, tuple | list)
        or len(values) > _MAX_DIMENSIONS
        or not all(map(_is_size, values))
    ):
        return None
    return tuple(values)
