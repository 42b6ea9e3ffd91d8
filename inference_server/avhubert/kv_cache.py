"""KV cache of a running batch of beam searches: keys and values of the encoder outputs and of the tokens so far."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gorggle_server.avhubert.slot_table import SlotTable


class KVCache:
    """Keys and values of the clips of a ``SlotTable``, which has their rows and slots.

    Attributes:
        table: rows and slots.
        source: (layers, 2, row capacity, frame capacity, D), keys and values of the encoder's output, one row per clip.
        past: (layers, 2, row capacity, slot capacity, D), keys and values of the tokens.
    """

    def __init__(self, layers: int, dim: int, width: int, device: torch.device, dtype: torch.dtype) -> None:
        self.table = SlotTable(width)
        self.source = torch.zeros(layers, 2, 0, 0, dim, device=device, dtype=dtype)
        self.past = torch.zeros(layers, 2, 0, 0, dim, device=device, dtype=dtype)

    @property
    def device(self) -> torch.device:
        """The device of keys and values."""
        return self.past.device

    def add_clips(self, lengths: list[int]) -> range:
        """Allocate rows for clips of these frame counts; the caller must fill in ``source``."""
        rows = self.table.add_clips(lengths)
        self.source = _extend(_extend(self.source, 2, self.table.row_capacity), 3, self.table.frame_capacity)
        self.past = _extend(self.past, 2, self.table.row_capacity)
        self._extend_past()
        return rows

    def allocate_slots(self) -> NDArray[np.int64]:
        """Allocate a free slot (C, W) for the next token of every hypothesis."""
        slots = self.table.allocate_slots()
        self._extend_past()
        return slots

    @torch.inference_mode()
    def move_row(self, row: int, to: int) -> None:
        """Move a clip to another row, overwriting it."""
        frames = int(self.table.lengths[row])
        self.source[:, :, to, :frames] = self.source[:, :, row, :frames]
        self.past[:, :, to] = self.past[:, :, row]
        self.table.move_row(row, to)

    @torch.inference_mode()
    def clear_row(self, row: int) -> None:
        """Zero a row whose values are not finite: an attention weight of 0 would still propagate them."""
        self.source[:, :, row] = 0
        self.past[:, :, row] = 0

    def drop_last_row(self) -> None:
        """Free the last used row."""
        self.table.drop_last_row()

    def reorder(self, parents: NDArray[np.int64]) -> None:
        """Replace hypothesis (c, w) by the former (c, parents[c, w]); ``parents`` is (C, W)."""
        self.table.reorder(parents)

    def _extend_past(self) -> None:
        self.past = _extend(self.past, 3, self.table.slot_capacity)


def _extend(tensor: Tensor, dim: int, size: int) -> Tensor:
    if tensor.shape[dim] == size:
        return tensor
    shape = list(tensor.shape)
    shape[dim] = size - shape[dim]
    return torch.cat((tensor, tensor.new_zeros(shape)), dim)
