"""KV cache of a running batch of beam searches: keys and values of the encoder outputs and of the tokens so far."""

from __future__ import annotations

import torch
from torch import Tensor

# Capacities grow in these steps: a compromise between the number of copies and wasted memory.
_FRAMES_STEP, _SLOTS_STEP = 64, 32


class KVCache:
    """Keys and values of C clips with W hypotheses each; clips may be at different steps.

    The tokens of a clip's hypotheses form a tree with a common root. Each token occupies one *slot*, shared by all
    hypotheses that continue it. When the search reorders hypotheses, only ``ancestor_mask`` changes and no key or value
    is copied; slots without a hypothesis are reused. The order of slots is irrelevant, because positions are part of
    the token embeddings.

    Attributes:
        source: (layers, 2, capacity, frames, D), keys and values of the encoder's output, one row per clip.
        encoder_mask: bool (capacity, frames), false where padded.
        past: (layers, 2, capacity, slots, D), keys and values of the tokens.
        ancestor_mask: bool (capacity, W, slots), the tokens that each hypothesis continues.
        positions: (capacity,), number of tokens of each clip's hypotheses.
        clips: C; the first C rows are in use.
        slots: all slots in use, with gaps, are among the first ``slots``.
    """

    def __init__(self, layers: int, dim: int, width: int, device: torch.device, dtype: torch.dtype) -> None:
        self.width = width
        self.clips = 0
        self.source = torch.zeros(layers, 2, 0, 0, dim, device=device, dtype=dtype)
        self.encoder_mask = torch.zeros(0, 0, device=device, dtype=torch.bool)
        self.past = torch.zeros(layers, 2, 0, 0, dim, device=device, dtype=dtype)
        self.ancestor_mask = torch.zeros(0, width, 0, device=device, dtype=torch.bool)
        self.positions = torch.zeros(0, device=device, dtype=torch.long)
        self.slots = 0
        self._frames: list[int] = []

    @property
    def frames(self) -> int:
        """Frames of the longest clip."""
        return max(self._frames, default=0)

    def add_sequences(self, lengths: list[int]) -> range:
        """Allocate rows for clips of these frame counts; the caller must fill in ``source``."""
        rows = range(self.clips, self.clips + len(lengths))
        self._frames += lengths
        self.clips = rows.stop
        self._reserve(rows.stop, self.frames, self.width)
        self.encoder_mask[rows.start : rows.stop] = torch.arange(
            self.encoder_mask.shape[1], device=self.encoder_mask.device
        ) < torch.tensor(lengths, device=self.encoder_mask.device).unsqueeze(1)
        self.ancestor_mask[rows.start : rows.stop] = False
        self.positions[rows.start : rows.stop] = 0
        return rows

    def move_row(self, row: int, to: int) -> None:
        """Move a clip to another row, overwriting it."""
        frames = self._frames[row]
        self.source[:, :, to, :frames] = self.source[:, :, row, :frames]
        self.past[:, :, to] = self.past[:, :, row]
        for table in (self.encoder_mask, self.ancestor_mask, self.positions):
            table[to] = table[row]
        self._frames[to] = frames

    def clear_row(self, row: int) -> None:
        """Zero a row whose values are not finite: an attention weight of 0 would still propagate them."""
        self.source[:, :, row] = 0
        self.past[:, :, row] = 0

    def drop_last_row(self) -> None:
        """Free the last used row."""
        self.clips -= 1
        self._frames.pop()

    def reorder(self, parents: Tensor) -> None:
        """Replace hypothesis (c, w) by the former (c, parents[c, w]); ``parents`` is (C, W)."""
        ancestor_mask = self.ancestor_mask[: self.clips]
        self.ancestor_mask[: self.clips] = ancestor_mask.gather(
            1, parents.unsqueeze(2).expand(-1, -1, ancestor_mask.shape[2])
        )

    def allocate_slots(self) -> Tensor:
        """Allocate a free slot (C, W) for the next token of every hypothesis, and add it to ``ancestor_mask``."""
        taken = self.ancestor_mask[: self.clips].any(dim=1)
        most = int(taken.sum(dim=1).max())
        if most + self.width > self.ancestor_mask.shape[2]:
            self._reserve(0, 0, most + self.width)
            return self.allocate_slots()
        # False sorts before true. The sort is stable so that the same search always uses the same slots.
        slots = taken.to(torch.uint8).argsort(dim=1, stable=True)[:, : self.width]
        self.ancestor_mask[: self.clips].scatter_(2, slots.unsqueeze(2), True)
        used = self.ancestor_mask[: self.clips].flatten(0, 1).any(dim=0)
        self.slots = int(used.nonzero()[-1]) + 1
        return slots

    def _reserve(self, clips: int, frames: int, slots: int) -> None:
        if clips > len(self.positions):
            clips = max(clips, 2 * len(self.positions))
            self.source, self.past = _extend(self.source, 2, clips), _extend(self.past, 2, clips)
            self.encoder_mask = _extend(self.encoder_mask, 0, clips)
            self.ancestor_mask = _extend(self.ancestor_mask, 0, clips)
            self.positions = _extend(self.positions, 0, clips)
        if frames > self.encoder_mask.shape[1]:
            frames = _round_up(frames, _FRAMES_STEP)
            self.source, self.encoder_mask = (
                _extend(self.source, 3, frames),
                _extend(self.encoder_mask, 1, frames),
            )
        if slots > self.ancestor_mask.shape[2]:
            # Doubled, because every extension copies all slots.
            slots = _round_up(max(slots, 2 * self.ancestor_mask.shape[2]), _SLOTS_STEP)
            self.past, self.ancestor_mask = (
                _extend(self.past, 3, slots),
                _extend(self.ancestor_mask, 2, slots),
            )


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step


def _extend(tensor: Tensor, dim: int, size: int) -> Tensor:
    shape = list(tensor.shape)
    shape[dim] = size - shape[dim]
    return torch.cat((tensor, tensor.new_zeros(shape)), dim)
