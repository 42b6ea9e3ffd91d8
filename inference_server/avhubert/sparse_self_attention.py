"""Sparse self-attention of beam-search hypotheses: computes only the cache slots that a hypothesis continues."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

# Cost of one indexed token relative to one slot of a dense product (measured with head widths from 64 to 192 and 5 to
# 50 hypotheses).
_SLOTS_PER_TOKEN = 6


class AncestorIndex:
    """The tokens that each hypothesis continues, as lists of slot indices.

    Hypotheses with few common tokens need many slots: 50 hypotheses of 40 tokens use up to 2,000, of which each attends
    to 40. Masked dense attention computes all of them; this computes only those listed. It uses ``embedding_bag`` with
    weights and its gradient with respect to the weights, which read keys and values without copying them.
    """

    def __init__(self, ancestor_mask: Tensor, lengths: Tensor, row_slots: int, heads: int) -> None:
        """Build the index.

        Args:
            ancestor_mask: bool (C, W, slots); every row of a clip has as many true entries as its hypotheses have tokens.
            lengths: (C,), number of tokens of each clip's hypotheses, including the newest.
            row_slots: slots per clip in the cache, used or not.
            heads: number of attention heads.
        """
        clips, width, _ = ancestor_mask.shape
        clip, hypothesis, slot = ancestor_mask.nonzero(as_tuple=True)
        rows, lengths = clip * width + hypothesis, lengths.repeat_interleave(width)
        places = torch.arange(len(rows)) - (lengths.cumsum(0) - lengths)[rows]
        longest = int(lengths.max())
        # Rows are padded with their clip's first slot, which gets weight 0. Values of another clip may not be finite.
        first = torch.arange(clips).repeat_interleave(width) * row_slots
        slots = first.unsqueeze(1).repeat(1, longest)
        slots[rows, places] = clip * row_slots + slot
        of_heads = slots.unsqueeze(1) * heads + torch.arange(heads).unsqueeze(1)
        self._indices = of_heads.flatten(0, 1)
        self._flat = self._indices.flatten()
        bags = len(self._indices)
        self._starts = torch.arange(0, bags * longest, longest)
        self._bag_of = torch.arange(bags).repeat_interleave(longest)
        self._beyond: Tensor | None = None
        if bool((lengths < longest).any()):
            beyond = torch.arange(longest) >= lengths.unsqueeze(1)
            self._beyond = beyond.repeat_interleave(heads, dim=0)

    @staticmethod
    def is_worthwhile(slots: int, longest: int, past: Tensor) -> bool:
        """Return whether indexed attention is supported here and faster than dense attention.

        Args:
            slots: number of slots in use.
            longest: number of tokens of the longest hypotheses.
            past: keys and values.
        """
        is_sparse = slots > _SLOTS_PER_TOKEN * longest
        return (
            is_sparse and past.device.type == "cpu" and past.dtype == torch.float32 and _supports_products()
        )

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend to the indexed tokens.

        Args:
            queries: (C, W, D).
            keys: (clips, row_slots, D), contiguous.
            values: likewise.

        Returns:
            (C, W, D).
        """
        bags, longest = self._indices.shape
        asked = queries.reshape(bags, -1)
        dim = asked.shape[1]
        scores = _compute_products(
            asked * dim**-0.5, keys.view(-1, dim), self._flat, self._starts, self._bag_of
        )
        scores = scores.view(bags, longest)
        if self._beyond is not None:
            scores = scores.masked_fill(self._beyond, float("-inf"))
        found = functional.embedding_bag(
            self._indices, values.view(-1, dim), per_sample_weights=scores.softmax(dim=-1), mode="sum"
        )
        return found.view(queries.shape)


def _compute_products(
    asked: Tensor, table: Tensor, indices: Tensor, starts: Tensor, bag_of: Tensor
) -> Tensor:
    """Return (N,): for each index the dot product of its row of ``table`` and the query of its bag."""
    products: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(  # noqa: SLF001 - opaque in Python
        asked, table, indices, starts, bag_of, 0
    )
    return products


@cache
def _supports_products() -> bool:
    """Return whether this version of torch has the operation, with correct results."""
    asked, table = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[1.0, 1.0], [3.0, 4.0]])
    indices, starts, bag_of = torch.tensor([1, 0, 1]), torch.tensor([0, 2]), torch.tensor([0, 0, 1])
    try:
        found = _compute_products(asked, table, indices, starts, bag_of)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(found, torch.tensor([11.0, 3.0, 4.0]))
