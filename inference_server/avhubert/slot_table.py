"""Which cache slots hold the tokens of which hypothesis, for a running batch of beam searches."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)

# Capacities grow in these steps: a compromise between the number of copies and wasted memory.
_FRAMES_STEP, _SLOTS_STEP = 64, 32


class SlotTable:
    """Rows, frames and slots of C clips with W hypotheses each; clips may be at different steps.

    The tokens of a clip's hypotheses form a tree with a common root. Each token occupies one *slot*, shared by all
    hypotheses that continue it. When the search reorders hypotheses, only ``ancestor_mask`` changes and no key or value
    is copied; slots without a hypothesis are reused. The order of slots is irrelevant, because positions are part of
    the token embeddings.

    Attributes:
        width: W.
        clips: C; the first C rows are in use.
        lengths: int64 (capacity,), frames of each clip.
        frame_capacity: rows have room for this many frames.
        ancestor_mask: bool (capacity, W, slot capacity), the tokens that each hypothesis continues.
        positions: int64 (capacity,), number of tokens of each clip's hypotheses.
        slots: all slots in use, with gaps, are among the first ``slots``.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.clips = self.slots = self.frame_capacity = 0
        self.lengths: NDArray[np.int64] = np.zeros(0, np.int64)
        self.ancestor_mask: NDArray[np.bool_] = np.zeros((0, width, 0), np.bool_)
        self.positions: NDArray[np.int64] = np.zeros(0, np.int64)

    @property
    def row_capacity(self) -> int:
        """There is room for this many clips."""
        return len(self.positions)

    @property
    def slot_capacity(self) -> int:
        """Rows have room for this many slots."""
        return int(self.ancestor_mask.shape[2])

    @property
    def frames(self) -> int:
        """Frames of the longest clip."""
        return int(self.lengths[: self.clips].max(initial=0))

    def add_clips(self, lengths: list[int]) -> range:
        """Allocate rows for clips of these frame counts."""
        rows = range(self.clips, self.clips + len(lengths))
        if rows.stop > self.row_capacity:
            capacity = max(rows.stop, 2 * self.row_capacity)
            self.lengths = extend(self.lengths, 0, capacity)
            self.positions = extend(self.positions, 0, capacity)
            self.ancestor_mask = extend(self.ancestor_mask, 0, capacity)
        own = slice(rows.start, rows.stop)
        self.lengths[own], self.positions[own], self.ancestor_mask[own] = lengths, 0, False
        self.clips = rows.stop
        if self.frames > self.frame_capacity:
            self.frame_capacity = _round_up(self.frames, _FRAMES_STEP)
        self._reserve_slots(self.width)
        return rows

    def move_row(self, row: int, to: int) -> None:
        """Move a clip to another row, overwriting it."""
        for table in (self.lengths, self.positions, self.ancestor_mask):
            table[to] = table[row]

    def drop_last_row(self) -> None:
        """Free the last used row."""
        self.clips -= 1

    def reorder(self, parents: NDArray[np.int64]) -> None:
        """Replace hypothesis (c, w) by the former (c, parents[c, w]); ``parents`` is (C, W)."""
        rows = np.arange(self.clips)[:, None]
        self.ancestor_mask[: self.clips] = self.ancestor_mask[rows, parents]

    def allocate_slots(self) -> NDArray[np.int64]:
        """Allocate a free slot (C, W) for the next token of every hypothesis, and add it to ``ancestor_mask``.

        ``slot_capacity`` may grow.
        """
        most = int(self.ancestor_mask[: self.clips].any(axis=1).sum(axis=1).max())
        self._reserve_slots(most + self.width)
        mask = self.ancestor_mask[: self.clips]
        # False sorts before true. The sort is stable so that the same search always uses the same slots.
        slots = mask.any(axis=1).argsort(axis=1, kind="stable")[:, : self.width]
        np.put_along_axis(mask, slots[:, :, None], values=True, axis=2)
        self.positions[: self.clips] += 1
        self.slots = int(np.flatnonzero(mask.any(axis=(0, 1)))[-1]) + 1
        return slots

    def _reserve_slots(self, slots: int) -> None:
        if slots > self.slot_capacity:
            # Doubled, because every extension copies all slots.
            slots = _round_up(max(slots, 2 * self.slot_capacity), _SLOTS_STEP)
            self.ancestor_mask = extend(self.ancestor_mask, 2, slots)


def extend(array: NDArray[Scalar], axis: int, size: int) -> NDArray[Scalar]:
    """Return the array with zeros appended, so that it has this size."""
    room = [(0, 0)] * array.ndim
    room[axis] = (0, size - array.shape[axis])
    return np.pad(array, room)


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step
