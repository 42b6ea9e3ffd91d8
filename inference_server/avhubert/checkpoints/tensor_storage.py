"""Tensors of a torch checkpoint: described while its pickle is read, brought in only when they are wanted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gorggle_server.errors import ModelFormatError

# More is damage: nothing in a model has more than a convolution's five.
_MAX_DIMENSIONS = 16


@dataclass(frozen=True)
class StorageReference:
    """A run of numbers in the file. ``read`` gives its bytes, of which there must be ``length`` numbers' worth."""

    dtype: torch.dtype
    length: int
    read: Callable[[], bytearray]


@dataclass(frozen=True)
class TensorRecord:
    """A tensor that has not been read yet: which numbers of which storage, in what order."""

    storage: StorageReference
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @classmethod
    def create(cls, storage: StorageReference, offset: object, shape: object, stride: object) -> TensorRecord:
        """A record whose every number lies inside its storage.

        Raises:
            ModelFormatError: it does not, or the description makes no sense.
        """
        numbers = _to_sizes(shape), _to_sizes(stride)
        if not _is_size(offset) or None in numbers or len(numbers[0] or ()) != len(numbers[1] or ()):
            raise ModelFormatError(
                "the checkpoint describes a tensor with an offset, shape or stride that makes no sense"
            )
        sizes, steps = numbers[0] or (), numbers[1] or ()
        assert isinstance(offset, int)
        last = offset + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
        # As many numbers as it has places: a tensor that repeats one number a billion times is a trap.
        if 0 not in sizes and (last >= storage.length or math.prod(sizes) > storage.length):
            raise ModelFormatError(
                f"the checkpoint describes a tensor of shape {sizes} that reaches beyond its storage of {storage.length} numbers"
            )
        return cls(storage, offset, sizes, steps)

    @property
    def dtype(self) -> torch.dtype:
        """The type of its numbers."""
        return self.storage.dtype

    def read(self) -> Tensor:
        """Read it from the file.

        Raises:
            ModelFormatError: the file holds less than the storage announced.
        """
        data = self.storage.read()
        if len(data) != self.storage.length * self.dtype.itemsize:
            raise ModelFormatError(
                f"a storage of the checkpoint holds {len(data)} bytes; expected {self.storage.length} x {self.dtype.itemsize}"
            )
        if 0 in self.shape:
            return torch.empty(self.shape, dtype=self.dtype)
        flat = torch.frombuffer(data, dtype=self.dtype)
        view = flat.as_strided(self.shape, self.stride, self.offset).contiguous()
        # A part of a storage must not keep the whole of it in memory.
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
